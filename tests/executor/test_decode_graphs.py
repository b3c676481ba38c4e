"""Which decoding steps are recorded, and how many recordings are kept, with a recorder that records nothing."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from dql.executor import decode_graphs
from dql.executor.block_pool import Block
from dql.executor.decode_graphs import DecodeGraphs, Pass, Recorded
from dql.executor.slab import Slab
from dql.executor.step import Step, StepBuilder
from tests.planner.fake_models import SHAPES

SHAPE = replace(SHAPES["smollm2"], num_layers=1, hidden_size=4)
KEYS = (200, 500, 1000, 2000, 4000)  # of the longest row: each makes a kind of its own


class Recorder:
    """Counts recordings, each of which says that it took `size` bytes."""

    def __init__(self, size: int = 0, fail: Callable[[int], bool] = lambda count: False) -> None:
        self.count, self._size, self._fail = 0, size, fail

    def __call__(self, run: Pass) -> Recorded:
        self.count += 1
        if self._fail(self.count):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Recorded(run, self._size)


def graphs(recorder: Recorder) -> DecodeGraphs:
    """Of a decoder whose hidden states are zeros."""

    def forward(tokens: Any, caches: Any, attention: Any) -> torch.Tensor:
        return torch.zeros(len(tokens.ids), SHAPE.hidden_size)

    slots = 1 << 16
    decoder, pool = SimpleNamespace(shape=SHAPE, forward=forward), SimpleNamespace(slots=slots, caches=[])
    newest = torch.zeros(slots + 1, dtype=torch.int32)
    return DecodeGraphs(cast(Any, decoder), cast(Any, pool), newest, recorder)


def step(keys: int, rows: int = 3) -> Step:
    slab = Slab(Block(0, rows * keys), rows, keys)
    slab.filled[:] = keys - 1
    builder = StepBuilder()
    builder.add_slab(slab, np.arange(rows))
    return builder.build()


def often(found: DecodeGraphs, keys: int) -> int:
    """Launches of this kind of step until it is repeated from a recording."""
    for launched in range(100):
        hidden = found.forward(step(keys))
        if hidden is not None:
            assert hidden.shape == (3, SHAPE.hidden_size)
            return launched
    raise AssertionError("it never was")


def test_a_kind_is_recorded_once_it_was_met_often() -> None:
    recorder = Recorder()
    found = graphs(recorder)
    assert [often(found, KEYS[0]), often(found, KEYS[0])] == [decode_graphs.SEEN, 0]
    assert recorder.count == 1


@pytest.mark.parametrize("bound", ["number", "memory"])
def test_the_recording_unused_longest_goes_first(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(size=100_000)
    monkeypatch.setattr(decode_graphs, *(("MOST", 3) if bound == "number" else ("MOST_BYTES", 350_000)))
    found = graphs(recorder)
    for keys in KEYS[:3]:
        often(found, keys)
    assert often(found, KEYS[0]) == 0  # used again: the second is the oldest now
    often(found, KEYS[3])
    assert recorder.count == 4
    assert [often(found, keys) for keys in (KEYS[0], KEYS[2], KEYS[3])] == [0, 0, 0]
    assert often(found, KEYS[1]) == decode_graphs.SEEN  # as often as at first, so that kinds in turn do not thrash
    assert recorder.count == 5


def test_a_recording_above_the_bound_is_kept_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_graphs, "MOST_BYTES", 1)
    found = graphs(Recorder(size=2))
    for keys in KEYS:
        assert [often(found, keys), often(found, keys)] == [decode_graphs.SEEN, 0]


def test_kinds_that_are_met_seldom_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_graphs, "_KINDS", 2)
    found = graphs(Recorder())
    for keys in KEYS * 5:
        found.forward(step(keys))
        assert len(found._seen) <= 2


def test_memory_that_runs_out_gives_back_what_was_recorded() -> None:
    found = graphs(Recorder(fail=lambda count: count == 2))
    often(found, KEYS[0])
    for _ in range(decode_graphs.SEEN + 1):
        assert found.forward(step(KEYS[1])) is None
    assert found.reason == "CUDA out of memory" and not found._passes
    assert found.forward(step(KEYS[0])) is None
