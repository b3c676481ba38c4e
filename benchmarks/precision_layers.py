"""How fast the matrices of a model's layers multiply in each precision, as ratios of fp32, over numbers of tokens.

    python -m benchmarks.precision_layers
    python -m benchmarks.precision_layers --model gemma3-270m --tokens 1 16 256

The model's own weights in dql's own layouts, all layers in turn and nothing between them, so that weights come from
memory as they do in a step; activations are random and biases left out. CPU time of one thread, so that other work on
the machine costs little; kinds take turns and the least time of each counts. fp32 is oneDNN's packed layout, which dql
uses. Of dql's kinds, those that this processor has.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import thread_time

import torch

from benchmarks.models import add_model_options, chosen_model
from benchmarks.precision_layouts import chosen, passed_over
from dql.executor.models.linear import GateActivation, Gated, Layout, Linear
from dql.executor.weights import Weights, open_weights
from dql.models.shape import ModelShape

TOKENS = (1, 2, 4, 8, 16, 64, 256, 1024)


@dataclass(frozen=True, slots=True)
class Matrices:
    """The matrices of one layer."""

    qkv: Linear
    o: Linear
    gated: Gated
    down: Linear

    def run(self, x: torch.Tensor, attended: torch.Tensor) -> None:
        """x [tokens, hidden_size], attended [tokens, query_size], as a decoder calls them."""
        self.qkv(x)
        self.o.plus(attended, x)
        self.down.plus(self.gated(x), x)


Stack = Sequence[Matrices]  # a model's layers in one kind


def main() -> None:
    """Print the table as Markdown."""
    options = _options()
    torch.set_num_threads(1)
    model = chosen_model(options)
    weights = open_weights(model, options.load_format)
    with torch.inference_mode():
        stacks = kinds(model.shape, weights)
        seconds = {count: measured(model.shape, stacks, count, options.seconds) for count in options.tokens}
    print(f"{model.name} · {model.shape.num_layers} layers · CPU seconds of one thread · torch {torch.__version__}\n")
    print(report(seconds))


def kinds(shape: ModelShape, weights: Weights) -> dict[str, Stack]:
    """The layers in every kind that this machine runs, fp32 first; mixed kinds share what they are mixed of."""
    own = {name: stack(shape, weights, held) for name, held in chosen().items()}
    mixed = {
        f"int8 below norms, `o` and `down` in {name}": [
            Matrices(low.qkv, high.o, low.gated, high.down) for low, high in zip(own["int8"], own[name], strict=True)
        ]
        for name in ("bf16", "fp32")
        if {name, "int8"} <= own.keys()
    }
    others = {name: stack(shape, weights, held) for name, held in passed_over().items()}
    return own | mixed | others


def stack(shape: ModelShape, weights: Weights, held: Layout) -> Stack:
    """The matrices of all layers in one layout."""
    activation: GateActivation = "silu" if shape.activation == "silu" else "gelu_tanh"
    return [
        Matrices(
            held.linear("qkv", weights.stacked(("q", "k", "v"), layer)),
            held.linear("o", weights.get("o", layer)),
            held.gated(weights.get("gate", layer), weights.get("up", layer), None, activation),
            held.linear("down", weights.get("down", layer)),
        )
        for layer in range(shape.num_layers)
    ]


def measured(shape: ModelShape, stacks: Mapping[str, Stack], tokens: int, seconds: float) -> dict[str, float]:
    """The least seconds of a pass over all layers by kind, three passes each or as many as the seconds allow."""
    x, attended = torch.randn(tokens, shape.hidden_size), torch.randn(tokens, shape.query_size)
    least = dict.fromkeys(stacks, torch.inf)
    began, turns = thread_time(), 0
    while turns < 3 or thread_time() - began < seconds:
        for name, layers in stacks.items():
            started = thread_time()
            for matrices in layers:
                matrices.run(x, attended)
            least[name] = min(least[name], thread_time() - started)
        turns += 1
    return least


def report(seconds: Mapping[int, Mapping[str, float]]) -> str:
    """The table: milliseconds of fp32, and how many times as fast the others are, by number of tokens."""
    columns = list(seconds.values())
    lines = [["tokens", *map(str, seconds)], ["---"] * (len(seconds) + 1)]
    lines.append(["fp32, ms", *(f"{1000 * column['fp32']:.1f}" for column in columns)])
    for name in columns[0]:
        if name != "fp32":
            lines.append([name, *(f"{column['fp32'] / column[name]:.2f}×" for column in columns)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser)
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS, help="how many at once")
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds for each number of tokens, at least")
    return parser.parse_args()


if __name__ == "__main__":
    main()
