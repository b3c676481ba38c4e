"""The precision benchmark on the tiny model: a precision beside fp32, in a table."""

from argparse import Namespace
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pytest

from benchmarks.precision import QUERIES, candidates, measured, report
from dql.config import Config
from dql.session import Session


@pytest.mark.slow
@pytest.mark.skipif(not candidates(), reason="the processor has no lower precision")
def test_a_precision_is_compared(tmp_path: Path, model_file: Path) -> None:
    tables = {name: pa.table({"text": [f"{name} {i}" for i in range(6)]}) for name in ("reviews", "tickets")}
    with Session(config=Config(home=tmp_path, model=str(model_file))) as session:
        lines = measured(session, tables, candidates()[-1:], 1, perf_counter)
    assert [(x.weights, x.kv_cache, x.query) for x in lines] == [(*c, q) for c in candidates()[-1:] for q in QUERIES]
    assert all(0 <= x.same <= 1 and x.ratio > 0 for x in lines)
    table = report(lines, Namespace(model="tiny", rows=6, repeats=1, cpu_seconds=False)).splitlines()
    assert len(table) == len(lines) + 4 and len({line.count("|") for line in table[2:]}) == 1
