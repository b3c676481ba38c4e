"""Measures this machine with dql's own operators at a model's own shapes, on random tensors; no weight is read.

The quick profile takes a few seconds and measures each operator where plans live; the thorough one has finer grids and
more repeats. Figures become shares of the machine's speed of light, as `Hardware` keeps them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
import torch

from dql.errors import UnsupportedError
from dql.executor.attention import StepAttention
from dql.executor.block_pool import Block
from dql.executor.calibrate_deterministic import slowdown
from dql.executor.calibrate_head import drawing_factors, head_seconds, sample_head
from dql.executor.cold_layers import ColdLayers, decoder, random_caches
from dql.executor.cpu_attention import cpu_attention
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.others import Others
from dql.executor.prefix_tree import Node
from dql.executor.requests import Generate, Request, Score
from dql.executor.slab import Slab
from dql.executor.step import Segment, StepBuilder
from dql.models.shape import ModelShape
from dql.planner.hardware import (
    BUSY,
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

_SHORT = 16  # tokens of the rows by which a call of attention is measured
_FRAME = 8  # tokens at least that a chat template begins all prompts with
_ROW = 24  # tokens of rows below a shared run
_TELLING = 5  # repeats of a call that tell by how much its seconds vary
SWAY = 0.35  # by what share calls take longer now and then where that was not measured
_SPENT = 1.15  # of the seconds of a profile, from which what must be measured is measured once
_READ = 128 << 20  # bytes read to measure bandwidth


@dataclass(frozen=True, slots=True)
class Grid:
    """Sizes that are measured; most repeats of each, the seconds after which none begins, and those of the whole.

    lossy_tokens: those of precisions below fp32, of which the matrices alone differ. prompts, rows: tokens read, or
    rows that decode, in steps that tell what `deterministic = true` costs.

    Where the machine is too busy or too slow for the whole grid, each figure has the sizes that come first.
    """

    tokens: tuple[int, ...] = (256, 1, 64, 16, 1024, 4)
    lossy_tokens: tuple[int, ...] = (256, 64)
    head_rows: tuple[int, ...] = (128, 1, 16)
    drawing_rows: tuple[int, ...] = (32,)
    run_lengths: tuple[int, ...] = (64, 16, 256, 512)
    queries: tuple[int, ...] = (512, 16, 128, 1)
    lanes: tuple[tuple[int, int], ...] = ((32, 128), (1, 64), (128, 192), (8, 64))
    prompts: tuple[int, ...] = (256,)
    rows: tuple[int, ...] = (8,)
    repeats: int = 5
    patience: float = 0.05
    seconds: float = 2.0


QUICK = Grid()
THOROUGH = Grid(
    tokens=(256, 1, 64, 16, 1024, 4, 128, 512, 8, 32, 2, 48, 24, 96, 2048),
    lossy_tokens=(256, 16, 1, 64, 1024, 4, 128),
    head_rows=(128, 1, 16, 64, 4, 256),
    drawing_rows=(32, 1, 128, 8),
    run_lengths=(64, 16, 256, 512, 32, 128, 12, 1024),
    queries=(512, 16, 128, 1, 64, 256, 4, 1024),
    lanes=((32, 128), (1, 64), (128, 192), (8, 64), (64, 192), (256, 192), (16, 128), (4, 64), (256, 768)),
    prompts=(256, 32, 1024),
    rows=(8, 1, 32, 64),
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
    meanwhile = Others()
    with torch.inference_mode():
        progress("memory bandwidth", 0.0)
        bandwidth = base.bandwidth if known else _bandwidth(clock)
        progress("steps", 0.05)
        step, row, start = _overheads(clock)
        progress("matrix products", 0.15)
        cold = ColdLayers(shape)
        layers = _layer_seconds(cold, clock, grid.tokens, 0.6)
        flops = 2.0 * shape.matmul_parameters / shape.num_layers
        # the unit of all shares: where other shapes were measured before, theirs
        peak = base.peak["fp32"] if known else max(m * flops / s for m, s in layers)
        progress("head", 0.6)
        part = sample_head(shape)
        head = head_seconds(part, cold, clock, grid.head_rows)
        told, drawn = drawing_factors(part, clock, grid.drawing_rows, typical)
        linear = [(m, _light(m, flops, peak, bandwidth), s) for m, s in layers]
        rows = [(m, _light(m, 2.0 * part.weight.numel(), peak, bandwidth), s) for m, s in head]
        progress("attention", 0.7)
        own, call = _own_attention(shape, cold, clock, peak)
        operators = Operators(
            linear=shares(linear, typical.linear),
            head=shares(rows, typical.head),
            own_attention=shares(own, typical.own_attention),
            shared_attention=shares(_shared_attention(shape, cold, clock, peak), typical.shared_attention),
            decode_attention=shares(_decode_attention(shape, cold, clock, bandwidth), typical.decode_attention),
            told=told,
            drawn=drawn,
        )
        slower = slowdown(cold, clock, grid.prompts, grid.rows, base.deterministic)
        progress("lower precisions", 0.9)
        lossy = _lossy(base, shape, clock, operators, bandwidth)
    found = {"fp32": (peak, operators), **lossy}
    others = dict(base.operators) if known else {precision: measured for precision, (_, measured) in found.items()}
    here = {f"{precision} {layer_key(shape)}": measured for precision, (_, measured) in found.items()}
    load = meanwhile.share()
    busy = f"; measured while others used {load:.0%} of the machine" if load > BUSY else ""
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
        call_seconds=call,
        sway=clock.sway,
        deterministic=slower,
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
        self._ratios: list[float] = []  # of each timed call to the median of its like

    def time(self, work: Callable[[], object]) -> float:
        """Median seconds of a call: what the rest of the machine does to it is part of what it takes."""
        times = [float(taken) for (taken,) in self._repeated((work,))]
        usual = float(np.median(times))
        if len(times) >= _TELLING:
            self._ratios += [taken / max(usual, 1e-9) for taken in times]
        return usual

    def extra(self, work: Callable[[], object], base: Callable[[], object]) -> float:
        """Median seconds that `work` takes beyond `base`, both run in turn."""
        beyond = [longer - shorter for longer, shorter in self._repeated((work, base))]
        return max(float(np.median(beyond)), 1e-7)

    def in_turn(self, works: Sequence[Callable[[], object]]) -> list[float]:
        """Median seconds of each of these calls, run in turn."""
        return [float(np.median(times)) for times in zip(*self._repeated(works), strict=True)]

    @property
    def sway(self) -> float:
        """By what share one in twenty calls takes longer than its like."""
        return max(float(np.percentile(self._ratios, 95)) - 1, 0.0) if self._ratios else SWAY

    def _repeated(self, works: Sequence[Callable[[], object]]) -> list[list[float]]:
        """Seconds of these calls, each round one of each. The first round touches fresh memory and does not count,
        unless there is no time for a second, for these calls or at all: a profile of first use must not take long on
        a slow machine either.
        """
        grid, rounds, spent = self.grid, list[list[float]](), 0.0
        while not rounds or (
            len(rounds) <= grid.repeats
            and spent < grid.patience * (6 if len(rounds) < 2 else 1)
            and not self.over(_SPENT)
        ):
            taken = []
            for work in works:
                start = perf_counter()
                work()
                taken.append(perf_counter() - start)
            rounds.append(taken)
            spent += sum(taken)
        return rounds[1:] or rounds

    def over(self, share: float) -> bool:
        """Whether this share of the seconds is spent."""
        return perf_counter() - self._began > share * self.grid.seconds


def _bandwidth(clock: _Clock) -> float:
    values = torch.ones(_READ // 4)
    return _READ / clock.time(values.sum)


def _layer_seconds(layers: ColdLayers, clock: _Clock, sizes: Sequence[int], share: float) -> list[tuple[int, float]]:
    """(tokens, seconds of a layer without attention), until `share` of the time is spent."""
    found: list[tuple[int, float]] = []
    for tokens in sizes:
        found.append((tokens, layers.seconds(tokens, clock)))
        if clock.over(share):
            break
    return found


def _lossy(
    base: Hardware, shape: ModelShape, clock: _Clock, exact: Operators, bandwidth: float
) -> dict[str, tuple[float, Operators]]:
    """Peak and operators of each lower precision that processor and torch have; only their matrices are not fp32's."""
    flops = 2.0 * shape.matmul_parameters / shape.num_layers
    found = {}
    for weights in (precision for precision in base.peak if precision != "fp32"):
        try:
            layers = _layer_seconds(ColdLayers(shape, weights), clock, clock.grid.lossy_tokens, 1.1)
        except UnsupportedError:
            continue
        measured = base.source == "measured"
        peak = base.peak[weights] if measured else max(m * flops / s for m, s in layers)
        light = [(m, _light(m, flops, peak, bandwidth, BYTES_PER_VALUE[weights]), s) for m, s in layers]
        linear = shares(light, base.operators[weights].linear)
        found[weights] = peak, replace(exact, linear=linear)
    return found


