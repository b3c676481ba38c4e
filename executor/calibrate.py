"""Measures this machine with dql's own operators at a model's own shapes, on random tensors; no weight is read.

The quick profile takes a few seconds and measures each operator where plans live; the thorough one has finer grids and
more repeats. Figures become shares of the machine's speed of light, as `Hardware` keeps them.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch

from dql.errors import UnsupportedError
from dql.executor.attention import SharedRun, StepAttention
from dql.executor.block_pool import Block
from dql.executor.cpu_attention import cpu_attention
from dql.executor.engine import Engine
from dql.executor.models.decoder import Decoder, PackedTokens
from dql.executor.models.head import Head
from dql.executor.options import EngineOptions
from dql.executor.quantize import layout
from dql.executor.requests import Generate, Request, Score
from dql.executor.slab import Slab
from dql.executor.step import Segment, StepBuilder
from dql.executor.weights import dummy_weights
from dql.kernels.kv_cache import KVCache
from dql.models.shape import ModelShape
from dql.planner.hardware import (
    BYTES_PER_VALUE,
    Curve,
    Hardware,
    Operators,
    Progress,
    cpu_versions,
    layer_key,
    total_memory,
)

Points = list[tuple[float, float, float]]  # size, seconds at the speed of light, seconds measured

BUSY = 1.3  # load a core from which figures are those of a machine that others use
_COLD = 96 << 20  # bytes of layer weights that no cache holds, as those of a whole model
_VOCABULARY = 16_384  # rows of the head that are measured
_READ = 128 << 20  # bytes read to measure bandwidth


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes that are measured; most repeats of each, the seconds after which none begins, and those of the whole.

    lossy_tokens: those of precisions below fp32, of which the matrices alone differ.

    Where the machine is too busy or too slow for the whole grid, each figure has the sizes that come first.
    """

    tokens: tuple[int, ...] = (256, 1, 64, 16, 1024, 4)
    lossy_tokens: tuple[int, ...] = (256, 64)
    head_rows: tuple[int, ...] = (128, 1, 16)
    run_lengths: tuple[int, ...] = (64, 16, 256, 512)
    queries: tuple[int, ...] = (512, 16, 128, 1)
    lanes: tuple[tuple[int, int], ...] = ((32, 128), (1, 64), (128, 192), (8, 64))
    repeats: int = 5
    patience: float = 0.08
    seconds: float = 2.5


QUICK = Grid()
THOROUGH = Grid(
    tokens=(256, 1, 64, 16, 1024, 4, 128, 512, 8, 32, 2, 2048),
    lossy_tokens=(256, 16, 1, 64, 1024, 4, 128),
    head_rows=(128, 1, 16, 64, 4, 256),
    run_lengths=(64, 16, 256, 512, 32, 128, 8, 1024),
    queries=(512, 16, 128, 1, 64, 256, 4, 1024),
    lanes=((32, 128), (1, 64), (128, 192), (8, 64), (64, 192), (256, 192), (16, 128), (4, 64), (256, 768)),
    repeats=15,
    patience=0.8,
    seconds=50.0,
)


def measure(
    base: Hardware, shape: ModelShape, grid: Grid = QUICK, progress: Progress = lambda label, share: None
) -> Hardware:
    """`base` with this machine's figures for models of this shape; what other shapes measured stays."""
    threads, clock = torch.get_num_threads(), _Clock(grid)
    known, typical = base.source == "measured", base.operators["fp32"]
    load = os.getloadavg()[0] / threads
    with torch.inference_mode():
        progress("memory bandwidth", 0.0)
        bandwidth = base.bandwidth if known else _bandwidth(clock)
        progress("steps", 0.05)
        step, row, start = _overheads(clock)
        progress("matrix products", 0.15)
        layers = _layer_seconds(shape, clock, "fp32", grid.tokens, 0.6)
        flops = 2.0 * shape.matmul_parameters / shape.num_layers
        # the unit of all shares: where other shapes were measured before, theirs
        peak = base.peak["fp32"] if known else max(m * flops / s for m, s in layers)
        progress("head", 0.6)
        head = _head_seconds(shape, clock)
        linear = [(m, _light(m, flops, peak, bandwidth), s) for m, s in layers]
        rows = [(m, _light(m, 2.0 * values * shape.hidden_size, peak, bandwidth), s) for m, values, s in head]
        progress("attention", 0.7)
        operators = Operators(
            linear=shares(linear, typical.linear),
            head=shares(rows, typical.head),
            own_attention=shares(_own_attention(shape, clock, peak), typical.own_attention),
            shared_attention=shares(_shared_attention(shape, clock, peak), typical.shared_attention),
            decode_attention=shares(_decode_attention(shape, clock, bandwidth), typical.decode_attention),
        )
        progress("lower precisions", 0.9)
        lossy = _lossy(base, shape, clock, operators, bandwidth)
    found = {"fp32": (peak, operators), **lossy}
    others = dict(base.operators) if known else {precision: measured for precision, (_, measured) in found.items()}
    here = {f"{precision} {layer_key(shape)}": measured for precision, (_, measured) in found.items()}
    busy = f"; measured on a busy machine, load {load:.1f} a core" if load > BUSY else ""
    return replace(
        base,
        memory=float(total_memory()),
        bandwidth=bandwidth,
        peak={precision: rate for precision, (rate, _) in found.items()},
        operators={**others, **here},
        step_seconds=step,
        layer_seconds=0.0,
        row_seconds=row,
        start_seconds=start,
        source="measured",
        spread=0.5 if busy else 0.15 if grid is QUICK else 0.1,
        load=load,
        versions=cpu_versions(base.cores),
        notes=f"{'quick profile' if grid is QUICK else 'dql calibrate'}, {threads} threads{busy}",
    )


