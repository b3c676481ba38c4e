"""What each matrix of a model costs in answers when it alone is in a lower precision, and what smoothing gives back.

    python -m benchmarks.precision_errors --data reviews.csv
    python -m benchmarks.precision_errors --data reviews.csv --only int8 --rows 64

Film reviews under the raw prompts of benchmarks.tables, two labels and 16 tokens of greedy text, where SmolLM2-135M is
all but undecided, so that labels flip at the least error. Each choice runs in an engine of its own and is compared with
fp32 on the same rows: the share of equal labels, the mean of the absolute differences of their log-probabilities, the
share of equal texts and of equal first tokens. Speeds are in benchmarks.precision_layers.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.models import add_model_options, chosen_model
from benchmarks.precision_layouts import CPU, ByRole, chosen
from benchmarks.tables import WORKLOADS, Prompts, build_prompts, read_texts
from dql.executor.engine import Engine
from dql.executor.models.decoder import Decoder
from dql.executor.options import EngineOptions
from dql.executor.quantize import layout
from dql.executor.requests import Answer, Generate, Request, Score, Task
from dql.executor.smooth import TEXT, smoothed
from dql.executor.weights import Weights, open_weights
from dql.models.model import Model

NEW_TOKENS = 16
KV_BYTES = 400 << 20
BELOW_NORMS = {"qkv": "int8", "gated": "int8"}
MIXED = BELOW_NORMS | {"o": "bf16", "down": "bf16"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Kinds of matrices by role, fp32 where none is named. strength: of smoothing, None for none. beginnings: the kind
    of all matrices for the tokens that prompts share; `o` and `down` stay what they are."""

    name: str
    kinds: Mapping[str, str] = field(default_factory=dict)
    strength: float | None = None
    beginnings: str | None = None


CHOICES = (
    Choice("bf16, all", dict.fromkeys(("qkv", "o", "gated", "down"), "bf16")),
    Choice("bf16: `qkv` alone", {"qkv": "bf16"}),
    Choice("bf16: `o` alone", {"o": "bf16"}),
    Choice("bf16: feed-forward alone", {"gated": "bf16", "down": "bf16"}),
    Choice("int8 below norms, rest bf16, not smoothed", MIXED),
    Choice("int8 below norms, rest bf16, smoothed with 0.5", MIXED, 0.5),
    Choice("int8 below norms, rest bf16, smoothed with 0.7", MIXED, 0.7),
    Choice("int8, prompts begin in bf16, smoothed with 0.5", MIXED, 0.5, "bf16"),
    Choice("int8, prompts begin in bf16, smoothed with 0.7", MIXED, 0.7, "bf16"),
    Choice("int8: `o` alone", {"o": "int8"}),
    Choice("int8: `down` alone", {"down": "int8"}),
)


@dataclass(frozen=True, slots=True)
class Found:
    """Log-probabilities of the labels [rows, labels], and the ids of each row's text."""

    labels: NDArray[np.float32]
    texts: Sequence[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Line:
    """A choice beside fp32: shares of equal labels, texts and first tokens; error of the label log-probabilities."""

    name: str
    labels: float
    error: float
    texts: float
    first: float

    @classmethod
    def of(cls, name: str, found: Found, exact: Found) -> "Line":
        pairs = list(zip(found.texts, exact.texts, strict=True))
        return cls(
            name,
            float(np.mean(found.labels.argmax(1) == exact.labels.argmax(1))),
            float(np.abs(found.labels - exact.labels).mean()),
            float(np.mean([a == b for a, b in pairs])),
            float(np.mean([a[:1] == b[:1] for a, b in pairs])),
        )


def main() -> None:
    """Print the table as Markdown, a line as each choice ends."""
    options = _options()
    torch.set_num_threads(1)
    model = chosen_model(options)
    wanted = [choice for choice in CHOICES if choice.name.startswith(options.only)]
    texts = read_texts(options.data, "reviewText", options.rows)
    print(f"{model.name} · {len(texts)} reviews · torch {torch.__version__}\n")
    print("| matrices | labels | error | 16 tokens | first token |\n|---|---|---|---|---|")
    for x in compared(model, open_weights(model, options.load_format), texts, wanted):
        print(f"| {x.name} | {x.labels:.3f} | {x.error:.4f} | {x.texts:.3f} | {x.first:.3f} |", flush=True)


def compared(model: Model, weights: Weights, texts: Sequence[str], choices: Sequence[Choice]) -> Iterable[Line]:
    """Each choice that this processor can run, beside fp32."""
    prompts = [build_prompts(model, workload, texts) for workload in WORKLOADS[:2]]
    exact, have = answers(model, weights, Choice("fp32"), prompts), chosen()
    for choice in choices:
        if have.keys() >= {*choice.kinds.values()}:
            yield Line.of(choice.name, answers(model, weights, choice, prompts), exact)


def answers(model: Model, weights: Weights, choice: Choice, prompts: Sequence[Prompts]) -> Found:
    """What an engine with these matrices says to prompts with labels and to prompts of text."""
    kinds, shape, ready = chosen(), model.shape, weights
    if choice.strength is not None:
        ids, _ = model.tokenizer.encode_data([TEXT])
        ready = smoothed(weights, shape, ids[: shape.context_length].tolist(), layout("fp32", CPU), choice.strength)
    precise = None if choice.beginnings is None else (weights, kinds[choice.beginnings])
    held = ByRole({role: kinds[kind] for role, kind in choice.kinds.items()})
    decoder = Decoder(shape, ready, context=shape.context_length, layout=held, precise=precise)
    engine = Engine(decoder, EngineOptions(kv_bytes=KV_BYTES, logprobs=False))
    labels, texts = (_run(engine, asked, choice.beginnings is not None) for asked in prompts)
    return Found(np.stack([x.logprobs for x in labels]), [tuple(x.tokens.tolist()) for x in texts])


def _run(engine: Engine, prompts: Prompts, precise: bool) -> list[Answer]:
    """The answers in the order of the rows."""
    shared = prompts.shared if precise else 0
    task: Task = Generate(NEW_TOKENS, precise=shared)
    if isinstance(prompts.task, Score):
        task = replace(prompts.task, precise=shared)
    requests = (Request(row, tokens, task) for row, tokens in enumerate(prompts.tokens))
    return sorted(engine.run(requests, logprobs=False), key=lambda answer: answer.id)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--data", type=Path, required=True, help="a CSV of reviews with a column reviewText")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--only", default="", help="choices whose names begin so")
    return parser.parse_args()


if __name__ == "__main__":
    main()
