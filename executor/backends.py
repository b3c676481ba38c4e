"""Which backend runs a model: the one for the memory that its keys and values lie in."""

from dql.errors import UnsupportedError
from dql.executor.backend import Backend, CpuBackend
from dql.executor.block_pool import BlockPool
from dql.executor.models.decoder import CausalModel
from dql.executor.triton_backend import TritonBackend
from dql.kernels.language import uses_triton


def open_backend(decoder: CausalModel, pool: BlockPool, *, invariant: bool = False) -> Backend:
    """Triton's kernels for a GPU's memory, and under Triton's interpreter for all memory; else torch's.

    invariant: results of a row do not depend on the batch. Raises UnsupportedError where no kernels do that.
    """
    if not uses_triton(pool.caches[0].k):
        return CpuBackend(decoder, pool, invariant=invariant)
    if invariant:
        raise UnsupportedError(
            "deterministic = true runs on the CPU only", hint="leave the setting out, or run on the CPU"
        )
    return TritonBackend(decoder, pool)
