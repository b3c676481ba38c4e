"""The CPU paths of `attention` and `decode_attention`: rows padded to batches for torch's fused kernel."""

from collections.abc import Iterator

import torch

from dql.kernels.fused_cpu import HIDDEN, attend_padded
from dql.kernels.kv_cache import KVCache

Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # tokens of q, their out and lse
PADDED_TOKENS = 1 << 14  # rows are padded to the longest of a chunk of about so many tokens


def attend_rows(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [rows, queries, heads, dim] over k, v [rows, keys, kv_heads, dim], seen bool [rows or 1, queries, keys].

    Returns out [rows, queries, heads, dim] float32, lse [rows, queries, heads] float32; 0 and −inf where none is seen.
    """
    if not k.shape[1]:
        return torch.zeros(q.shape), torch.full(q.shape[:3], -torch.inf)
    group = q.shape[2] // k.shape[2]
    bias = torch.where(seen, 0.0, HIDDEN)[:, None].expand(len(q), group, -1, -1)
    bias = bias.reshape(len(q), 1, -1, bias.shape[-1])
    out, lse = attend_padded(q.float(), k.float(), v.float(), bias, scale, softcap)
    blind = lse < HIDDEN / 2
    return out.masked_fill(blind[..., None], 0.0), lse.masked_fill(blind, -torch.inf)


def packed_cpu(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    offsets: torch.Tensor,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows sorted by length, padded within chunks of neighbours, one batched product a chunk."""
    out, lse = torch.empty(q.shape, dtype=q.dtype), torch.empty(q.shape[:2])
    lengths, order = (offsets[1:] - offsets[:-1]).sort(descending=True)
    first = int((lengths > 0).sum())
    begin = 0
    while begin < first:
        longest = int(lengths[begin])
        end = min(first, begin + max(1, PADDED_TOKENS // longest))
        at = torch.arange(longest)
        inside = at < lengths[begin:end, None]
        tokens = (offsets[order[begin:end], None] + at).where(inside, 0)
        distance = at[:, None] - at
        allowed = torch.ones_like(distance, dtype=torch.bool) if not causal else distance >= 0
        if window is not None:
            allowed &= distance < window
        seen = inside[:, None] & allowed
        state = attend_rows(q[tokens], k[tokens], v[tokens], seen, scale, softcap)
        kept = tokens[inside]
        out[kept], lse[kept] = state[0][inside].to(q.dtype), state[1][inside]
        begin = end
    return out, lse


def prefix_cpu(
    q: torch.Tensor,
    cache: KVCache,
    query_starts: torch.Tensor,
    query_ends: torch.Tensor,
    places: torch.Tensor | None,
    key_starts: torch.Tensor,
    key_lengths: torch.Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
    positions: torch.Tensor | None,
    key_positions: torch.Tensor | None,
) -> Iterator[Part]:
    """One dense product a group."""
    for group, tokens in _row_tokens(query_starts, query_ends, places):
        start, length = int(key_starts[group]), int(key_lengths[group])
        k, v = cache.dense(slice(start, start + length))
        seen = torch.ones((1, len(tokens), length), dtype=torch.bool)
        if window is not None and positions is not None and key_positions is not None:
            seen = (positions[tokens, None] - key_positions[group] - torch.arange(length) < window)[None]
        state = attend_rows(q[None, tokens], k[None], v[None], seen, scale, softcap)
        yield tokens, state[0][0], state[1][0]


def paged_cpu(
    q: torch.Tensor,
    cache: KVCache,
    slots: torch.Tensor,
    query_starts: torch.Tensor,
    query_ends: torch.Tensor,
    places: torch.Tensor | None,
    key_lengths: torch.Tensor,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Iterator[Part]:
    """One dense product a row: prefill chunks are few and long."""
    for row, tokens in _row_tokens(query_starts, query_ends, places):
        length = int(key_lengths[row])
        index = slots[row, :length].long() if slots.ndim == 2 else int(slots[row]) + torch.arange(length)
        k, v = cache.dense(index)
        distance = torch.arange(length - len(tokens), length)[:, None] - torch.arange(length)
        seen = distance >= 0
        if window is not None:
            seen &= distance < window
        state = attend_rows(q[None, tokens], k[None], v[None], seen[None], scale, softcap)
        yield tokens, state[0][0], state[1][0]


def join_into(
    parts: Iterator[Part], q: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None, joined: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write parts to their tokens of `state` (a fresh one where None), or join them to what is there."""
    out, lse = state or (torch.empty(q.shape, dtype=q.dtype), torch.empty(q.shape[:2]))
    for tokens, part, part_lse in parts:
        if joined:
            both = torch.logaddexp(lse[tokens], part_lse)
            share = torch.exp(part_lse - both).nan_to_num_(0.0)[..., None]  # both −inf: nothing seen by either
            part, part_lse = torch.lerp(out[tokens].float(), part, share), both
        out[tokens], lse[tokens] = part.to(out.dtype), part_lse
    return out, lse


def _row_tokens(
    starts: torch.Tensor, ends: torch.Tensor, places: torch.Tensor | None
) -> Iterator[tuple[int, torch.Tensor]]:
    """The number and the tokens of every row that has any: torch's fused kernel divides by their count."""
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if end > start:
            queries = torch.arange(start, end)
            yield row, queries if places is None else places[queries].long()
