"""The benchmarks of precisions on the tiny model: whole queries, single matrices, the LM head in two passes."""

from argparse import Namespace
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pytest

from benchmarks import precision_errors, precision_head
from benchmarks.precision import QUERIES, beginnings, candidates, measured, report
from benchmarks.precision_layouts import CPU, chosen
from benchmarks.tables import WORKLOADS, build_prompts
from dql.config import Config
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.quantize import above, layout
from dql.executor.weights import open_weights
from dql.models import Model, open_model
from dql.planner.hardware import cpu_precisions
from dql.session import Session

TEXTS = [f"a film of {minutes} minutes" for minutes in range(6)]


@pytest.fixture
def tiny(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri=str(model_file))


@pytest.mark.slow
@pytest.mark.skipif(not candidates(), reason="the processor has no lower precision")
def test_a_precision_is_compared(tmp_path: Path, model_file: Path) -> None:
    tables = {name: pa.table({"text": [f"{name} {i}" for i in range(6)]}) for name in ("reviews", "tickets")}
    with Session(config=Config(home=tmp_path, model=str(model_file))) as session:
        lines = measured(session, tables, candidates()[-1:], 1, perf_counter)
    assert [(x.weights, x.kv_cache, x.query) for x in lines] == [(*c, q) for c in candidates()[-1:] for q in QUERIES]
    assert all(0 <= x.same <= 1 and (x.ratio or 0) > 0 for x in lines)
    table = report(lines, Namespace(model="tiny", rows=6, repeats=1, cpu_seconds=False)).splitlines()
    assert len(table) == len(lines) + 4 and len({line.count("|") for line in table[2:]}) == 1


@pytest.mark.skipif("int8" not in cpu_precisions(), reason="the processor does not multiply int8")
def test_what_prompts_begin_with_can_be_of_another_kind(tiny: Model) -> None:
    weights, held = open_weights(tiny), layout("int8", CPU)
    exact = beginnings("fp32")(weights, held)
    assert exact == (weights, layout("fp32", CPU))
    assert beginnings(None)(weights, held) == above(weights, held)
    assert beginnings("int8")(weights, held) is None


@pytest.mark.slow
def test_each_matrix_is_compared(tiny: Model) -> None:
    lines = list(precision_errors.compared(tiny, open_weights(tiny), TEXTS, precision_errors.CHOICES))
    runs = [choice.name for choice in precision_errors.CHOICES if {*choice.kinds.values()} <= chosen().keys()]
    assert [line.name for line in lines] == runs
    for line in lines:
        assert 0 < line.error < 1 and min(line.labels, line.texts, line.first) >= 0 and line.first >= line.texts


@pytest.mark.slow
def test_the_head_in_two_passes_writes_the_same_texts(tiny: Model) -> None:
    engine = Engine.load(tiny, EngineOptions(kv_bytes=1 << 20, speculate=False))
    ways = precision_head.measured(engine, build_prompts(tiny, WORKLOADS[1], TEXTS).tokens, repeats=1)
    assert ways[0].texts == ways[1].texts and all(len(way.seconds) == 1 for way in ways)
    table = precision_head.report(ways).splitlines()
    assert len(table) == 4 and all(line.count("|") == 5 for line in table)
