"""Measures a GPU with dql's own kernels at a model's own shapes, on random tensors that are made there.

What a step repeats from a graph is timed as a graph, so that the figures are the device's and not the launching
processor's; what the processor adds is measured apart, on a model whose arithmetic is nothing. Figures become shares
of the speed of light by the datasheet's peaks and the bandwidth measured, as `Hardware` keeps them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch

from dql.errors import UnsupportedError
from dql.executor.block_pool import Block
from dql.executor.calibrate import SWAY, TINY, shares
from dql.executor.device_timer import DeviceTimer, Timer, ticked
from dql.executor.engine import Engine
from dql.executor.models.decoder import Decoder, PackedTokens
from dql.executor.models.head import Head
from dql.executor.models.linear import Layout
from dql.executor.options import EngineOptions
from dql.executor.quantize import layout
from dql.executor.requests import Generate, Request, Score
from dql.executor.slab import Slab
from dql.executor.step import Segment, Step, StepBuilder
from dql.executor.transfer import Transfer
from dql.executor.triton_attention import AttentionPlan, TritonAttention
from dql.executor.triton_backend import launched
from dql.executor.warm_up import warm_up
from dql.executor.weights import dummy_weights
from dql.kernels.attention import QueryRows, prefix_attention
from dql.kernels.kv_cache import KVCache
from dql.models.shape import ModelShape
from dql.planner.hardware import BYTES_PER_VALUE, Hardware, Operators, Progress, layer_key
from dql.planner.physical import Placement
from dql.planner.step_model import StepModel, Steps

USUAL = "bf16"  # the precision that attention and the head run in, whatever the matrices are held in
_POSITIONS = 8192
_PROMPT = 12  # tokens of a row in the runs that show what the processor does
_FEW = 16  # tokens of a step that is all launches
_LAYERS = 3  # of the model of whole steps
_Size = TypeVar("_Size")


@dataclass(frozen=True, slots=True)
class GpuGrid:
    """Sizes that are measured, those that matter most first; what there is no time for follows the typical curves.

    precisions: beside bf16. cold, read: bytes of layers, and of memory, that no cache holds. shared_keys: of the run
    that queries share. step_tokens: packed into a step of prompts. rows, steps: of the runs that show what the
    processor adds. seconds: of the whole, once the kernels are compiled.
    """

    precisions: tuple[str, ...] = ()
    tokens: tuple[int, ...] = (1, 1024, 64, 8192, 16, 256)
    head_rows: tuple[int, ...] = (1, 128, 512)
    run_lengths: tuple[int, ...] = (256, 1024, 64)
    queries: tuple[int, ...] = (128, 4096, 1)
    lanes: tuple[tuple[int, int], ...] = ((128, 1024), (1, 1024), (16, 1024))
    cold: int = 256 << 20
    read: int = 1 << 30
    shared_keys: int = 1024
    step_tokens: int = 8192
    rows: int = 128
    steps: int = 48
    repeats: int = 5
    seconds: float = 2.5


QUICK = GpuGrid()
THOROUGH = GpuGrid(
    precisions=("fp8", "int8", "int4"),
    tokens=(1, 1024, 64, 8192, 16, 256, 128, 4, 512, 2048, 32, 4096),
    head_rows=(1, 128, 512, 16, 64, 1024),
    run_lengths=(256, 1024, 64, 4096, 16, 128),
    queries=(128, 4096, 1, 16, 1024, 8192),
    lanes=((128, 1024), (1, 1024), (16, 1024), (256, 1024), (128, 4096), (1, 8192), (32, 2048), (8, 128)),
    repeats=15,
    seconds=50.0,
)


def measure(
    base: Hardware,
    shape: ModelShape,
    grid: GpuGrid = QUICK,
    progress: Progress = lambda label, share: None,
    *,
    device: torch.device | str = "cuda",
    timer: Timer | None = None,
) -> Hardware:
    """`base` with this GPU's figures for models of this shape; what other shapes measured stays."""
    on = torch.device(device)
    with torch.inference_mode():
        bench = _Bench(base, shape, grid, on, timer or DeviceTimer(on))
        progress("compiling kernels", 0.0)
        bench.compile()
        progress("memory bandwidth", 0.0)
        bandwidth = bench.read_rate() if base.source != "measured" else base.bandwidth
        bench.bandwidth = bandwidth
        progress("steps", 0.05)
        step, row, start = bench.overheads()
        progress("matrix products", 0.2)
        typical = base.operators[USUAL]
        operators = Operators(
            linear=shares(list(bench.layers(USUAL, 0.45)), typical.linear),
            head=shares(list(bench.head(0.55)), typical.head),
            own_attention=shares(list(bench.own_attention(0.65)), typical.own_attention),
            shared_attention=shares(list(bench.shared_attention(0.7)), typical.shared_attention),
            decode_attention=shares(list(bench.decode_attention(0.8)), typical.decode_attention),
        )
        progress("whole steps", 0.75)
        launch = bench.launch_seconds()
        whole = replace(
            base, operators={f"{USUAL} {layer_key(shape)}": operators}, bandwidth=bandwidth, source="measured"
        )
        whole = replace(whole, layer_seconds=0.0, overlap=0.0, step_seconds=step, row_seconds=row, start_seconds=start)
        layer, overlap = bench.beyond(whole)
        progress("lower precisions", 0.8)
        found = {USUAL: operators, **bench.lower(operators)}
    known = base.source == "measured"
    others = dict(base.operators) if known else {**base.operators, **found}
    return replace(
        base,
        bandwidth=bandwidth,
        operators={**others, **{f"{name} {layer_key(shape)}": measured for name, measured in found.items()}},
        step_seconds=step,
        layer_seconds=layer,
        launch_seconds=launch,
        overlap=overlap,
        row_seconds=row,
        start_seconds=start,
        sway=SWAY,
        source="measured",
        spread=0.15 if grid is QUICK else 0.1,
        notes=f"{'quick profile' if grid is QUICK else 'dql calibrate'}, on the device; peaks are the datasheet's",
    )


