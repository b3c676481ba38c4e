"""The engine runs where torch, numpy, tokenizers, safetensors and jinja2 are all there is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys

class Blocked:
    NAMES = {"duckdb", "polars", "lark", "pyarrow", "gguf", "transformers", "pandas", "huggingface_hub"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.NAMES:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
from pathlib import Path
import numpy as np
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request, Score
from dql.models import open_model

model = open_model(Path(sys.argv[1]), name="tiny", uri="tiny")
engine = Engine.load(model, EngineOptions(kv_bytes=1 << 20))
ids, _ = model.tokenizer.encode_data(["the question is one"])
found = list(engine.run([Request(0, ids, Generate(3, stop_texts=("zzz",))), Request(1, ids, Score(((5, 2), (6, 2))))]))
assert [answer.failure for answer in found] == [None, None], found
"""


@pytest.mark.slow
def test_the_tiny_model_runs_without_the_rest_of_the_dependencies(model_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(model_file)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


GPU_IMAGE = """
import sys

class Blocked:
    NAMES = {"duckdb", "polars", "lark", "gguf", "llguidance", "platformdirs", "prompt_toolkit", "wcwidth"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.NAMES:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Blocked())
import pytest
import benchmarks.engine, benchmarks.kernels

tests = ["tests/kernels", "tests/executor/test_triton_engine.py", "tests/executor/test_encoder.py"]
sys.exit(pytest.main(["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider", *tests]))
"""


@pytest.mark.slow
def test_what_a_gpu_image_runs_asks_for_nothing_that_it_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", GPU_IMAGE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "test_a_gpu_is_measured" in done.stdout
