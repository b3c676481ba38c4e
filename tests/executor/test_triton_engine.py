"""The whole engine through the Triton kernels answers as it does on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dql.executor.calibrate_gpu import GpuGrid, measure
from dql.kernels.language import interpreting, triton
from dql.models import open_model
from dql.planner.hardware import hardware_named
from tests.executor.checkpoints import checkpoint
from tests.executor.triton_work import Found, answers, copies, guessed, requests

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two layers: Gemma's are one of each kind of attention, and the interpreter takes seconds for each."""
    return checkpoint(tmp_path_factory.mktemp("checkpoint"), request.param, num_hidden_layers=2).model.path


def interpreted(model: Path, found: Path, *more: str) -> Found:
    """The answers of a process where Triton's interpreter runs the kernels."""
    scalar = "ignore:Conversion of an array with ndim:DeprecationWarning"  # the interpreter's own, at run-time loops
    command = [sys.executable, "-W", "error", "-W", scalar, "-m", "tests.executor.triton_work", str(model), str(found)]
    command += more
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answered: Found = json.loads(found.read_text())
    return answered


@pytest.mark.slow
@pytest.mark.skipif(triton is None or interpreting(), reason="starts the interpreter from outside it")
def test_answers_in_the_interpreter_equal_those_of_the_cpu(model: Path, tmp_path: Path) -> None:
    expected, found = answers(model), interpreted(model, tmp_path / "answers.json")
    assert found.keys() == expected.keys() == {str(request.id) for request in requests()}
    for number, (tokens, logprobs, finish) in expected.items():
        assert (found[number][0], found[number][2]) == (tokens, finish), number
        np.testing.assert_allclose(found[number][1], logprobs, atol=2e-4)


@pytest.mark.slow
@pytest.mark.skipif(triton is None or interpreting(), reason="starts the interpreter from outside it")
def test_label_scores_over_keys_in_fp8_stay_near(model_file: Path, tmp_path: Path) -> None:
    expected, found = answers(model_file), interpreted(model_file, tmp_path / "answers.json", "fp8")
    assert found.keys() == {str(request.id) for request in requests(few=True)} <= expected.keys()
    scored = [number for number in found if not expected[number][0]]
    for number in scored:
        np.testing.assert_allclose(np.exp(found[number][1]), np.exp(expected[number][1]), atol=0.15)
    assert any(found[number][1] != expected[number][1] for number in scored)


@pytest.mark.slow
@pytest.mark.skipif(triton is None or interpreting(), reason="starts the interpreter from outside it")
def test_guesses_in_the_interpreter_leave_answers_as_they_are(model_file: Path, tmp_path: Path) -> None:
    expected, found = guessed(model_file, ("none",)), interpreted(model_file, tmp_path / "answers.json", "guesses")
    for way in ("own text", "draft"):
        (proposed, accepted), *_ = found[way]
        assert 0 < accepted <= proposed
        for request in copies():
            tokens, logprobs, finish = expected[f"none {request.id}"]
            answered = found[f"{way} {request.id}"]
            assert (answered[0], answered[2]) == (tokens, finish), (way, request.id)
            np.testing.assert_allclose(answered[1], logprobs, atol=2e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kv_cache", ["bf16", "fp8"])
def test_answers_on_a_gpu_are_those_of_the_cpu_within_bf16(model: Path, kv_cache: str) -> None:
    """Label scores within what bf16 can hold, and of the greedy rows' first tokens nine in ten the same."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    expected, found = answers(model), answers(model, device="cuda", kv_cache=kv_cache)
    assert found.keys() == expected.keys()
    first = [found[n][0][:1] == tokens[:1] for n, (tokens, _, _) in expected.items() if int(n) % 4 == 1]
    assert np.mean(first) >= 0.9
    for number, (tokens, logprobs, _) in expected.items():
        if not tokens:
            np.testing.assert_allclose(np.exp(found[number][1]), np.exp(logprobs), atol=0.15)


@pytest.mark.gpu
def test_a_gpu_is_measured(model: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    shape = open_model(model, name="tiny", uri="tiny").shape
    grid = GpuGrid(("fp8", "int8"), (64, 1), (4,), (64,), (16,), ((4, 64),), 1 << 20, 1 << 26, 256, 512, 4, 16, 3, 60.0)
    found = measure(hardware_named("h100"), shape, grid)
    assert all(found.measured_for(precision, shape) for precision in ("bf16", "fp8", "int8"))
    assert found.bandwidth > 1e11 and 0 < found.step_seconds < 0.1
