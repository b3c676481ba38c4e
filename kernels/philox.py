"""Counter-based random numbers: Philox 4×32-10 (Salmon et al., SC 2011), the generator Triton's `tl.philox` implements.

The Gumbel noise of token n at step t of a row is a function of (seed, t, n) alone: not of the batch, order or device.
Counter = (n // 4, t, 0, 0), key = the seed's 64 bits, word n mod 4 of the result; u = (word + ½) / 2³² and
noise = −log(−log(1 − u)), with the series of log(1 − u) where u is small, since small u is what wins.
"""

import torch

from dql.kernels.language import Block, Scalar, jit, tl

ROUNDS = 10
MASK = 0xFFFFFFFF


def gumbel_row(seeds: torch.Tensor, steps: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Standard Gumbel noise of tokens 0…vocabulary: seeds int64, steps int32 [rows] → [rows, vocabulary] float32."""
    blocks = torch.arange((vocabulary + 3) // 4, device=seeds.device)
    return _standard_gumbel(_philox(seeds[:, None], steps[:, None].long(), blocks[None]).flatten(1)[:, :vocabulary])


def gumbel_of(seeds: torch.Tensor, steps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """`gumbel_row` of some tokens only: tokens int64 [rows, n] → [rows, n] float32."""
    words = _philox(seeds[:, None], steps[:, None].long(), tokens // 4)
    return _standard_gumbel(words.gather(2, (tokens % 4)[..., None])[..., 0])


def _standard_gumbel(words: torch.Tensor) -> torch.Tensor:
    """Uniform 32-bit words as standard Gumbel noise."""
    u = ((words.float() + 0.5) * 2.0**-32).clamp_max_(1 - 2.0**-24)
    exponential = torch.where(u < 2.0**-10, u * (1 + u * (0.5 + u / 3)), -torch.log(1 - u))
    return -torch.log(exponential)


def _philox(seeds: torch.Tensor, steps: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """seeds, steps [rows, 1], blocks [1 or rows, blocks] int64 → the words [rows, blocks, 4] as int64 below 2³²."""
    key_low, key_high = seeds & MASK, (seeds >> 32) & MASK
    zero = torch.zeros_like(seeds + blocks)
    c0, c1, c2, c3 = zero + blocks, zero + (steps & MASK), zero, zero
    for _ in range(ROUNDS):
        low, high = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # int64 wraps, and both 32-bit halves are still right
        c0 = ((high >> 32) & MASK) ^ c1 ^ key_low
        c1 = high & MASK
        c2 = ((low >> 32) & MASK) ^ c3 ^ key_high
        c3 = low & MASK
        key_low, key_high = (key_low + 0x9E3779B9) & MASK, (key_high + 0xBB67AE85) & MASK
    return torch.stack((c0, c1, c2, c3), dim=-1)


@jit()
def gumbel_block(seed: Scalar, step: Scalar, quads: Block) -> Block:
    """The noise of tokens 4·quads + 0…3 as four blocks like `quads` (int32)."""
    zero = quads * 0
    a, b, c, d = tl.philox(seed, quads, zero + step, zero, zero)
    return _gumbel(a), _gumbel(b), _gumbel(c), _gumbel(d)


@jit()
def _gumbel(word: Block) -> Block:
    u = (word.to(tl.uint32, bitcast=True).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    u = tl.minimum(u, 0.99999994)
    small = u * (1 + u * (0.5 + u / 3))
    return -tl.log(tl.where(u < 0.0009765625, small, -tl.log(1 - u)))
