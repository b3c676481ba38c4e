"""The table benchmark end to end on the tiny model: same outputs as its peer, and figures that hang together."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.arithmetic import StepProducts, gemm_rate, row_work
from benchmarks.peers import Transformers
from benchmarks.tables import CHARACTERS, Workload, build_prompts, measure, open_line, read_texts, report
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate
from dql.models import open_model

WORKLOADS = (
    Workload("classify", 60, "Good or bad?", 2, classify=True),
    Workload("generate", 40, "In other words?", 3),
    Workload("classify twice", 60, "Good or bad?", 2, classify=True, copies=2),
)


def test_texts_are_cut_and_empty_ones_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,body\n1,{}\n2,\n3,short\n4,last\n".format("x" * 200))
    assert read_texts(path, "body", 2) == ["x" * CHARACTERS, "short"]


@pytest.mark.slow
def test_a_table_is_measured_and_printed(model_file: Path) -> None:
    model = open_model(model_file, name="tiny", uri="tiny")
    engine = Engine.load(model, EngineOptions(kv_bytes=1 << 22))
    texts = [f"film {number} was a {'joy' if number % 3 else 'bore'}" for number in range(20)]
    lines = [open_line(engine, build_prompts(model, workload, texts)) for workload in WORKLOADS]
    for line in lines:
        measure(line, model, engine, [Transformers(model)], 20, first=True)
    assert all(line.same == {"transformers": 1.0} for line in lines)
    rates = gemm_rate(model.shape), StepProducts(model.shape)
    table = report(model, lines, *rates, Namespace(rows=20, peer_rows=20, repeats=1)).splitlines()
    assert len({line.count("|") for line in table[2:]}) == 1
    assert [line.split("|")[1].strip() for line in table[4:]] == [w.name for w in WORKLOADS]


def test_the_bound_counts_shared_tokens_once(model_file: Path) -> None:
    engine = Engine.load(open_model(model_file, name="tiny", uri="tiny"), EngineOptions(kv_bytes=1 << 20))
    prompts = build_prompts(open_model(model_file, name="tiny", uri="tiny"), WORKLOADS[1], ["abc", "xyz"]).tokens
    alone = row_work(engine, prompts[:1], Generate(4))
    assert row_work(engine, prompts, Generate(4)).flops < 0.8 * alone.flops
    longer = row_work(engine, prompts[:1], Generate(5))
    assert longer.decoding > alone.decoding
    assert longer.prompts == alone.prompts
    assert (alone.rows, row_work(engine, prompts, Generate(4)).rows) == (1, 2)