def _light(rows: float, flops: float, peak: float, bandwidth: float, value: float = 4.0) -> float:
    """Seconds at the speed of light of matrices that take `flops` a row, `value` bytes a parameter."""
    return max(rows * flops / peak, flops / 2 * value / bandwidth)


def shares(measured: Sequence[tuple[float, float, float]], typical: Curve) -> Curve:
    """(size, seconds at the speed of light, seconds measured) → share of it by size.

    Sizes beyond those that there was time for follow the typical curve from the nearest measured one on.
    """
    points = {float(size): light / max(seconds, 1e-9) for size, light, seconds in measured}
    low, high = min(points), max(points)
    for size, share in typical.points:
        if size < low / 1.5 or size > high * 1.5:
            end = low if size < low else high
            points[size] = share * points[end] / float(typical(end))
    return Curve(tuple(sorted(points.items())))


class _Clock:
    """Times calls within the seconds that a profile may take."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self._began = perf_counter()

    def time(self, work: Callable[[], object]) -> float:
        """Least seconds of a call: what others do on the machine only ever adds."""
        grid, times = self.grid, list[float]()
        # the first call touches fresh memory, so that one is never enough, unless there is no time for a second
        while not times or (len(times) <= grid.repeats and sum(times) < grid.patience * (6 if len(times) < 2 else 1)):
            start = perf_counter()
            work()
            times.append(perf_counter() - start)
        return min(times)

    def over(self, share: float) -> bool:
        """Whether this share of the seconds is spent."""
        return perf_counter() - self._began > share * self.grid.seconds


def _bandwidth(clock: _Clock) -> float:
    values = torch.ones(_READ // 4)
    return _READ / clock.time(values.sum)


def _decoder(shape: ModelShape, precision: str = "fp32") -> Decoder:
    """A decoder of random weights, laid out as a loaded one is. Raises UnsupportedError."""
    weights = dummy_weights(shape)
    return Decoder(shape, weights, context=4096, layout=layout(precision, torch.device("cpu")))


def _layer_seconds(
    shape: ModelShape, clock: _Clock, precision: str, sizes: Sequence[int], share: float
) -> list[tuple[int, float]]:
    """(tokens, seconds of a layer without attention), until `share` of the time is spent. Few tokens run over weights
    that no cache holds.
    """
    layer_bytes = 4 * shape.matmul_parameters // shape.num_layers
    cold = min(shape.num_layers, max(1, -(-_COLD // layer_bytes)))
    few, many = (cold if any(tokens < 64 for tokens in sizes) else 0), min(cold, 2)
    decoders = {n: _decoder(replace(shape, num_layers=n, vocab_size=256), precision) for n in {few, many} - {0}}
    found: list[tuple[int, float]] = []
    for tokens in sizes:
        layers = few if tokens < 64 else many
        found.append((tokens, _forward_seconds(decoders[layers], tokens, clock) / layers))
        if clock.over(share):
            break
    return found


def _forward_seconds(decoder: Decoder, tokens: int, clock: _Clock) -> float:
    shape = decoder.shape
    at = torch.arange(tokens)
    packed = PackedTokens(at % shape.vocab_size, at % 4096, at, at)
    cache = KVCache.allocate(tokens, shape.num_kv_heads, shape.head_dim, torch.float32, "cpu")
    caches = [cache] * shape.num_layers

    def attention(q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
        return q.flatten(1)

    return clock.time(lambda: decoder.forward(packed, caches, attention))


def _lossy(
    base: Hardware, shape: ModelShape, clock: _Clock, exact: Operators, bandwidth: float
) -> dict[str, tuple[float, Operators]]:
    """Peak and operators of each lower precision that processor and torch have; only their matrices are not fp32's."""
    flops = 2.0 * shape.matmul_parameters / shape.num_layers
    found = {}
    for weights in (precision for precision in base.peak if precision != "fp32"):
        try:
            layers = _layer_seconds(shape, clock, weights, clock.grid.lossy_tokens, 1.1)
        except UnsupportedError:
            continue
        measured = base.source == "measured"
        peak = base.peak[weights] if measured else max(m * flops / s for m, s in layers)
        light = [(m, _light(m, flops, peak, bandwidth, BYTES_PER_VALUE[weights]), s) for m, s in layers]
        linear = shares(light, base.operators[weights].linear)
        found[weights] = peak, replace(exact, linear=linear)
    return found


