"""How long planning takes: the frame of candidates, and EXPLAIN over a table, cold and warm."""

from time import perf_counter

import pyarrow as pa

from benchmarks.workloads import WORDS
from dql.models.shape import ModelShape
from dql.planner.candidates import PricedCall, Space, frame, price
from dql.planner.hardware import hardware_named
from dql.planner.workload import Workload
from dql.session import Session

ROWS = 100_000
_EXPLAIN = {
    "classify": "EXPLAIN SELECT AI_CLASSIFY(body, ['billing', 'delivery', 'praise', 'other']) AS a FROM t",
    "generate": "EXPLAIN GENERATE 'Say it in other words: {body}' AS a FROM t",
}


def planning_report(session: Session) -> list[str]:
    """Milliseconds of each."""
    rows = [("frame of {:,} candidates built and priced", *frame_seconds())]
    rows += [(f"EXPLAIN over {ROWS:,} rows, {name}", 0, seconds) for name, seconds in explain_seconds(session)]
    return [
        "## Planning",
        "",
        "| what | milliseconds |",
        "|---|---|",
        *(f"| {name.format(count)} | {seconds * 1e3:,.0f} |" for name, count, seconds in rows),
        "",
    ]


def frame_seconds() -> tuple[int, float]:
    """Candidates of a large search space, and the seconds to build and price them: best of five."""
    shape = ModelShape(
        architecture="llama",
        num_layers=32,
        hidden_size=4096,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        intermediate_size=14_336,
        vocab_size=128_256,
        context_length=8192,
        tie_embeddings=False,
    )
    work = Workload(1_000_000, 1_000_000, 155, (60.0, 140.0), outputs=(32.0, 128.0), longest_output=128)
    powers = (1, 2, 4, 8)
    space = Space(
        weights=("bf16", "fp8", "int8", "int4"),
        kv_cache=("bf16", "fp8"),
        max_rows=tuple(range(16, 1025, 24)),
        step_tokens=tuple(range(1024, 33_000, 1024)),
        tensor_parallel=powers,
        pipeline_parallel=powers,
        data_parallel=powers,
        devices=8,
    )
    hardware, calls = hardware_named("h100:8"), [PricedCall("a", "8b", shape, work)]
    times, count = [], 0
    for _ in range(5):
        start = perf_counter()
        count = len(price(frame(space), calls, hardware))
        times.append(perf_counter() - start)
    return count, min(times)


def explain_seconds(session: Session) -> list[tuple[str, float]]:
    """Seconds of EXPLAIN over a table that was not counted before, then of the same again: best of five. No weights are
    loaded for it.
    """
    bodies = [" ".join(WORDS[(row * 7 + i) % len(WORDS)] for i in range(12)) + f" {row}" for row in range(ROWS)]
    session.catalog.register("t", pa.table({"body": bodies}))
    found = []
    for name, query in _EXPLAIN.items():
        times = []
        for _ in range(6):
            start = perf_counter()
            session.query(query).arrow()
            times.append(perf_counter() - start)
        found += [(f"{name}, cold", times[0]), (f"{name}, warm", min(times[1:]))]
    session.catalog.unregister("t")
    return found
