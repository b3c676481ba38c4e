"""One layer's keys and values as flat arrays of slots, one slot per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dql.kernels.layout import FLOATS, FP8, check
from dql.kernels.quantize import encode


@dataclass(frozen=True, slots=True)
class KVCache:
    """k, v [slots, kv_heads, head_dim] in a float type or fp8 e4m3; with fp8, one scale per slot and head.

    k_scales, v_scales [slots, kv_heads] float32: key = k · k_scales. None where k and v hold plain values.
    """

    k: torch.Tensor
    v: torch.Tensor
    k_scales: torch.Tensor | None = None
    v_scales: torch.Tensor | None = None

    def __post_init__(self) -> None:
        check("k", self.k, (None, None, None), dtypes=(*FLOATS, FP8))
        check("v", self.v, tuple(self.k.shape), dtypes=(self.k.dtype,), like=self.k)
        if self.k.dtype == FP8:
            for name, scales in (("k_scales", self.k_scales), ("v_scales", self.v_scales)):
                check(name, scales if scales is not None else self.k[:0, 0], tuple(self.k.shape[:2]), like=self.k)

    @classmethod
    def allocate(
        cls, slots: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device | str
    ) -> KVCache:
        """A cache of `slots` tokens, zeroed so that a masked read of a fresh slot is finite."""
        shape = (slots, kv_heads, head_dim)
        k, v = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        if dtype != FP8:
            return cls(k, v)
        k_scales, v_scales = (torch.zeros(shape[:2], device=device) for _ in range(2))
        return cls(k, v, k_scales, v_scales)

    def dense(self, index: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        """(keys, values) at these slots, dequantised to float32 where the cache is fp8; views where possible."""
        if isinstance(index, slice) or index.ndim > 1 or self.k.dtype == FP8:
            k, v = self.k[index], self.v[index]
        else:  # copies whole slots, in a third of the time that indexing takes
            k, v = self.k.index_select(0, index), self.v.index_select(0, index)
        if self.k_scales is None or self.v_scales is None:
            return k, v
        return k.float() * self.k_scales[index][..., None], v.float() * self.v_scales[index][..., None]

    def store(self, slots: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Write keys and values [n, kv_heads, head_dim] to slots [n], quantised as the cache is."""
        index = slots.long()
        if self.k_scales is None or self.v_scales is None:
            self.k.index_copy_(0, index, k.to(self.k.dtype))
            self.v.index_copy_(0, index, v.to(self.v.dtype))
            return
        for target, scales, values in ((self.k, self.k_scales, k), (self.v, self.v_scales, v)):
            codes, row_scales = encode(values, target.dtype)
            target.view(torch.uint8).index_copy_(0, index, codes.view(torch.uint8))
            scales.index_copy_(0, index, row_scales)

    def copy(self, sources: torch.Tensor, targets: torch.Tensor) -> None:
        """Copy the contents of slots `sources` int64 [n] to slots `targets` int64 [n], which are others."""
        for tensor in (self.k, self.v, self.k_scales, self.v_scales):
            if tensor is not None:
                raw = tensor.view(torch.uint8) if tensor.dtype == FP8 else tensor  # torch does not index fp8 everywhere
                raw[targets] = raw[sources]
