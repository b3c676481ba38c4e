"""Encoders: vectors equal those of transformers' BERT with mean pooling, whatever the batch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dql.executor.engine import Engine
from dql.executor.models.encoder import Encoder
from dql.executor.options import EngineOptions
from dql.executor.quantize import DenseLayout
from dql.executor.requests import Embed, Generate, Request, Tokens
from dql.executor.weights import open_weights
from dql.kernels.language import interpreting, triton
from dql.models import open_model

VOCABULARY = 90
ROOT = Path(__file__).parents[2]


def texts(count: int) -> list[Tokens]:
    draw = np.random.default_rng(5)
    return [draw.integers(0, VOCABULARY, length).astype(np.int32) for length in draw.integers(1, 40, count)]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a random BERT, and the model as transformers runs it."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(1)
    oracle: Any = BertModel(config, add_pooling_layer=False)
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("bert")
    oracle.eval().save_pretrained(folder)
    return folder, oracle


def expected(oracle: Any, row: Tokens) -> torch.Tensor:
    with torch.no_grad():
        hidden = oracle(input_ids=torch.from_numpy(row.astype(np.int64))[None]).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(0), dim=0)


@pytest.mark.slow
def test_vectors_equal_those_of_transformers(bert: tuple[Path, Any]) -> None:
    folder, oracle = bert
    model = open_model(folder, name="bert", uri="bert")
    engine = Engine.load(model, EngineOptions(step_tokens=70, window=8))

    rows = texts(20)
    requests = [Request(i, rows[i % 20], Embed()) for i in range(24)]
    requests += [Request(24, rows[0], Generate(3)), Request(25, np.zeros(65, np.int32), Embed())]
    found = {answer.id: answer for answer in engine.run(requests)}
    for i in range(24):
        vector = found[i].vector
        assert vector is not None
        np.testing.assert_allclose(vector, expected(oracle, rows[i % 20]), atol=1e-5)
    assert [answer.failure.kind for id in (24, 25) if (answer := found[id]).failure] == ["engine", "too_long"]
    assert engine.counters.failed == 2 and engine.counters.rows == 26


def kernel_vectors(folder: Path, device: str) -> torch.Tensor:
    """Vectors of `texts(6)` in bf16 through the Triton kernels: on a GPU, or here where Triton interprets them."""
    model = open_model(folder, name="bert", uri="bert")
    encoder = Encoder(model.shape, open_weights(model), DenseLayout(torch.device(device), torch.bfloat16))
    rows = [torch.from_numpy(row.astype(np.int64)) for row in texts(6)]
    lengths = torch.tensor([len(row) for row in rows])
    with torch.inference_mode():
        return encoder.embed(torch.cat(rows).to(device), lengths.to(device)).cpu()


PROGRAM = """
import sys
from pathlib import Path
from tests.executor.test_encoder import kernel_vectors
import torch

torch.save(kernel_vectors(Path(sys.argv[1]), "cpu"), sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.skipif(triton is None or interpreting(), reason="starts the interpreter from outside it")
def test_vectors_of_the_kernels_are_near(bert: tuple[Path, Any], tmp_path: Path) -> None:
    folder, oracle = bert
    command = [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "vectors.pt")]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    near(oracle, torch.load(tmp_path / "vectors.pt"))


@pytest.mark.gpu
def test_vectors_on_a_gpu_are_near(bert: tuple[Path, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    near(bert[1], kernel_vectors(bert[0], "cuda"))


def near(oracle: Any, found: torch.Tensor) -> None:
    """Unit vectors in bf16 point where those of fp32 do."""
    cosines = torch.stack([vector @ expected(oracle, row) for vector, row in zip(found, texts(6), strict=True)])
    assert found.dtype == torch.float32 and cosines.min() > 0.999
