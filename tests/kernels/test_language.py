"""Where Triton is missing, as on macOS, every op imports and takes its CPU path."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import importlib, pkgutil, sys
sys.modules["triton"] = None
import torch
import dql.kernels
for module in pkgutil.iter_modules(dql.kernels.__path__):
    importlib.import_module(f"dql.kernels.{module.name}")
from dql.kernels.rms_norm import rms_norm
from dql.kernels.sample import greedy
print(rms_norm(torch.ones(1, 4), torch.ones(4), eps=0.0).tolist(), greedy(torch.eye(3))[0].tolist())
"""


@pytest.mark.slow
def test_ops_run_without_triton() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout == "[[1.0, 1.0, 1.0, 1.0]] [0, 1, 2]\n", run.stderr
