"""Every op's plain formula in float64: the oracle that tuning a product path never touches."""

import torch

from dql.kernels.language import interpreting

Double = torch.Tensor


def error(out: torch.Tensor, expected: Double) -> float:
    """‖out − expected‖ / ‖expected‖, NaN where out holds one."""
    wide = out.detach().cpu().double()
    return float((wide - expected).norm() / expected.norm().clamp_min(1e-12))


def tolerance(dtype: torch.dtype) -> float:
    """Relative error that rounding inputs and outputs to `dtype` allows."""
    return {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]


def code_tolerance(codes: torch.dtype) -> float:
    """Relative error of 8-bit codes; Triton's interpreter truncates to fp8 where hardware rounds."""
    if codes == torch.int8:
        return 0.015
    return 0.13 if interpreting() else 0.04


def double(x: torch.Tensor) -> Double:
    return x.detach().cpu().double()


def dequantised(codes: torch.Tensor, scales: torch.Tensor) -> Double:
    """Codes [rows, …] times the scale of each row."""
    return double(codes.float()) * double(scales)[..., None]


def scale_sums(sums: Double, x_scales: Double, scales: Double, bias: Double | None) -> Double:
    y = x_scales[:, None] * scales * sums
    return y if bias is None else y + bias


def rms_norm(x: Double, weight: Double, eps: float, offset: float) -> Double:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * (weight + offset)


def rope(x: Double, positions: torch.Tensor, cos: Double, sin: Double) -> Double:
    """x [tokens, heads, head_dim], the half-split rotation."""
    y, half = x.clone(), cos.shape[1]
    for token, position in enumerate(positions.tolist()):
        for channel in range(half):
            c, s = cos[position, channel], sin[position, channel]
            low, high = x[token, :, channel], x[token, :, channel + half]
            y[token, :, channel], y[token, :, channel + half] = low * c - high * s, high * c + low * s
    return y


def gated(x: Double, activation: str) -> Double:
    gate, up = x.chunk(2, -1)
    if activation == "silu":
        return gate / (1 + torch.exp(-gate)) * up
    cubic = 0.7978845608028654 * (gate + 0.044715 * gate**3)
    return 0.5 * gate * (1 + torch.tanh(cubic)) * up


def attention(
    q: Double,
    k: Double,
    v: Double,
    scale: float,
    *,
    query_positions: torch.Tensor,
    key_positions: torch.Tensor,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Double, Double]:
    """One row, q [queries, heads, dim] over k, v [keys, kv_heads, dim] → out like q, lse [queries, heads]."""
    group = q.shape[1] // k.shape[1]
    scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(group, 1)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    distance = query_positions[:, None] - key_positions
    seen = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        seen &= distance >= 0
    if window is not None:
        seen &= distance < window
    scores = scores.masked_fill(~seen, -torch.inf)
    lse = torch.logsumexp(scores, -1)
    shares = torch.exp(scores - lse.nan_to_num(neginf=0.0)[..., None])
    return torch.einsum("hqk,khd->qhd", shares, v.repeat_interleave(group, 1)), lse.t()
