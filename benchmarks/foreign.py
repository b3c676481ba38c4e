"""Peers that need an environment of their own: a process each, asked in lines of JSON."""

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.transformers_model import transformers_model
from dql.errors import ConfigError, UnsupportedError
from dql.executor.requests import Tokens
from dql.executor.weights import open_weights
from dql.models.model import Model

_WORKERS = Path(__file__).parent / "workers"


class _Worker:
    """A script of `workers/` run by another interpreter."""

    def __init__(self, python: Path, script: str, argument: Path) -> None:
        self._process = subprocess.Popen(
            [python, _WORKERS / script, argument],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def ask(self, prompts: Sequence[Tokens], new_tokens: int) -> Any:
        """The worker's outputs for these prompts."""
        assert self._process.stdin is not None
        asked = {"prompts": [tokens.tolist() for tokens in prompts], "new_tokens": new_tokens}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return self._read()["outputs"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            command = " ".join(map(str, self._process.args))  # type: ignore[arg-type]
            raise ConfigError("a peer ended without an answer", hint=f"run it by hand: {command}")
        return json.loads(line)


class Vllm:
    """vLLM's CPU build over the same fp32 weights, written out for it once."""

    name = "vLLM"
    shares = True

    def __init__(self, model: Model, python: Path) -> None:
        self._model = model
        self._folder = tempfile.TemporaryDirectory()
        transformers_model(model.shape, open_weights(model)).save_pretrained(self._folder.name)
        self._worker = _Worker(python, "vllm_worker.py", Path(self._folder.name))

    def generate(self, prompts: Sequence[Tokens], new_tokens: int) -> list[str]:
        outputs = self._worker.ask(prompts, new_tokens)
        return list(self._model.tokenizer.decode_batch([np.array(ids, np.int32) for ids in outputs]))

    def score(self, prompts: Sequence[Tokens], labels: Sequence[Sequence[int]]) -> list[NDArray[np.float32]] | None:
        return None

    def close(self) -> None:
        self._worker.close()
        self._folder.cleanup()


class LlamaCpp:
    """llama.cpp over the GGUF file as it is, at the file's own precision."""

    name = "llama.cpp"
    shares = True

    def __init__(self, model: Model, python: Path) -> None:
        if model.path.suffix != ".gguf":
            raise UnsupportedError("llama.cpp reads GGUF files only")
        self._worker = _Worker(python, "llama_cpp_worker.py", model.path)

    def generate(self, prompts: Sequence[Tokens], new_tokens: int) -> list[str]:
        return list(self._worker.ask(prompts, new_tokens))

    def score(self, prompts: Sequence[Tokens], labels: Sequence[Sequence[int]]) -> list[NDArray[np.float32]] | None:
        return None

    def close(self) -> None:
        self._worker.close()
