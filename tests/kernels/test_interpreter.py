"""Every Triton kernel on the CPU: this folder's tests again, in a process where Triton interprets its kernels."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dql.kernels.language import interpreting, triton

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(triton is None or interpreting(), reason="starts the interpreter from outside it")
def test_kernels_equal_the_oracle_in_the_interpreter() -> None:
    scalar = "ignore:Conversion of an array with ndim:DeprecationWarning"  # the interpreter's own, at run-time loops
    options = ["-q", "-m", "not gpu and not slow", "-p", "no:cacheprovider", "-W", scalar]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", HERE, *options],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
