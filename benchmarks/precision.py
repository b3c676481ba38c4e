"""What each precision of this machine costs in answers and gains in speed: agreement with fp32, and rows per second.

    python -m benchmarks.precision --data reviews.csv --column reviewText
    python -m benchmarks.precision --data reviews.csv --model gemma3-270m --weights int8 --cpu-seconds
    python -m benchmarks.precision --data reviews.csv --weights int8 --beginnings fp32 --repeats 0

Queries: two labels, a filter and 16 tokens of greedy text over the reviews, six labels over the tickets of
examples/data. --weights measures these alone. Two flags put something else in the place of what is built for int8:
--beginnings the precision of the matrices below norms for what all prompts of a call begin with ('int8': as all other
tokens), --strength that of the smoothing. Every precision runs beside fp32, turn by turn in one process; ratios are
those of the medians, without the first run, the share of equal answers that of all rows; with --repeats 0 there are
answers alone. Nothing is kept between runs but the loaded models. With --cpu-seconds one thread's CPU time is taken,
for machines that others use.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from unittest.mock import patch

import pyarrow as pa
import torch

from benchmarks.tables import read_texts
from dql.config import Config
from dql.executor import engine, quantize
from dql.executor.models.linear import Layout
from dql.executor.smooth import STRENGTH, smoothed
from dql.executor.weights import Weights
from dql.planner.hardware import cpu_precisions
from dql.session import Session

TICKETS = Path(__file__).parent.parent / "examples" / "data" / "tickets.csv"
QUERIES = {
    "two labels": "CLASSIFY text IN ('positive', 'negative') FROM reviews",
    "filter": "SELECT AI_FILTER('the review recommends the film: {text}') AS yes FROM reviews",
    "16 tokens": "GENERATE 'Say in a few words what this review is about: {text}' AS said FROM reviews",
    "six labels": "CLASSIFY text IN ('billing', 'bug', 'shipping', 'account', 'praise', 'other') FROM tickets",
}


@dataclass(slots=True)
class Line:
    """A precision of weights and keys over one query: the share of equal answers, seconds of its runs and fp32's."""

    weights: str
    kv_cache: str
    query: str
    same: float = 0.0
    seconds: list[float] = field(default_factory=list)
    exact_seconds: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as fp32; None where nothing was timed."""
        return statistics.median(self.exact_seconds) / statistics.median(self.seconds) if self.seconds else None


def main() -> None:
    """Run the table and print it as Markdown."""
    options = _options()
    if options.cpu_seconds:
        torch.set_num_threads(1)
    clock = process_time if options.cpu_seconds else perf_counter
    tables = {
        "reviews": pa.table({"text": read_texts(options.data, options.column, options.rows)}),
        "tickets": pa.table({"text": read_texts(TICKETS, "body", options.rows)}),
    }
    wanted = [pair for pair in candidates() if options.weights in (None, pair[0])]
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").symlink_to(Config.load().models_dir)
        config = replace(Config.load(), home=Path(home), model=options.model)
        with (
            patch.object(engine, "above", beginnings(options.beginnings)),
            patch.object(quantize, "smoothed", partial(smoothed, strength=options.strength)),
            Session(config=config) as session,
        ):
            lines = measured(session, tables, wanted, options.repeats, clock)
    print(report(lines, options))


def beginnings(kind: str | None) -> Callable[[Weights, Layout], tuple[Weights, Layout] | None]:
    """What an engine asks for the higher precision of its layout, with this kind in its place; None: as it is built."""

    def other(weights: Weights, held: Layout) -> tuple[Weights, Layout] | None:
        own = quantize.above(weights, held)
        if own is None or kind is None:
            return own
        return None if kind == "int8" else (weights, quantize.layout(kind, held.device))

    return other


def candidates() -> list[tuple[str, str]]:
    """Precisions of weights and keys that this machine has, beside fp32 in both."""
    lossy = [weights for weights in cpu_precisions() if weights != "fp32"]
    keys = [("fp32", "bf16"), ("bf16", "bf16")] if "bf16" in lossy else []
    return [*((weights, "fp32") for weights in lossy), *keys]


def measured(
    session: Session,
    tables: dict[str, pa.Table],
    precisions: Sequence[tuple[str, str]],
    repeats: int,
    clock: Callable[[], float],
) -> list[Line]:
    """Every one of these precisions over every query, in turn with fp32."""
    lines = []
    for weights, kv_cache in precisions:
        for name in QUERIES:
            line = Line(weights, kv_cache, name)
            for _ in range(repeats + 1):
                exact, exact_seconds = _run(session, tables, name, ("fp32", "fp32"), clock)
                answers, seconds = _run(session, tables, name, (weights, kv_cache), clock)
                line.exact_seconds.append(exact_seconds)
                line.seconds.append(seconds)
            line.same = statistics.fmean(a == b for a, b in zip(answers, exact, strict=True))
            del line.exact_seconds[0], line.seconds[0]  # the first loads the models
            lines.append(line)
    return lines


def _run(
    session: Session, tables: dict[str, pa.Table], query: str, precision: tuple[str, str], clock: Callable[[], float]
) -> tuple[list[object], float]:
    """The answers of a query, and its seconds."""
    pinned = "quantization = '{}', kv_cache = '{}'".format(*precision)
    began = clock()
    found = session.query(f"{QUERIES[query]} WITH {pinned}, max_tokens = 16", tables=tables).arrow()
    return found.column(found.num_columns - 1).to_pylist(), clock() - began


def report(lines: Sequence[Line], options: argparse.Namespace) -> str:
    """The table."""
    rows = ["weights | keys | query | same answers | × fp32 rows/s", "--- | --- | --- | --- | ---"]
    for x in lines:
        ratio = "" if x.ratio is None else f"{x.ratio:.2f}×"
        rows.append(f"{x.weights} | {x.kv_cache} | {x.query} | {x.same:.3f} | {ratio}")
    clock = "CPU seconds of one thread" if options.cpu_seconds else f"{torch.get_num_threads()} threads"
    facts = f"model {options.model} · {options.rows} rows at most, {options.repeats} repeats, medians · {clock} · "
    return "\n".join([f"{facts}torch {torch.__version__}", "", *(f"| {row} |" for row in rows)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a CSV of reviews")
    parser.add_argument("--column", default="reviewText")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--weights", choices=[weights for weights, _ in candidates()], help="these alone")
    parser.add_argument("--beginnings", choices=("int8", "bf16", "fp32"), help="of prompts in int8")
    parser.add_argument("--strength", type=float, default=STRENGTH, help="of smoothing, in int8")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-seconds", action="store_true", help="CPU time of one thread, on a shared machine")
    return parser.parse_args()


if __name__ == "__main__":
    main()
