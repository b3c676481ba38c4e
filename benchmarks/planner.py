"""How well the planner predicts: predicted ÷ measured seconds over workloads on this machine, and how fast it searches.

    python -m benchmarks.planner                 # all workloads, after a full calibration
    python -m benchmarks.planner --quick         # after the quick profile of first use
    python -m benchmarks.planner --search        # only the search over 200,000 candidates

Every workload runs once to load and then `--repeats` times, over other texts and below other instructions each time
and without the history, so that nothing is reused or learnt. Answers' lengths are not part of the cost model: where a
workload generates, the prediction is made for the lengths that came. Seconds are those in the engine.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time

import pyarrow as pa
import torch

from benchmarks.tables import GUIDELINES
from dql.config import Config
from dql.estimate import estimate
from dql.executor import calibrate, call
from dql.explaining import modelled
from dql.grammar.ast import QueryStatement
from dql.grammar.parser import parse
from dql.models.shape import ModelShape
from dql.planner.candidates import PricedCall, Space, frame, price
from dql.planner.hardware import cpu_versions, hardware_named
from dql.planner.workload import Workload as Asked
from dql.session import Session
from dql.statements import Call, begin, plan

TEXT = (
    "the parcel arrived late and the box was torn on one side so I want my money back please answer soon thank you for "
    "your help with the invoice of last month which I cannot find in my account although I looked twice"
)
WORDS = tuple(TEXT.split())
LABELS = "['billing', 'delivery', 'praise', 'other']"


@dataclass(frozen=True, slots=True)
class Workload:
    """A query over `rows` texts of `words` words (5 to −2 · `words` where negative), `distinct` of them different.

    guidelines: sentences of instruction in front.
    """

    name: str
    query: str
    rows: int
    words: int
    guidelines: int = 0
    distinct: int = 0


WORKLOADS = (
    Workload("classify, short texts", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 96, 12),
    Workload("classify, long texts", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 24, 150),
    Workload("classify, mixed lengths", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 48, -80),
    Workload("filter, long instruction", "SELECT AI_FILTER('{g} {body} asks for money') AS a FROM t", 64, 16, 12),
    Workload("score, eleven points", "SELECT AI_SCORE('How angry is this? {body}') AS a FROM t", 64, 20),
    Workload("classify, every text four times", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 192, 20, 0, 48),
    Workload("classify, tight latency", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t WITH latency < 3s", 48, 20),
    Workload("generate 8", "GENERATE 'Name the mood: {body}' AS a FROM t WITH max_tokens = 8", 64, 20),
    Workload("generate 32", "GENERATE 'Say it in other words: {body}' AS a FROM t WITH max_tokens = 32", 48, 20),
    Workload("generate 96, few rows", "GENERATE 'Answer this: {body}' AS a FROM t WITH max_tokens = 96", 6, 20),
    Workload(
        "generate, long instruction", "GENERATE '{g} Mood of: {body}' AS a FROM t WITH max_tokens = 8", 48, 16, 24
    ),
    Workload(
        "generate, batch of 4", "GENERATE 'Mood: {body}' AS a FROM t WITH max_tokens = 16, batch_size = 4", 24, 20
    ),
    Workload("generate, one by one", "GENERATE 'Mood: {body}' AS a FROM t WITH max_tokens = 16, batch_size = 1", 6, 9),
    Workload(
        "two calls a row",
        f"SELECT AI_CLASSIFY(body, {LABELS}) AS a, AI_GENERATE('Mood: {{body}}', max_tokens => 8) AS b FROM t",
        32,
        20,
    ),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One workload's figures: seconds predicted before the run, predicted for what came, and measured."""

    name: str
    plan: str
    before: float
    predicted: float
    measured: Sequence[float]

    @property
    def seconds(self) -> float:
        return statistics.median(self.measured)

    @property
    def error(self) -> float:
        return abs(self.predicted / self.seconds - 1)


