"""Decoding steps at fixed addresses, so that a GPU repeats one from a graph instead of being told every launch.

A step of decoding rows alone is padded to one of a few sizes and described by one array in device memory. After the
pass the device moves positions, slots and lengths on by itself: as long as the same rows decode, nothing is uploaded.
"""

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.block_pool import BlockPool
from dql.executor.models.decoder import CausalModel, PackedTokens
from dql.executor.step import SharedRuns, Step
from dql.executor.transfer import to_device
from dql.executor.triton_attention import Level, Run, Singles, TritonAttention, levels_of
from dql.kernels.attention import QueryRows
from dql.kernels.language import power_of_two

ROWS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)  # sizes that steps are padded to
SEEN = 8  # steps of one kind that run launch by launch before it is recorded, which takes as long as many steps
MOST = 64  # passes kept, and the bytes of device memory that they may take together; the one unused longest goes first
MOST_BYTES = 1 << 30
_KINDS = 1024  # kinds whose steps are counted
_SHORTEST = 256  # keys that even the shortest rows are launched for
_ALIGNED = 4  # int32s: 16 bytes
_STATE = 5  # arrays over rows: positions, slots, first slots, lengths, and 1 where the row is a real one

Pass = Callable[[], torch.Tensor]


class Recorded(NamedTuple):
    """What repeats a pass, and the bytes of device memory that recording it took."""

    again: Pass
    size: int


Recorder = Callable[[Pass], Recorded]


class Kind(NamedTuple):
    """What makes two steps alike: rows, keys of the longest row, and each level's runs and longest run, rounded up."""

    rows: int
    longest: int
    levels: tuple[tuple[int, int], ...]


class DecodeGraphs:
    """The recorded passes of one model, bounded in number and memory.

    `reason`: why nothing is recorded any more, where that is so.
    """

    def __init__(self, decoder: CausalModel, pool: BlockPool, newest: torch.Tensor, record: Recorder) -> None:
        """`newest` [slots + 1]: the token that goes into each slot. `record`: runs a pass, returns what repeats it."""
        self.reason: str | None = None
        self._decoder, self._pool, self._newest, self._record = decoder, pool, newest, record
        self._passes: OrderedDict[Kind, _StaticPass] = OrderedDict()
        self._seen: Counter[Kind] = Counter()

    def forward(self, step: Step) -> torch.Tensor | None:
        """Final hidden states of a decoding step, [rows, hidden_size]; None where it must run launch by launch.

        They are overwritten by the next recorded step.
        """
        if step.segments or len(step.ids) > ROWS[-1] or self.reason is not None:
            return None
        levels = levels_of(SharedRuns(step), len(step.ids))
        kind = _kind(step, levels)
        if kind not in self._passes and not self._often(kind):
            return None
        arrays = _arrays(step, levels, kind, self._pool.slots)
        try:
            if kind not in self._passes:
                found = _StaticPass(self._decoder, self._pool, self._newest, kind)
                found.record(arrays, self._record)
                self._passes[kind] = found
            self._passes.move_to_end(kind)
            self._shed()
            return self._passes[kind].repeat(arrays)[: len(step.ids)]
        except RuntimeError as error:  # what cannot be recorded can still be launched, with the memory of what was
            self.reason = str(error).splitlines()[0]
            self._passes.clear()
            return None

    def _often(self, kind: Kind) -> bool:
        """Count a step of a kind that is not recorded; whether it was met often enough to be."""
        if len(self._seen) >= _KINDS:
            self._seen.clear()
        self._seen[kind] += 1
        if self._seen[kind] <= SEEN:
            return False
        del self._seen[kind]  # dropped, it has to be met as often again: kinds in turn are not recorded in turn
        return True

    def _shed(self) -> None:
        """Drop the passes unused longest until the bounds hold. CUDA frees one that still runs when it is done.

        Memory of the pool that they share is not handed back while one of them is left: the next recording takes it.
        """
        while len(self._passes) > 1 and (
            len(self._passes) > MOST or sum(kept.size for kept in self._passes.values()) > MOST_BYTES
        ):
            self._passes.popitem(last=False)