# ---- attention, through the engine's own steps -------------------------------------------------------------------


def _own_attention(shape: ModelShape, cold: ColdLayers, clock: _Clock, peak: float) -> tuple[Points, float]:
    """Seconds of many rows by their length, and of a call beside that, which few rows feel."""
    small = _SHORT - _FRAME
    alone = cold.attention(_rows_of(1, small, shape), small, _SHORT, clock)
    together = _attention_seconds(shape, _rows_of(64, small, shape), 64 * small, 64 * small + _FRAME, clock)
    call = max(alone - together / 64, 0.0)
    points: Points = []
    for length in clock.grid.run_lengths:
        own = length - _FRAME
        rows = max(1, 1024 // own)
        seconds = _attention_seconds(shape, _rows_of(rows, own, shape), rows * own, rows * own + _FRAME, clock)
        flops = 4.0 * shape.query_size * rows * own * (_FRAME + (own + 1) / 2)
        points.append((length, flops / peak, seconds))
        if clock.over(0.8):
            break
    return points, call


def _rows_of(
    rows: int, length: int, shape: ModelShape, frame: int = _FRAME, above: Node | None = None
) -> StepAttention:
    """Rows of so many tokens below `frame` tokens that all prompts begin with, or below a shared run."""
    builder, ids, before = StepBuilder(), np.zeros(length, np.int32), frame if above is None else above.length
    short = ((0, frame),) if frame else ()
    for row in range(rows):
        builder.add_segment(Segment(ids, before, before + row * length, 0, short, above))
    return cpu_attention(builder.build(), shape)


def _shared_attention(shape: ModelShape, cold: ColdLayers, clock: _Clock, peak: float) -> Points:
    """Seconds that a shared run adds to its rows' own attention, by their tokens."""
    points: Points = []
    keys = 256
    run = Node(np.zeros(keys, np.int32), 0, keys, None, 8, dense=True, block=Block(0, keys))
    for queries in clock.grid.queries:
        length = min(queries, _ROW)
        rows = queries // length
        tokens = rows * length
        alone, below = (_rows_of(rows, length, shape, 0, above) for above in (None, run))
        seconds = cold.attention(below, tokens, keys + tokens, clock, base=alone)
        points.append((tokens, 4.0 * shape.query_size * tokens * keys / peak, seconds))
        if clock.over(0.9):
            break
    return points


def _decode_attention(shape: ModelShape, cold: ColdLayers, clock: _Clock, bandwidth: float) -> Points:
    points: Points = []
    for lanes, context in clock.grid.lanes:
        slab = Slab(Block(0, lanes * context), lanes, context)
        slab.filled[:] = context - 1
        builder = StepBuilder()
        builder.add_slab(slab, np.arange(lanes))
        seconds = cold.attention(cpu_attention(builder.build(), shape), lanes, lanes * context, clock)
        points.append(
            (lanes * context, lanes * context * shape.kv_bytes_per_token(4) / shape.num_layers / bandwidth, seconds)
        )
    return points


def _attention_seconds(shape: ModelShape, attention: StepAttention, tokens: int, slots: int, clock: _Clock) -> float:
    """Seconds of one layer, keys of several layers read in turn so that they come from memory."""
    q = torch.randn(tokens, shape.num_heads, shape.head_dim)
    caches = random_caches(shape, slots, 4)

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
    engine = Engine(decoder(TINY), EngineOptions(kv_bytes=64 << 20, max_rows=128))
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
