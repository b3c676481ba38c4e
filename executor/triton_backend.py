"""Steps through the Triton kernels: on a GPU, or under Triton's interpreter on CPU tensors.

The device keeps the newest token of every row at the slot that the token will fill, so that the next step can be
planned and launched before anyone on the CPU has seen it.
"""

from collections.abc import Callable, Sequence

import torch

from dql.executor.backend import StepCancelled
from dql.executor.block_pool import BlockPool
from dql.executor.decode_graphs import DecodeGraphs, recorder
from dql.executor.models.decoder import CausalModel, PackedTokens
from dql.executor.step import Places, Step
from dql.executor.transfer import Transfer, to_device
from dql.executor.triton_attention import AttentionPlan
from dql.kernels.kv_cache import KVCache


class TritonBackend:
    """A decoder whose weights and KV pool lie where Triton kernels can read them."""

    ahead = 1
    reads_lanes_in_place = False

    def __init__(self, decoder: CausalModel, pool: BlockPool) -> None:
        self._decoder = decoder
        self._pool = pool
        self._device = pool.caches[0].k.device
        # the token that goes into each slot, and one past a last lane's end
        self._newest = torch.zeros(pool.slots + 1, dtype=torch.int32, device=self._device)
        record = recorder(self._device)
        self.graphs = None if record is None else DecodeGraphs(decoder, pool, self._newest, record)

    def drawn(self, slots: Places, tokens: torch.Tensor) -> None:
        """See Backend."""
        self._newest[to_device(slots, self._device)] = tokens.to(self._device, torch.int32)

    def forward(self, step: Step, cancelled: Callable[[], bool]) -> torch.Tensor:
        """See Backend; looks at `cancelled` once a layer, or once where the step is repeated from a graph."""
        if self.graphs is not None and not cancelled() and (hidden := self.graphs.forward(step)) is not None:
            return hidden
        return launched(step, self._decoder, self._pool.caches, self._newest, cancelled)


def launched(
    step: Step,
    decoder: CausalModel,
    caches: Sequence[KVCache],
    newest: torch.Tensor,
    cancelled: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """A step launch by launch; newest int32 [slots + 1]: the tokens of decoding rows, by the slots they fill."""
    transfer = Transfer()
    first = [transfer.add(array) for array in (step.ids, step.positions, step.slots, step.outputs)]
    plan = AttentionPlan(step, decoder.shape, transfer)
    sent = transfer.send(newest.device)
    ids, positions, slots, outputs = (sent[at] for at in first)
    if step.slabs:
        decoding = slice(step.slabs[0].place, None)
        ids[decoding] = newest[slots[decoding]]
    prepared = plan.attention(sent, positions)

    def attention(q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
        if cancelled():
            raise StepCancelled
        return prepared(q, cache, window=window)

    return decoder.forward(PackedTokens(ids, positions, slots, outputs), caches, attention)