def _head_seconds(shape: ModelShape, clock: _Clock) -> list[tuple[int, int, float]]:
    """(rows, vocabulary rows, seconds of the best token of each row)."""
    rows = min(shape.vocab_size, _VOCABULARY)
    head = Head(torch.randn(rows, shape.hidden_size), shape.logit_softcap, layout("fp32", torch.device("cpu")))
    hidden = torch.randn(max(clock.grid.head_rows), shape.hidden_size)
    found: list[tuple[int, int, float]] = []
    for count in clock.grid.head_rows:
        part = hidden[:count]
        found.append((count, rows, clock.time(lambda part=part: head.best(part))))  # type: ignore[misc]
        if clock.over(0.7):
            break
    return found


# ---- attention, through the engine's own steps -------------------------------------------------------------------


def _own_attention(shape: ModelShape, clock: _Clock, peak: float) -> Points:
    points: Points = []
    for length in clock.grid.run_lengths:
        rows = max(1, 1024 // length)
        builder = StepBuilder()
        ids = np.zeros(length, np.int32)
        for row in range(rows):
            builder.add_segment(Segment(ids, 0, row * length, 0, (), None))
        seconds = _attention_seconds(shape, cpu_attention(builder.build(), shape), rows * length, rows * length, clock)
        flops = 4.0 * shape.query_size * rows * length * (length + 1) / 2
        points.append((length, flops / peak, seconds))
        if clock.over(0.8):
            break
    return points


def _shared_attention(shape: ModelShape, clock: _Clock, peak: float) -> Points:
    points: Points = []
    keys = 256
    for queries in clock.grid.queries:
        run = SharedRun(slice(0, queries), 0, keys, final=True)
        attention = StepAttention([], [], [], [run], shape.attention_scale, shape.attention_softcap)
        seconds = _attention_seconds(shape, attention, queries, keys, clock)
        points.append((queries, 4.0 * shape.query_size * queries * keys / peak, seconds))
        if clock.over(0.9):
            break
    return points


def _decode_attention(shape: ModelShape, clock: _Clock, bandwidth: float) -> Points:
    points: Points = []
    for lanes, context in clock.grid.lanes:
        slab = Slab(Block(0, lanes * context), lanes, context)
        slab.filled[:] = context - 1
        builder = StepBuilder()
        builder.add_slab(slab, np.arange(lanes))
        seconds = _attention_seconds(shape, cpu_attention(builder.build(), shape), lanes, lanes * context, clock)
        points.append(
            (lanes * context, lanes * context * shape.kv_bytes_per_token(4) / shape.num_layers / bandwidth, seconds)
        )
    return points


def _attention_seconds(shape: ModelShape, attention: StepAttention, tokens: int, slots: int, clock: _Clock) -> float:
    """Seconds of one layer, keys of several layers read in turn so that they come from memory."""
    q = torch.randn(tokens, shape.num_heads, shape.head_dim)
    caches = [KVCache.allocate(slots, shape.num_kv_heads, shape.head_dim, torch.float32, "cpu") for _ in range(4)]
    for cache in caches:
        cache.k.normal_()

    def layers() -> None:
        for cache in caches:
            attention(q, cache, window=None)

    return clock.time(layers) / len(caches)


# ---- what a step costs beside arithmetic -------------------------------------------------------------------------

TINY = ModelShape(
    architecture="llama",
    num_layers=1,
    hidden_size=32,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    intermediate_size=32,
    vocab_size=64,
    context_length=4096,
)


def _overheads(clock: _Clock) -> tuple[float, float, float]:
    """Seconds of a step, of a decoding row in a step, and of a row's start and end, on a model that costs nothing."""
    engine = Engine(_decoder(TINY), EngineOptions(kv_bytes=64 << 20, max_rows=128))
    steps, rows = 48, 128
    alone = _run_seconds(engine, 1, Generate(steps), clock) / steps
    together = _run_seconds(engine, rows, Generate(steps), clock)
    begun = _run_seconds(engine, rows, Score(((1,), (2,))), clock) / rows
    row = max(0.0, (together - begun * rows) / steps - alone) / rows
    return alone, row, begun


def _run_seconds(engine: Engine, rows: int, task: Generate | Score, clock: _Clock) -> float:
    draw = np.random.default_rng(0)

    def run() -> Sequence[object]:
        prompts = draw.integers(0, TINY.vocab_size, (rows, 12)).astype(np.int32)
        return list(engine.run(Request(i, prompts[i], task) for i in range(rows)))

    return clock.time(run)
