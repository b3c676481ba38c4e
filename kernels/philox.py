"""Counter-based random bits: Philox 4×32-10 (Salmon et al., SC 2011), the generator Triton's `tl.philox` implements.

The noise of token id n at step t of a row is a function of (seed, t, n) alone: not of the batch, order or device.
"""

from __future__ import annotations

import torch

ROUNDS = 10
MASK = 0xFFFFFFFF


def philox(seeds: torch.Tensor, steps: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """seeds, steps [rows, 1] int64, blocks [1 or rows, blocks] int64 → [rows, blocks, 4] int64 below 2³².

    Key = the seed's 64 bits, counter = (block, step, 0, 0).
    """
    key_low, key_high = seeds & MASK, (seeds >> 32) & MASK
    zero = torch.zeros_like(seeds + blocks)
    c0, c1, c2, c3 = zero + blocks, zero + (steps & MASK), zero, zero
    for _ in range(ROUNDS):
        low, high = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # int64 wraps; both 32-bit halves are still right
        c0 = ((high >> 32) & MASK) ^ c1 ^ key_low
        c1 = high & MASK
        c2 = ((low >> 32) & MASK) ^ c3 ^ key_high
        c3 = low & MASK
        key_low, key_high = (key_low + 0x9E3779B9) & MASK, (key_high + 0xBB67AE85) & MASK
    return torch.stack((c0, c1, c2, c3), dim=-1)


def gumbel_row(seeds: torch.Tensor, steps: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise of token ids 0…vocabulary: seeds, steps [rows] → [rows, vocabulary] float32."""
    blocks = torch.arange((vocabulary + 3) // 4, device=seeds.device)
    return _gumbel(philox(seeds[:, None], steps[:, None].long(), blocks[None]).flatten(1)[:, :vocabulary])


def gumbel_at(seeds: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The same noise at chosen ids: seeds, steps [rows], tokens [rows, width] → [rows, width] float32."""
    words = philox(seeds[:, None], steps[:, None].long(), tokens // 4)
    return _gumbel(words.gather(-1, (tokens % 4)[..., None])[..., 0])


def _gumbel(words: torch.Tensor) -> torch.Tensor:
    """−log(−log(1 − u)) for u = (word + ½) / 2³²; small u, whose tokens win, by the series of log(1 − u)."""
    u = ((words.float() + 0.5) * 2.0**-32).clamp_max_(1 - 2.0**-24)
    exponential = torch.where(u < 2.0**-10, u * (1 + u * (0.5 + u / 3)), -torch.log(1 - u))
    return -torch.log(exponential)
