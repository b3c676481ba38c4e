"""What `deterministic = true` costs on this machine: steps of cold layers through the engine, with and without it."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from dql.executor.cold_layers import ColdLayers
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request
from dql.planner.hardware import Curve, Slowdown

_PROMPT = 24  # tokens of a prompt: like most, no whole number of tiles
_STEPS = 6  # of decoding
_SHARED, _BELOW = 256, 8  # tokens of a run that so many prompts share, as many as make it a dense one
_LEAST, _MOST = 1.0, 20.0  # factors that are believed


class Clock(Protocol):
    """Times runs within what a profile may take."""

    def in_turn(self, works: Sequence[Callable[[], object]]) -> list[float]:
        """Seconds of each of these, run in turn."""
        ...

    def over(self, share: float) -> bool:
        """Whether this share of the seconds is spent."""
        ...


def slowdown(cold: ColdLayers, clock: Clock, prompts: Sequence[int], rows: Sequence[int], base: Slowdown) -> Slowdown:
    """By what factor steps of so many prompt tokens, or so many decoding rows, take longer; `base` where there was no
    time to see.
    """
    bench = _Bench(cold, max(_BELOW, *rows, max(prompts) // _PROMPT))
    read: list[tuple[float, float]] = []
    drawn: list[tuple[float, float]] = []
    for tokens in prompts:
        if read and clock.over(0.95):
            break
        count = max(tokens // _PROMPT, 1)
        usual, fixed = clock.in_turn([bench.run(count, 1, deterministic=d) for d in (False, True)])
        read.append((float(count * _PROMPT), factor(fixed, usual)))
    shared = base.shared
    if not clock.over(0.95):
        usual, fixed = clock.in_turn([bench.run(_BELOW, 1, deterministic=d, shared=_SHARED) for d in (False, True)])
        alone = float(extended(read, base.prompts)(_BELOW * _PROMPT))
        shared = max(factor(fixed, usual) - alone, 0.0) / _SHARED
    for count in rows:
        if clock.over(1.0):
            break
        runs = [bench.run(count, drawing, deterministic=d) for d in (False, True) for drawing in (1, 1 + _STEPS)]
        short, long, short_fixed, long_fixed = clock.in_turn(runs)
        drawn.append((float(count), factor(long_fixed - short_fixed, long - short)))
    return Slowdown(extended(read, base.prompts), extended(drawn, base.decoding), shared)


def extended(points: list[tuple[float, float]], base: Curve) -> Curve:
    """Through the points, and beyond them as `base` goes on from there."""
    if not points:
        return base
    known = sorted(points)
    beyond = []
    for size, factor in base.points:
        if not known[0][0] / 1.5 <= size <= known[-1][0] * 1.5:
            end, found = known[0] if size < known[0][0] else known[-1]
            beyond.append((size, max(_LEAST, found * factor / float(base(end)))))
    return Curve(tuple(sorted(known + beyond)))


def factor(fixed: float, usual: float) -> float:
    """How many times as long one takes as the other, as far as that is believed."""
    return min(max(fixed / max(usual, 1e-9), _LEAST), _MOST)


class _Bench:
    """An engine of cold layers, and runs of it."""

    def __init__(self, cold: ColdLayers, most: int) -> None:
        self._vocabulary = cold.few.shape.vocab_size
        self._engine = Engine(
            cold.few, EngineOptions(kv_bytes=64 << 20, max_rows=most, step_tokens=4096, speculate=False)
        )
        self._draw = np.random.default_rng(0)

    def run(self, rows: int, drawing: int, *, deterministic: bool, shared: int = 0) -> Callable[[], object]:
        """A run of so many rows, each of which draws so many tokens. Prompts are new each time, but for `shared` tokens
        that they begin with and that the first run computes.
        """
        above = np.zeros((rows, shared), np.int32)

        def work() -> object:
            ids = self._draw.integers(0, self._vocabulary, (rows, _PROMPT)).astype(np.int32)
            prompts = np.concatenate((above, ids), axis=1)
            requests = (Request(i, prompts[i], Generate(drawing)) for i in range(rows))
            return list(self._engine.run(requests, deterministic=deterministic, prefix=shared > 0))

        return work
