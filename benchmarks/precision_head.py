"""Greedy text with the LM head in two passes, bf16 first, against one pass in fp32: rows per second, equal texts.

    python -m benchmarks.precision_head --data reviews.csv
    python -m benchmarks.precision_head --data reviews.csv --model gemma3-270m

The same engine in fp32 writes 24 tokens a row, in turn with log-probabilities, which take all logits in fp32, and
without. Speculation is off, so that every token comes out of the head. Medians after a first run of each; run it alone
on the machine.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.models import add_model_options, chosen_model
from benchmarks.tables import WORKLOADS, build_prompts, read_texts
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request, Tokens

NEW_TOKENS = 24


@dataclass(slots=True)
class Way:
    """One way to run the head: seconds of its runs, and the ids of each row's text."""

    name: str
    logprobs: bool
    seconds: list[float] = field(default_factory=list)
    texts: list[tuple[int, ...]] = field(default_factory=list)


def main() -> None:
    """Print the table as Markdown."""
    options = _options()
    model = chosen_model(options)
    texts = read_texts(options.data, "reviewText", options.rows)
    engine = Engine.load(model, EngineOptions(speculate=False, load_format=options.load_format))
    ways = measured(engine, build_prompts(model, WORKLOADS[1], texts).tokens, options.repeats)
    print(f"{model.name} · {len(texts)} rows × {NEW_TOKENS} tokens at most · {torch.get_num_threads()} threads\n")
    print(report(ways))


def measured(engine: Engine, prompts: Sequence[Tokens], repeats: int) -> list[Way]:
    """One pass and two, in turn, after a run of each that is not counted."""
    ways = [Way("one pass", True), Way("two passes", False)]
    for _ in range(repeats + 1):
        for way in ways:
            engine.pool.clear()
            began = perf_counter()
            requests = (Request(row, tokens, Generate(NEW_TOKENS)) for row, tokens in enumerate(prompts))
            found = sorted(engine.run(requests, logprobs=way.logprobs), key=lambda answer: answer.id)
            way.seconds.append(perf_counter() - began)
            way.texts = [tuple(answer.tokens.tolist()) for answer in found]
    for way in ways:
        del way.seconds[0]
    return ways


def report(ways: Sequence[Way]) -> str:
    """The table."""
    lines = ["| LM head | rows/s | gain | equal texts |", "|---|---|---|---|"]
    seconds = [statistics.median(way.seconds) for way in ways]
    for way, each in zip(ways, seconds, strict=True):
        rows, equal = len(way.texts), sum(a == b for a, b in zip(way.texts, ways[0].texts, strict=True))
        lines.append(f"| {way.name} | {rows / each:.1f} | {seconds[0] / each:.2f}× | {equal} of {rows} |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--data", type=Path, required=True, help="a CSV of reviews with a column reviewText")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
