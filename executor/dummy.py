"""Random tensors in place of a checkpoint: speed does not depend on values, and big weights are not always at hand."""

from math import prod
from zlib import crc32

import torch

from dql.executor.models import names
from dql.models.shape import ModelShape

_PERIOD = 16_777_213  # values drawn, at most; a prime, so that no matrix has two equal rows
_BIAS = 0.02


class DummySource:
    """Every tensor of a model of this shape: the same numbers on every machine, of the size that training leaves.

    Matrices are normal with a standard deviation of inputs ** -0.5, so that activations keep their size from layer to
    layer; norm weights scatter around one and biases around zero. All are parts of one run of random numbers, each
    from a place of its own, since drawing billions takes longer than reading them.
    """

    def __init__(self, shape: ModelShape, table: names.NameTable, device: torch.device | str = "cpu") -> None:
        sizes = names.role_shapes(shape)
        self._roles = {table.name(role, None) or role: role for role in table.model if _exists(role, shape)}
        for layer in range(shape.num_layers):
            self._roles |= {table.name(role, layer) or role: role for role in table.layer if _exists(role, shape)}
        self._sizes = {name: sizes[role] for name, role in self._roles.items()}
        self._norm_offset = shape.norm_offset
        count = min(_PERIOD, max(map(prod, self._sizes.values())))
        self._values = torch.randn(count, generator=torch.Generator().manual_seed(0)).to(device)

    def names(self) -> frozenset[str]:
        return frozenset(self._sizes)

    def read(self, name: str) -> torch.Tensor:
        """The tensor, float32, writable."""
        size, role = self._sizes[name], self._roles[name]
        values = torch.empty(prod(size), device=self._values.device)
        place, filled = crc32(name.encode()) % len(self._values), 0
        while filled < len(values):
            part = self._values[place : place + len(values) - filled]
            values[filled : filled + len(part)] = part
            place, filled = 0, filled + len(part)
        if role.endswith("norm"):
            return values.mul_(_BIAS).add_(1 - self._norm_offset).view(size)
        return values.mul_(_BIAS if len(size) == 1 else size[-1] ** -0.5).view(size)


def _exists(role: str, shape: ModelShape) -> bool:
    """Whether a checkpoint of this shape holds a role that its format has a name for."""
    switches = {
        "rope_divisors": False,
        "head": not shape.tie_embeddings,
        "q_norm": shape.qk_norm,
        "k_norm": shape.qk_norm,
        "attention_out_norm": shape.sandwich_norms or not shape.causal,
        "mlp_out_norm": shape.sandwich_norms or not shape.causal,
        **dict.fromkeys(("q_bias", "k_bias", "v_bias"), shape.attention_bias),
        "o_bias": shape.attention_output_bias,
        **dict.fromkeys(("gate_bias", "up_bias", "down_bias"), shape.mlp_bias),
    }
    return switches.get(role, True)
