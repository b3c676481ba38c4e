"""The GPU benchmark runs from end to end on a tiny shape, so that a machine with a GPU has only to start it."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.engine import Bench, lines
from benchmarks.engine_cases import ALONE, LLAMA_8B, WORKLOADS
from dql.models.shape import ModelShape


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # transformers', about a machine without psutil
def test_every_line_is_measured_on_a_tiny_shape(tmp_path: Path) -> None:
    bench = Bench(Namespace(shape="tiny", device="cpu", scale=64, repeats=1), tmp_path)
    found = {(line.name, line.weights): line for line in lines(bench, "")}
    assert {name for name, _ in found} == {workload.name for workload in WORKLOADS} | {"against transformers"}
    for line in found.values():
        assert line.figure is not None and (line.figure > 0 or line.name == ALONE), line
        assert str(line).count("|") == 7


def test_the_shape_is_an_8b_llama() -> None:
    shape = ModelShape.from_hf_config(LLAMA_8B)
    assert 8.0e9 < shape.matmul_parameters + 2 * shape.embedding_parameters < 8.1e9