def main() -> None:
    """Run and print a report in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="the profile of first use instead of a full calibration")
    parser.add_argument("--cpu-seconds", action="store_true", help="CPU time of one thread, on a shared machine")
    parser.add_argument("--search", action="store_true", help="only time the search")
    options = parser.parse_args()
    print("\n".join(search_report()))
    if options.search:
        return
    if options.cpu_seconds:
        torch.set_num_threads(1)
        for module in (calibrate, call):
            setattr(module, "perf_counter", process_time)  # noqa: B010
    with tempfile.TemporaryDirectory() as folder:
        lines = []
        for line in run_all(Path(folder), options.model, options.repeats, thorough=not options.quick):
            print(f"{line.name}: {line.predicted:.2f} s predicted, {line.seconds:.2f} s measured", file=sys.stderr)
            lines.append(line)
    print("\n".join(report(lines, options)))


def run_all(home: Path, model: str, repeats: int, *, thorough: bool) -> Iterator[Line]:
    """Calibrate, then run the workloads one after the other."""
    (home / "models").symlink_to(Config.load().models_dir)
    config = replace(Config.load(), home=home, model=model)
    with Session(config=config) as session:
        session.registry.pull(model)
        shape = session.registry.resolve(model).shape
        session.machine.measure(session.runtime, [shape], thorough=thorough)
        for workload in WORKLOADS:
            yield run_one(session, workload, repeats)
            config.runs_file.unlink(missing_ok=True)


def run_one(session: Session, workload: Workload, repeats: int) -> Line:
    """Plan and run one workload; the first run loads the model and is not counted."""
    measured: list[float] = []
    predicted, before, chosen = 0.0, 0.0, ""
    for repeat in range(repeats + 1):
        session.catalog.register("t", texts(workload, seed=repeat))
        rules = " ".join((f"Rules number {repeat}.", *GUIDELINES[: workload.guidelines])).replace("'", "''")
        query = workload.query.replace("{g}", rules)
        (statement,) = parse(query)
        assert isinstance(statement, QueryStatement)
        around = Call(session, query, {}, None)
        planned = plan(statement.query, around)
        if repeat == 0:
            found = estimate(planned, session, {})
            assert found.choice is not None
            before = found.choice.best.cost.seconds
            place = found.choice.best.placement
            chosen = f"{place.max_rows} × {place.step_tokens}"
        run, found = begin(planned, around)
        for _ in run.batches():
            pass
        if repeat:
            assert found.choice is not None
            measured.append(sum(m.seconds for m in run.context.measured.values()))
            parts = [modelled(found.choice, out, m) for out, m in run.context.measured.items()]
            predicted = sum(part or 0.0 for part in parts)
    return Line(workload.name, chosen, before, predicted, measured)


def texts(workload: Workload, seed: int) -> pa.Table:
    """The workload's rows; another seed gives other texts of the same lengths."""
    distinct = workload.distinct or workload.rows
    bodies = []
    for row in range(distinct):
        count = workload.words if workload.words > 0 else 5 + (row * 37) % (-2 * workload.words)
        words = [WORDS[(row * 7 + i * (row % 5 + 1) + seed) % len(WORDS)] for i in range(count)]
        bodies.append(f"{row + 1000 * seed} {' '.join(words)}")
    return pa.table({"body": [bodies[row % distinct] for row in range(workload.rows)]})


def report(lines: Sequence[Line], options: argparse.Namespace) -> list[str]:
    """The table and its summary."""
    errors = sorted(line.error for line in lines)
    p90 = errors[min(len(errors) - 1, int(0.9 * len(errors)))]
    load = " ".join(f"{x:.1f}" for x in os.getloadavg())
    return [
        f"# Predicted and measured seconds, {options.model}",
        "",
        f"{cpu_versions(0)['cpu']}, {os.cpu_count()} cores, load averages {load} at the end; "
        f"{'CPU seconds of one thread' if options.cpu_seconds else 'wall clock'}; "
        f"{'quick profile' if options.quick else 'full calibration'}; medians of {len(lines[0].measured)} runs.",
        "",
        "| workload | batch × chunk | predicted before | predicted for what came | measured | ratio |",
        "|---|---|---|---|---|---|",
        *(
            f"| {line.name} | {line.plan} | {line.before:.2f} s | {line.predicted:.2f} s | {line.seconds:.2f} s "
            f"| {line.predicted / line.seconds:.2f} |"
            for line in lines
        ),
        "",
        f"Median error {statistics.median(errors):.0%}, p90 {p90:.0%} over {len(lines)} workloads.",
    ]


def search_report() -> list[str]:
    """How long it takes to price a frame of 200,000 candidates and more, best of five."""
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
    work = Asked(1_000_000, 1_000_000, 155, (60.0, 140.0), outputs=(32.0, 128.0), longest_output=128)
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
    times = []
    for _ in range(5):
        start = perf_counter()
        priced = price(frame(space), calls, hardware)
        times.append(perf_counter() - start)
    return [f"Search: {len(priced):,} candidates built and priced in {min(times) * 1e3:,.0f} ms (best of five).", ""]


if __name__ == "__main__":
    main()
