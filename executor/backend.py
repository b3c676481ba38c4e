"""Where a step runs: what turns its plain arrays into tensors, attention and hidden states on one kind of device."""

from collections.abc import Callable
from typing import Protocol

import torch

from dql.executor.block_pool import BlockPool
from dql.executor.cpu_attention import cpu_attention
from dql.executor.invariant import invariant_attention
from dql.executor.models.decoder import CausalModel, PackedTokens
from dql.executor.step import Places, Step
from dql.kernels.kv_cache import KVCache


class StepCancelled(Exception):
    """The run was cancelled while a step was under way; nothing of the step counts."""


class Backend(Protocol):
    """Runs steps of one loaded decoder over its KV pool.

    ahead: how many steps may be launched beyond the one whose results are awaited. reads_lanes_in_place: whether all
    lanes of a slab up to the last live one are read, so that thinned slabs should be compacted.
    """

    ahead: int
    reads_lanes_in_place: bool

    def drawn(self, slots: Places, tokens: torch.Tensor) -> None:
        """Take note of newest tokens, on the device, and of the slots that they will fill in a later step."""
        ...

    def forward(self, step: Step, cancelled: Callable[[], bool]) -> torch.Tensor:
        """Store the step's keys and values; final hidden states [outputs, hidden_size]. May raise StepCancelled."""
        ...


class CpuBackend:
    """fp32 on the CPU, attention by torch's fused kernel."""

    ahead = 0
    reads_lanes_in_place = True

    def __init__(self, decoder: CausalModel, pool: BlockPool, *, invariant: bool = False) -> None:
        """invariant: results of a row do not depend on the batch, at a price; `decoder` is then a tiled one."""
        self._decoder = decoder
        self._pool = pool
        self._attention = invariant_attention if invariant else cpu_attention

    def drawn(self, slots: Places, tokens: torch.Tensor) -> None:
        """Nothing to do: the next step is planned with the tokens themselves."""

    def forward(self, step: Step, cancelled: Callable[[], bool]) -> torch.Tensor:
        """See Backend; looks at `cancelled` once a layer."""
        prepared = self._attention(step, self._decoder.shape)

        def attention(q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
            if cancelled():
                raise StepCancelled
            return prepared(q, cache, window=window)

        arrays = step.ids, step.positions, step.slots, step.outputs, step.precise
        tokens = PackedTokens(*(torch.from_numpy(x) for x in arrays))
        return self._decoder.forward(tokens, self._pool.caches, attention)
