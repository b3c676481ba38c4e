"""Compiles a model's GPU kernels before its first step, so that no row waits for a compiler and no clock counts one.

Triton compiles a kernel once for every combination of types, alignments and compile-time switches that it is launched
with. Which of these a model meets depends on its shape and precisions, not on how many rows or tokens a step has,
beyond a few thresholds: so a handful of small steps, one on each side of every threshold, meets them all. They go
through the engine's own code, with launches that compile and run nothing; Triton keeps the result on disk, and the
next start reads it from there.
"""

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from dql.executor.block_pool import Block
from dql.executor.label_tree import LabelTree, label_tree
from dql.executor.models.decoder import Decoder
from dql.executor.prefix_tree import Node
from dql.executor.sampler import DrawParameters, draw
from dql.executor.slab import Slab
from dql.executor.step import Segment, Step, StepBuilder
from dql.executor.transfer import working_on
from dql.executor.triton_backend import launched
from dql.kernels.attention import SHORT
from dql.kernels.eight_bit_linear import SKINNY
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import compiling_ahead
from dql.models.shape import ModelShape

_ROWS = (1, 32, SKINNY, SKINNY + 1)  # one of each block of rows that products are compiled for, and one beyond them
_THREADS = 32  # about as many as there are kernels; each takes some hundred megabytes of the host's memory
_KEYS = 4096  # enough that few rows are split over them

Told = Callable[[int, int], None]  # kernels compiled, of how many


def warm_up(decoder: Decoder, caches: Sequence[KVCache], context: int, told: Told = lambda done, known: None) -> None:
    """Compile what steps of a decoder over these caches launch; no-op elsewhere than on a GPU.

    context: most tokens of a text. The caches must be unused: where Triton cannot compile ahead, steps write to them.
    """
    device, slots = caches[0].k.device, len(caches[0].k) - 1
    if device.type != "cuda":
        return
    threads = min(os.cpu_count() or 1, _THREADS)
    short = decoder.abridged()
    newest = torch.zeros(slots + 1, dtype=torch.int32, device=device)
    with torch.inference_mode(), working_on(device), compiling_ahead(threads, told):
        for step in steps(decoder.shape, min(slots, context)):
            hidden = launched(step, short, caches[: short.shape.num_layers], newest)
            use_head(short, hidden)


def steps(shape: ModelShape, room: int) -> Iterator[Step]:
    """Steps that together meet every variant of every kernel; none holds more than `room` tokens and keys."""
    long = max(1, min(_KEYS, room - 2))
    many = SHORT * shape.num_kv_heads // shape.num_heads + 1  # queries that the small block of attention cannot hold
    for rows in _ROWS:
        yield _decoding(min(rows, room), 1)
    yield _decoding(1, long)
    for rows in (1, min(many, room)):
        for above in (1, long):
            yield _decoding(rows, 1, _node(above))
        yield _prompt(rows)
        yield _prompt(rows, short=1)
    labels = label_tree(((0, 0), (1, 0)))
    for above in (0, long - len(labels.tokens)):
        yield _prompt(1, short=max(above, 0), labels=labels)


def use_head(decoder: Decoder, hidden: torch.Tensor) -> None:
    """All that is done with final hidden states: labels scored, tokens drawn greedily and by seed."""
    decoder.head.logsumexp(hidden)
    drawing = DrawParameters.empty(len(hidden))
    for temperature in (0.0, 1.0):
        drawing.temperature[:] = temperature
        draw(decoder.head, hidden, drawing, logprobs=True)


def _decoding(rows: int, keys: int, above: Node | None = None) -> Step:
    """Rows that each see so many keys of their own, and the node above them."""
    slab = Slab(Block(0, rows * keys), rows, keys)
    slab.filled[:] = keys - 1
    slab.base[:] = 0 if above is None else above.end
    slab.dense_parents = [above] * rows
    builder = StepBuilder()
    builder.add_slab(slab, np.arange(rows))
    return builder.build()


def _prompt(tokens: int, short: int = 0, labels: LabelTree | None = None) -> Step:
    """One prompt of so many tokens, below a shared run that it reads together with them, and perhaps its labels."""
    builder = StepBuilder()
    builder.add_segment(
        Segment(
            tokens=np.zeros(tokens, np.int32),
            position=short,
            slot=0,
            past=0,
            short=((0, short),) if short else (),
            dense_parent=None,
            labels=labels,
            outputs=1,
        )
    )
    return builder.build()


def _node(length: int) -> Node:
    return Node(np.zeros(length, np.int32), 0, length, None, rows=1, dense=True, block=Block(0, length))
