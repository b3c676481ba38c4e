"""How often do prompts put together from parts differ from prompts tokenised whole, and how fast are they made?

    python -m benchmarks.tokens --data reviews.csv --column reviewText [--model smollm2]

Rows are tokenised apart from the text around them, so that data can never become control. Where a word would have
grown across the border, the ids differ from those of the whole prompt; the text they spell is the same.
"""

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path

from dql.config import Config
from dql.models import Model
from dql.models.registry import Registry
from dql.prompts import PromptSpec, compile_prompt

SPECS = {
    "classify": PromptSpec(task="classify", template=(0,), bare=True, labels=("positive", "negative")),
    "filter": PromptSpec(task="filter", template=("This review is positive: ", 0)),
    "score": PromptSpec(task="score", template=("How positive is this review? ", 0), low=1, high=5),
    "generate, hole last": PromptSpec(task="generate", template=("Summarise in one sentence: ", 0)),
    "generate, quoted": PromptSpec(task="generate", template=('Summarise "', 0, '" in one sentence.')),
    "generate, hole then stop": PromptSpec(task="generate", template=("Summarise ", 0, ".")),
}


def report(model: Model, texts: list[str]) -> Iterator[str]:
    yield f"| {model.name} | rows | ids differ from the whole prompt's | tokens | tokens/s |"
    yield "|---|---|---|---|---|"
    for name, spec in SPECS.items():
        prompt = compile_prompt(model, spec)
        started = time.perf_counter()
        batch = prompt.encode([texts])
        seconds = time.perf_counter() - started
        whole = (model.tokenizer.encode_control(prompt.frame.replace("{0}", text)) for text in texts)
        differing = sum(batch.row(row).tolist() != ids.tolist() for row, ids in enumerate(whole))
        share = differing / max(len(texts), 1)
        yield f"| {name} | {len(texts):,} | {share:.2%} | {len(batch.ids):,} | {len(batch.ids) / seconds:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--column", required=True)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--model", default="smollm2")
    arguments = parser.parse_args()
    with arguments.data.open(newline="") as file:
        texts = [row[arguments.column] for row in csv.DictReader(file)][: arguments.rows]
    for line in report(Registry(Config.load().models_dir).pull(arguments.model), texts):
        print(line)


if __name__ == "__main__":
    main()
