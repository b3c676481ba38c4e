"""The arithmetic that a workload cannot avoid, and the rates at which this machine multiplies the model's matrices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch.nn import functional

from dql.executor.engine import Engine
from dql.executor.label_tree import label_tree
from dql.executor.prefix_tree import build_tree
from dql.executor.quantize import layout
from dql.executor.requests import Generate, Score, Task, Tokens
from dql.models.shape import ModelShape

_HEAD_CHUNK = 4096  # vocabulary rows at once, as in the engine


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations per row: of prompts, and of decoding after the first new token.

    step_tokens: tokens of a step that reads prompts, where there are enough. rows: how many decode together.
    """

    prompts: float
    decoding: float
    step_tokens: int
    rows: int

    @property
    def flops(self) -> float:
        return self.prompts + self.decoding


def row_work(engine: Engine, prompts: Sequence[Tokens], task: Task) -> Work:
    """What a row cannot do without: equal rows and shared tokens once, last layer and head where asked for."""
    shape, options, rows = engine.model.shape, engine.options, len(prompts)
    prompts = list({prompt.tobytes(): prompt for prompt in prompts}.values())
    read, written = _Tally(shape), _Tally(shape)
    tree = build_tree(prompts)
    for node in tree.nodes:
        read.add(node.length, _pairs(node.start, node.length))
    for prompt, parent in zip(prompts, tree.parents, strict=True):
        start = 0 if parent is None else parent.end
        fed = len(prompt) - start
        read.add(fed, _pairs(start, fed), outputs=1)
        if isinstance(task, Score):
            labels = label_tree(task.labels)
            extra = len(labels.tokens)
            heads = extra + len(np.unique(labels.edge_tokens)) * (1 + extra) / shape.vocab_size
            read.add(extra, float((len(prompt) + labels.depths).sum()), outputs=extra, heads=heads)
        else:
            extra = task.max_tokens - 1 if isinstance(task, Generate) else 0
            read.add(0, 0.0, heads=1)
            written.add(extra, _pairs(len(prompt), extra), outputs=extra, heads=extra)
    step_tokens = min(options.step_tokens, int(read.tokens))
    return Work(read.flops / rows, written.flops / rows, step_tokens, min(options.max_rows, len(prompts)))


def gemm_rate(shape: ModelShape) -> float:
    """FLOP/s of the model's feed-forward matrices: the best over layouts and numbers of rows, in fp32."""
    best = 0.0
    weight = torch.randn(shape.intermediate_size, shape.hidden_size)
    packed = layout("fp32", torch.device("cpu")).linear("up", weight)
    for rows in (128, 256, 512, 1024):
        x = torch.randn(rows, shape.hidden_size)
        flops = 2.0 * rows * weight.numel()
        with torch.inference_mode():
            for multiply in (packed, lambda x: functional.linear(x, weight)):
                best = max(best, flops / _best_seconds(lambda: multiply(x)))  # noqa: B023  (called at once)
    return best


class StepProducts:
    """The products of one step, all layers in turn and nothing between them, so that each finds its weights in memory.

    Laid out and called as a decoder does, their activations, sums and gates included.
    """

    def __init__(self, shape: ModelShape) -> None:
        """Takes as much memory as the model's matrices in fp32."""
        self._shape, held, width = shape, layout("fp32", torch.device("cpu")), shape.hidden_size
        sizes = {
            "qkv": (shape.query_size + 2 * shape.num_kv_heads * shape.head_dim, width),
            "o": (width, shape.query_size),
            "up": (shape.intermediate_size, width),
            "down": (width, shape.intermediate_size),
        }
        qkv, o, up, down = (torch.randn(size) for size in sizes.values())
        self._layers = [
            (held.linear("qkv", qkv), held.linear("o", o), held.gated(up, up, None, "silu"), held.linear("down", down))
            for _ in range(shape.num_layers)
        ]
        head, starts = torch.randn(shape.vocab_size, width), range(0, shape.vocab_size, _HEAD_CHUNK)
        self._head = [held.linear("head", head[start : start + _HEAD_CHUNK]) for start in starts]
        self._rates: dict[tuple[int, bool], float] = {}

    def seconds(self, work: Work) -> float:
        """Seconds per row of this work at the rates of its own steps; a decoding step ends with the LM head."""
        prompts = work.prompts / self.rate(work.step_tokens, head=False)
        return prompts + (work.decoding / self.rate(work.rows, head=True) if work.decoding else 0.0)

    def rate(self, rows: int, *, head: bool) -> float:
        """FLOP/s of a step of so many tokens, the best of a few."""
        if (rows, head) not in self._rates:
            shape = self._shape
            flops = 2.0 * rows * (shape.matmul_parameters + (shape.embedding_parameters if head else 0))
            x, attended = torch.randn(rows, shape.hidden_size), torch.randn(rows, shape.query_size)
            with torch.inference_mode():
                self._rates[rows, head] = flops / _best_seconds(lambda: self._step(x, attended, head), repeats=5)
        return self._rates[rows, head]

    def __str__(self) -> str:
        kinds = {False: "tokens of prompts", True: "decoding rows"}
        found = (f"{rate / 1e9:.0f} at {rows} {kinds[head]}" for (rows, head), rate in sorted(self._rates.items()))
        return ", ".join(found)

    def _step(self, x: torch.Tensor, attended: torch.Tensor, head: bool) -> None:
        for qkv, o, gated, down in self._layers:
            qkv(x)
            o.plus(attended, x)
            down.plus(gated(x), x)
        for chunk in self._head if head else ():
            chunk(x)


class _Tally:
    """Adds up the operations of tokens."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self._last = shape.hidden_size * shape.query_size + 3 * shape.hidden_size * shape.intermediate_size
        self.tokens = 0
        self.flops = 0.0

    def add(self, tokens: int, pairs: float, outputs: int = 0, heads: float = 0.0) -> None:
        """pairs of query and key; outputs: of the tokens, those whose last layer is computed; heads: passes of the LM
        head."""
        shape = self._shape
        linear = shape.matmul_parameters * tokens - self._last * (tokens - outputs) + shape.embedding_parameters * heads
        self.tokens += tokens
        self.flops += 2 * linear + 4 * shape.num_layers * shape.query_size * pairs


def _pairs(start: int, count: int) -> float:
    """Query-key pairs of `count` tokens after `start` others, each token seeing itself and all before it."""
    return count * start + count * (count + 1) / 2


def _best_seconds(call: Callable[[], object], repeats: int = 30) -> float:
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        call()
        seconds.append(perf_counter() - began)
    return min(seconds)