class _StaticPass:
    """Buffers at fixed addresses for one kind of step, and the pass over them."""

    def __init__(self, decoder: CausalModel, pool: BlockPool, newest: torch.Tensor, kind: Kind) -> None:
        self._decoder, self._pool, self._newest = decoder, pool, newest
        self._sizes = [kind.rows] * _STATE
        for runs, _ in kind.levels:
            self._sizes += [runs] * 5 + [kind.rows]
        self._starts = np.cumsum([0, *(-(-size // _ALIGNED) * _ALIGNED for size in self._sizes)])
        self._buffer = torch.zeros(int(self._starts[-1]), dtype=torch.int32, device=newest.device)
        self._outputs = torch.arange(kind.rows, device=newest.device)
        pairs = zip(self._starts.tolist(), self._sizes, strict=False)
        parts = [self._buffer[start : start + size] for start, size in pairs]
        self._positions, self._slots, firsts, self._lengths, self._real = parts[:_STATE]
        shape = decoder.shape
        self._attention = TritonAttention(
            chunks=[],
            singles=[Singles(slice(0, kind.rows), firsts, self._lengths, kind.longest)],
            levels=[
                _level(parts[at : at + 6], kind.rows, longest)
                for at, (_, longest) in zip(range(_STATE, len(parts), 6), kind.levels, strict=True)
            ],
            positions=self._positions,
            scale=shape.attention_scale,
            softcap=shape.attention_softcap,
        )
        self._held: NDArray[np.int32] | None = None  # what the buffer holds, where that is known
        self._again: Pass = self._run
        self.size = 0  # bytes of device memory

    def record(self, arrays: Sequence[NDArray[np.int64]], record: Recorder) -> None:
        """Record the pass; to that end it may run, any number of times."""
        self._fill(self._staged(arrays))
        self._again, taken = record(self._run)
        self.size = taken + self._buffer.nbytes
        self._held = None

    def repeat(self, arrays: Sequence[NDArray[np.int64]]) -> torch.Tensor:
        """The pass over a step's arrays."""
        staged = self._staged(arrays)
        self._fill(staged)
        hidden = self._again()
        rows = self._sizes[0]
        real = staged[self._starts[4] : self._starts[4] + rows]
        for part in (0, 1, 3):
            staged[self._starts[part] : self._starts[part] + rows] += real
        self._held = staged
        return hidden

    def _run(self) -> torch.Tensor:
        ids = self._newest[self._slots]
        tokens = PackedTokens(ids, self._positions, self._slots, self._outputs)
        hidden = self._decoder.forward(tokens, self._pool.caches, self._attention)
        for state in (self._positions, self._slots, self._lengths):
            state += self._real
        return hidden

    def _staged(self, arrays: Sequence[NDArray[np.int64]]) -> NDArray[np.int32]:
        staged = np.zeros(int(self._starts[-1]), np.int32)
        for array, start in zip(arrays, self._starts.tolist(), strict=False):
            staged[start : start + len(array)] = array
        return staged

    def _fill(self, staged: NDArray[np.int32]) -> None:
        if self._held is None or not np.array_equal(staged, self._held):
            self._buffer.copy_(to_device(staged, self._buffer.device), non_blocking=True)


def recorder(device: torch.device) -> Recorder | None:
    """Records passes as CUDA graphs that share one pool of memory; None where the device has no graphs."""
    if device.type != "cuda":
        return None
    pool = torch.cuda.graph_pool_handle()

    def record(run: Pass) -> Recorded:
        run()  # compiles kernels and opens libraries, which a recording may not
        torch.cuda.synchronize(device)
        free = torch.cuda.mem_get_info(device)[0]
        graph = torch.cuda.CUDAGraph()
        # what other threads do meanwhile, such as loading a model, is none of the recording's business
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            hidden = run()

        def repeat() -> torch.Tensor:
            graph.replay()
            return hidden

        # what others took meanwhile is counted in: too much at worst
        return Recorded(repeat, max(0, free - torch.cuda.mem_get_info(device)[0]))

    return record


def _kind(step: Step, levels: Sequence[Sequence[Run]]) -> Kind:
    longest = max(int(part.filled.max()) for part in step.slabs) + 1
    rows = ROWS[bisect_left(ROWS, len(step.ids))]
    runs = tuple((power_of_two(len(level)), power_of_two(max(run[1] for run, _ in level))) for level in levels)
    return Kind(rows, max(_SHORTEST, power_of_two(longest)), runs)


def _arrays(step: Step, levels: Sequence[Sequence[Run]], kind: Kind, spare: int) -> list[NDArray[np.int64]]:
    """What a step's buffer holds; rows beyond the step's write to the `spare` slot and see no keys."""
    firsts = np.concatenate([part.slab.block.start + part.lanes * part.slab.width for part in step.slabs])
    lengths = np.concatenate([part.filled for part in step.slabs]) + 1
    slots = np.full(kind.rows, spare)
    slots[: len(step.ids)] = step.slots
    arrays = [step.positions, slots, firsts, lengths, np.ones_like(lengths)]
    for level in levels:
        counts = np.array([len(places) for _, places in level])
        ends = np.cumsum(counts)
        keys = np.array([run for run, _ in level], np.int64).T
        arrays += [ends - counts, ends, *keys, np.concatenate([places for _, places in level])]
    return arrays


def _level(parts: Sequence[torch.Tensor], rows: int, longest: int) -> Level:
    starts, ends, slots, lengths, positions, places = parts
    return Level(QueryRows(starts, ends, rows, places), slots, lengths, positions, longest)