class _Bench:
    """Everything that is measured for one shape on one device."""

    def __init__(self, base: Hardware, shape: ModelShape, grid: GpuGrid, device: torch.device, timer: Timer) -> None:
        self.bandwidth = base.bandwidth
        self._base, self._shape, self._grid, self._device, self._timer = base, shape, grid, device, timer
        self._began: float | None = None
        # the kernels of a CPU, where they are tried, take float32 alone
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def compile(self) -> None:
        """Compile what is to be measured, side by side, so that the seconds of the whole go to measuring."""
        if self._device.type != "cuda":
            return
        one = replace(self._shape, num_layers=min(self._shape.num_layers, 2), vocab_size=256)
        for precision in (USUAL, *self._grid.precisions):
            with suppress(UnsupportedError):
                caches = [self._cache(self._grid.step_tokens) for _ in range(one.num_layers)]
                warm_up(self._decoder(one, self._layout(precision)), caches, _POSITIONS)

    def read_rate(self) -> float:
        """Bytes a second of a copy, read and written."""
        source = torch.empty(self._grid.read, dtype=torch.int8, device=self._device)
        target = torch.empty_like(source)
        return 2 * self._grid.read / self._time(lambda: target.copy_(source))

    def overheads(self) -> tuple[float, float, float]:
        """Seconds of a step, of a decoding row in a step, and of a row's start and end, on a model that costs nothing.

        They are the processor's and the launches', so that the clock on the wall is what counts.
        """
        rows, steps = self._grid.rows, self._grid.steps
        engine = self._engine(TINY)
        alone = _run_seconds(engine, 1, Generate(steps), self._grid.repeats) / steps
        together = _run_seconds(engine, rows, Generate(steps), self._grid.repeats)
        begun = _run_seconds(engine, rows, Score(((1,), (2,))), self._grid.repeats) / rows
        return alone, max(0.0, (together - begun * rows) / steps - alone) / rows, begun

    def launch_seconds(self) -> float:
        """The processor's seconds to launch a layer of a step that no graph repeats."""
        step = self._prompts(1, _FEW)
        newest = torch.zeros(_FEW + 1, dtype=torch.int32, device=self._device)

        def taken(layers: int) -> float:
            one = replace(self._shape, num_layers=layers, vocab_size=256)
            decoder, caches = self._decoder(one, self._layout(USUAL)), [self._cache(_FEW + 1)] * layers
            return self._timer.host(lambda: launched(step, decoder, caches, newest), self._grid.repeats)

        return max(0.0, taken(_LAYERS) - taken(1)) / (_LAYERS - 1)

    def beyond(self, found: Hardware) -> tuple[float, float]:
        """What whole decoding steps take beyond what `found` says of their parts, for each layer, and where they take
        less, the overlap.
        """
        one, steps = replace(self._shape, num_layers=_LAYERS, vocab_size=256), self._grid.steps
        engine, model = self._engine(one), StepModel(found, one, Placement(USUAL, USUAL))
        layer, overlap = [], []
        for rows in (1, self._grid.rows):
            begun = self._timer.host(partial(_run, engine, rows, Score(((1,), (2,)))), self._grid.repeats)
            whole = self._timer.host(partial(_run, engine, rows, Generate(steps)), self._grid.repeats)
            one_step, work = (whole - begun) / steps, np.full(1, float(rows))
            host = found.step_seconds + found.row_seconds * rows
            keys = work * (_PROMPT + steps / 2)
            parts = float(model.seconds(Steps(work, work, work, decode_keys=keys, decoding=work))[0])
            layer.append(max(0.0, one_step - parts) / _LAYERS)
            overlap.append(min(1.0, max(0.0, parts - one_step) / max(min(host, parts - host), 1e-9)))
        return float(np.mean(layer)), float(np.mean(overlap))

    def layers(self, precision: str, share: float) -> Iterator[tuple[float, float, float]]:
        """A layer without attention over the tokens of a step."""
        shape, peak, value = self._shape, self._base.peak[precision], BYTES_PER_VALUE[precision]
        parameters = shape.matmul_parameters / shape.num_layers
        cold = min(shape.num_layers, max(1, -(-self._grid.cold // int(parameters * value))))
        one = replace(shape, num_layers=cold, vocab_size=256)
        decoder = self._decoder(one, self._layout(precision))
        for tokens in self._within(self._grid.tokens, share):
            at = torch.arange(tokens, dtype=torch.int32, device=self._device)  # as steps have them
            packed = PackedTokens(at % one.vocab_size, at % _POSITIONS, at, at)
            caches = [self._cache(tokens)] * cold
            seconds = self._time(lambda p=packed, c=caches: decoder.forward(p, c, _no_attention)) / cold  # type: ignore[misc]
            yield tokens, max(2 * parameters * tokens / peak, parameters * value / self.bandwidth), seconds

    def head(self, share: float) -> Iterator[tuple[float, float, float]]:
        """The best token of each row."""
        shape = self._shape
        parameters = shape.vocab_size * shape.hidden_size
        weight = torch.randn(shape.vocab_size, shape.hidden_size, device=self._device, dtype=self._dtype)
        head = Head(weight, shape.logit_softcap, self._layout(USUAL))
        for rows in self._within(self._grid.head_rows, share):
            hidden = torch.randn(rows, shape.hidden_size, device=self._device, dtype=self._dtype)
            seconds = self._time(lambda x=hidden: head.best(x))  # type: ignore[misc]
            light = max(2 * parameters * rows / self._base.peak[USUAL], parameters * 2 / self.bandwidth)
            yield rows, light, seconds

    def own_attention(self, share: float) -> Iterator[tuple[float, float, float]]:
        """Prompts over themselves, one layer."""
        for length in self._within(self._grid.run_lengths, share):
            rows = max(1, self._grid.step_tokens // length)
            flops = 4.0 * self._shape.query_size * rows * length * (length + 1) / 2
            yield length, flops / self._base.peak[USUAL], self._attention(self._prompts(rows, length), rows * length)

    def shared_attention(self, share: float) -> Iterator[tuple[float, float, float]]:
        """Queries over a run that all of them share, joined to what they have seen, one layer."""
        shape, keys = self._shape, self._grid.shared_keys
        zero, length = (torch.full((1,), value, dtype=torch.int32, device=self._device) for value in (0, keys))
        cache = self._cache(keys)
        for queries in self._within(self._grid.queries, share):
            q = self._queries(queries)
            places = torch.arange(queries, dtype=torch.int32, device=self._device)
            rows = QueryRows(zero, torch.full_like(zero, queries), queries, places)
            state = torch.zeros_like(q), torch.zeros(q.shape[:2], device=self._device)

            def joined(q=q, rows=rows, state=state) -> object:  # type: ignore[no-untyped-def]
                return prefix_attention(
                    q, cache, rows, zero, length, max_length=keys, scale=shape.attention_scale,
                    softcap=shape.attention_softcap, joined=state,
                )  # fmt: skip

            yield queries, 4.0 * shape.query_size * queries * keys / self._base.peak[USUAL], self._time(joined)

    def decode_attention(self, share: float) -> Iterator[tuple[float, float, float]]:
        """Decoding rows over their own keys, one layer."""
        key_bytes = self._shape.kv_bytes_per_token(2) / self._shape.num_layers
        for lanes, context in self._within(self._grid.lanes, share):
            slab = Slab(Block(0, lanes * context), lanes, context)
            slab.filled[:] = context - 1
            builder = StepBuilder()
            builder.add_slab(slab, np.arange(lanes))
            keys = lanes * context
            yield keys, keys * key_bytes / self.bandwidth, self._attention(builder.build(), keys)

    def lower(self, exact: Operators) -> dict[str, Operators]:
        """The operators of precisions below bf16, of which the matrices alone differ from bf16's `exact`."""
        found = {}
        for number, precision in enumerate(self._grid.precisions, 1):
            typical = self._base.operators[precision].linear
            try:
                points = list(self.layers(precision, 0.8 + 0.2 * number / len(self._grid.precisions)))
            except UnsupportedError:
                continue
            found[precision] = replace(exact, linear=shares(points, typical))
        return found

    def _prompts(self, rows: int, length: int) -> Step:
        """So many prompts of this length, each over itself; the last hidden state of each is wanted."""
        builder, ids = StepBuilder(), np.zeros(length, np.int32)
        for row in range(rows):
            builder.add_segment(Segment(ids, 0, row * length, 0, (), None, outputs=1))
        return builder.build()

    def _engine(self, shape: ModelShape) -> Engine:
        """An engine for as many rows as are measured together."""
        weights, rows = "bf16" if self._device.type == "cuda" else "fp32", self._grid.rows
        slots = 2 * rows * (_PROMPT + self._grid.steps)  # a run takes part of what is free
        options = EngineOptions(
            device=str(self._device),
            weights=weights,
            kv_cache=weights,
            kv_bytes=int(slots * shape.kv_bytes_per_token(BYTES_PER_VALUE[weights])),
            max_rows=rows,
        )
        return Engine(self._decoder(shape, self._layout(USUAL)), options)

    def _attention(self, step: Step, slots: int) -> float:
        """Seconds of one layer, keys of several layers read in turn so that they come from memory."""
        transfer = Transfer()
        positions = transfer.add(step.positions)
        plan = AttentionPlan(step, self._shape, transfer)
        sent = transfer.send(self._device)
        attention: TritonAttention = plan.attention(sent, sent[positions])
        q, caches = self._queries(len(step.ids)), [self._cache(slots) for _ in range(4)]

        def layers() -> None:
            for cache in caches:
                attention(q, cache, window=None)

        return self._time(layers) / len(caches)

    def _queries(self, tokens: int) -> torch.Tensor:
        return torch.randn(tokens, self._shape.num_heads, self._shape.head_dim, device=self._device).to(self._dtype)

    def _cache(self, slots: int) -> KVCache:
        return KVCache.allocate(slots, self._shape.num_kv_heads, self._shape.head_dim, self._dtype, self._device)

    def _layout(self, precision: str) -> Layout:
        return layout(precision if self._device.type == "cuda" else "fp32", self._device)

    def _decoder(self, shape: ModelShape, held: Layout) -> Decoder:
        return Decoder(shape, dummy_weights(shape, self._device), context=_POSITIONS, layout=held)

    def _time(self, work: Callable[[], object]) -> float:
        return self._timer(work, self._grid.repeats)

    def _within(self, sizes: Iterable[_Size], share: float) -> Iterator[_Size]:
        """The sizes for which there is time: all that begin before `share` of the seconds is spent, and the first."""
        self._began = perf_counter() if self._began is None else self._began
        for number, size in enumerate(sizes):
            if number and perf_counter() - self._began > share * self._grid.seconds:
                return
            yield size


def _no_attention(q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
    return q.flatten(1)


def _run_seconds(engine: Engine, rows: int, task: Generate | Score, repeats: int) -> float:
    """Least seconds of a run, after one that compiles and records what it needs."""
    run = partial(_run, engine, rows, task)
    run()
    return min(ticked(run) for _ in range(repeats))


def _run(engine: Engine, rows: int, task: Generate | Score) -> Sequence[object]:
    """So many prompts, all of which differ."""
    prompts = np.random.default_rng().integers(0, TINY.vocab_size, (rows, _PROMPT)).astype(np.int32)
    return list(engine.run(Request(i, prompts[i], task) for i in range(rows)))
