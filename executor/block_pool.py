"""KV memory: one flat run of token slots over all layers, handed out in contiguous blocks of any length."""

from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.requests import Tokens
from dql.executor.transfer import to_device
from dql.kernels.kv_cache import KVCache
from dql.kernels.layout import FP8
from dql.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class Block:
    """`length` consecutive slots from `start`."""

    start: int
    length: int


@dataclass(slots=True, eq=False)
class Resident:
    """A prefix whose keys and values stay computed after its rows are done, until the memory is wanted.

    invariant: they are those of `deterministic = true`, the same to the bit whatever ran beside them. precise: how many
    of the first were computed in a higher precision (see Generate).
    """

    tokens: Tokens
    block: Block
    invariant: bool = False
    precise: int = 0
    users: int = 0  # rows and windows that may read it; it is not dropped meanwhile
    last_used: int = 0


class SlotAllocator:
    """First-fit allocation of contiguous slots; neighbours join again when freed."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.free_slots = slots
        self._starts = [0] if slots else []
        self._lengths = {0: slots} if slots else {}

    def allocate(self, length: int) -> Block | None:
        """A block of this length, lowest address first; None where no free run is long enough."""
        for start in self._starts:
            free = self._lengths[start]
            if free >= length:
                self._remove(start)
                if free > length:
                    self._insert(start + length, free - length)
                self.free_slots -= length
                return Block(start, length)
        return None

    def free(self, block: Block) -> None:
        """Give a block back. Freeing what is free already is a bug and raises RuntimeError."""
        start, length = block.start, block.length
        at = bisect_left(self._starts, start)
        following = self._starts[at] if at < len(self._starts) else self.slots
        previous = self._starts[at - 1] if at else -1
        if start + length > following or (at and previous + self._lengths[previous] > start):
            raise RuntimeError(f"slots {start} … {start + length - 1} were freed twice")
        self.free_slots += length
        if start + length == following and at < len(self._starts):
            length += self._lengths[following]
            self._remove(following)
        if at and previous + self._lengths[previous] == start:
            length += start - previous
            start = previous
            self._remove(previous)
        self._insert(start, length)

    def _insert(self, start: int, length: int) -> None:
        insort(self._starts, start)
        self._lengths[start] = length

    def _remove(self, start: int) -> None:
        del self._starts[bisect_left(self._starts, start)]
        del self._lengths[start]


class BlockPool:
    """The KV cache of a loaded model: blocks in use, and prefixes kept computed until their memory is wanted."""

    def __init__(self, shape: ModelShape, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        # one slot more than is handed out, for tokens that stand in a step for nothing but its size
        self.caches = [_cache(shape, slots + 1, dtype, device) for _ in range(shape.num_layers)]
        self.device = device
        self.residents: list[Resident] = []
        self._allocator = SlotAllocator(slots)
        self._clock = count()

    @property
    def slots(self) -> int:
        """All slots of the pool."""
        return self._allocator.slots

    @property
    def available(self) -> int:
        """Slots that are free, or would be once unused residents are dropped."""
        return self._allocator.free_slots + sum(r.block.length for r in self.residents if not r.users)

    def allocate(self, length: int) -> Block | None:
        """A block of consecutive slots, dropping the residents used longest ago where that is needed."""
        while (block := self._allocator.allocate(length)) is None:
            unused = [resident for resident in self.residents if not resident.users]
            if not unused:
                return None
            self._drop(min(unused, key=lambda resident: resident.last_used))
        return block

    def free(self, block: Block) -> None:
        """Give a block back."""
        self._allocator.free(block)

    def keep(self, tokens: Tokens, block: Block, *, invariant: bool = False, precise: int = 0) -> Resident:
        """Keep a computed prefix, whose keys and values fill `block`, for prompts to come; the caller uses it."""
        resident = Resident(tokens, block, invariant, precise, users=1, last_used=next(self._clock))
        self.residents.append(resident)
        return resident

    def touch(self, resident: Resident) -> None:
        """Note that a resident was used."""
        resident.last_used = next(self._clock)

    def clear(self) -> None:
        """Drop every resident that nothing reads."""
        for resident in [resident for resident in self.residents if not resident.users]:
            self._drop(resident)

    def copy(self, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        """Copy keys and values between slots, [n] each, in every layer."""
        at, to = to_device(sources, self.device), to_device(targets, self.device)
        for cache in self.caches:
            cache.copy(at, to)

    def _drop(self, resident: Resident) -> None:
        self.residents.remove(resident)
        self._allocator.free(resident.block)


def _cache(shape: ModelShape, slots: int, dtype: torch.dtype, device: torch.device) -> KVCache:
    """One layer's cache. On the CPU its pages are zero and take no memory before they are first written."""
    if device.type != "cpu" or dtype == FP8:
        return KVCache.allocate(slots, shape.num_kv_heads, shape.head_dim, dtype, device)
    size = (slots, shape.num_kv_heads, shape.head_dim)
    whole = np.dtype(f"u{dtype.itemsize}")  # numpy has no bf16
    k, v = (torch.from_numpy(np.zeros(size, whole)).view(dtype) for _ in range(2))
    return KVCache(k, v)
