"""Every fused family answers as transformers does from the same files, with shared prefixes and sliding windows."""

from pathlib import Path

import numpy as np
import pytest

from dql.errors import UnsupportedError
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request, Score
from dql.models import Model, open_model
from tests.executor.checkpoints import FAMILIES, GENERIC, VOCABULARY, Checkpoint, checkpoint
from tests.executor.gguf_files import write_gguf

LABELS = ((5, 2), (6, 7, 2), (6, 9, 2))
NEW_TOKENS = 6


# Those that a converter leaves whole: files of Llama and Qwen2 say nothing of windows, Gemma 3's pattern of windows is
# fixed, and DeepSeek's quotient of amplitudes has no key.
AS_GGUF = (
    "llama",
    "llama, untied, biased, llama3 scaling",
    "llama, linear scaling",
    "qwen2",
    "qwen3",
    "smollm3",
    "gemma",
    "gemma2",
    "gemma3, linear scaling",
)


@pytest.mark.slow
@pytest.mark.parametrize("family", [*FAMILIES, *GENERIC])
def test_answers_equal_those_of_transformers(family: str, tmp_path: Path) -> None:
    files = checkpoint(tmp_path, family)
    check(files.model, files)


@pytest.mark.slow
@pytest.mark.parametrize("family", AS_GGUF)
def test_gguf_files_answer_as_the_checkpoints_they_come_from(family: str, tmp_path: Path) -> None:
    files = checkpoint(tmp_path / "hf", family)
    write_gguf(tmp_path / "model.gguf", files.oracle)
    check(open_model(tmp_path / "model.gguf", name=family, uri=family), files)


def check(model: Model, files: Checkpoint) -> None:
    """Greedy tokens, their log-probabilities and label scores of rows that share a prefix."""
    draw = np.random.default_rng(3)
    shared = draw.integers(3, VOCABULARY, 40)  # longer than the sliding window, enough for a dense run
    prompts = [
        np.concatenate((shared, draw.integers(3, VOCABULARY, draw.integers(1, 30)))).astype(np.int32) for _ in range(8)
    ]
    engine = Engine.load(model, EngineOptions(step_tokens=128, kv_bytes=1 << 22))

    for deterministic in (False,) if model.shape.generic else (False, True):
        asked = [Request(i, tokens, Generate(NEW_TOKENS)) for i, tokens in enumerate(prompts)]
        for answer in engine.run(asked, deterministic=deterministic):
            best, tokens = files.log_probs(prompts[answer.id], answer.tokens.tolist()).max(-1)
            assert answer.tokens.tolist() == tokens.tolist()
            np.testing.assert_allclose(answer.logprobs, best, atol=2e-4)
        asked = [Request(i, tokens, Score(LABELS)) for i, tokens in enumerate(prompts)]
        for answer in engine.run(asked, deterministic=deterministic):
            np.testing.assert_allclose(answer.logprobs, files.label_scores(prompts[answer.id], LABELS), atol=2e-4)
    assert engine.counters.reused > 0
    if model.shape.generic:
        with pytest.raises(UnsupportedError, match=f"deterministic = true .* {model.shape.architecture!r}"):
            list(engine.run([], deterministic=True))
