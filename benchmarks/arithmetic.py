"""The arithmetic that a workload cannot avoid, and the rate at which this machine multiplies the model's matrices."""

from collections.abc import Sequence
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


def row_flops(engine: Engine, prompts: Sequence[Tokens], task: Task) -> float:
    """Floating-point operations per row: equal rows and shared tokens once, last layer and head where asked for."""
    shape, rows = engine.model.shape, len(prompts)
    prompts = list({prompt.tobytes(): prompt for prompt in prompts}.values())
    tree = build_tree(prompts)
    computed, pairs, outputs, heads = 0.0, 0.0, 0.0, 0.0
    for node in tree.nodes:
        computed += node.length
        pairs += _pairs(node.start, node.length)
    for prompt, parent in zip(prompts, tree.parents, strict=True):
        start = 0 if parent is None else parent.end
        fed = len(prompt) - start
        pairs += _pairs(start, fed)
        if isinstance(task, Score):
            labels = label_tree(task.labels)
            extra = len(labels.tokens)
            pairs += float((len(prompt) + labels.depths).sum())
            heads += extra + len(np.unique(labels.edge_tokens)) * (1 + extra) / shape.vocab_size
        else:
            new = task.max_tokens if isinstance(task, Generate) else 1
            extra = new - 1
            pairs += _pairs(len(prompt), extra)
            heads += new
        computed += fed + extra
        outputs += 1 + extra
    attention = 4 * shape.num_layers * shape.query_size * pairs
    last = shape.hidden_size * shape.query_size + 3 * shape.hidden_size * shape.intermediate_size
    linear = 2 * (shape.matmul_parameters * computed - last * (computed - outputs))
    return (attention + linear + 2 * shape.embedding_parameters * heads) / rows


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


def _pairs(start: int, count: int) -> float:
    """Query-key pairs of `count` tokens after `start` others, each token seeing itself and all before it."""
    return count * start + count * (count + 1) / 2


def _best_seconds(call: object, repeats: int = 30) -> float:
    seconds = []
    for _ in range(repeats):
        began = perf_counter()
        call()  # type: ignore[operator]
        seconds.append(perf_counter() - began)
    return min(seconds)
