"""Drawing the next token: temperature, top-k, top-p, min-p and a grammar's mask, by the Gumbel-max trick.

With logits l (tokens outside the mask −inf) and z = l / temperature, the kept tokens are those that
  top-k: are among the k largest z (ties at the edge kept),
  top-p: of these, renormalised, belong to the smallest set of the most probable whose mass reaches p,
  min-p: and have at least min_p times the largest probability;
the token drawn is argmax(z + noise) over the kept, noise a Gumbel of (seed, step, token id): exactly one draw from the
renormalised softmax. Temperature 0 takes argmax(l), the lowest id among equals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dql.kernels.layout import FLOATS, check
from dql.kernels.philox import gumbel_row


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """What each row of a step samples with, as tensors of [rows] on the logits' device.

    temperature, top_p (1: off), min_p (0: off) float32; top_k (0: off) int32; seeds int64, the row's own stream;
    steps int32, how many tokens the row has drawn before.
    """

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor
    seeds: torch.Tensor
    steps: torch.Tensor


def sample(
    logits: torch.Tensor, rows: SamplingRows, *, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """logits [rows, vocabulary] → tokens [rows] int64, log-probabilities [rows] float32 under softmax(logits) itself.

    mask [rows, ⌈vocabulary / 32⌉] int32: bit n % 32 of word n // 32 allows token n.
    """
    _check(logits, rows, mask)
    return _cpu(logits, rows, mask)


def greedy(logits: torch.Tensor, *, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """`sample` at temperature 0 for every row, without its tensors of parameters."""
    check("logits", logits, (None, None), dtypes=FLOATS)
    allowed = logits if mask is None else logits.masked_fill(~unpack_mask(mask, logits.shape[1]), -torch.inf)
    tokens = allowed.argmax(-1)
    return tokens, _log_prob(logits, tokens)


def unpack_mask(mask: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """mask [rows, words] int32 → [rows, vocabulary] bool."""
    bits = torch.arange(32, dtype=torch.int32, device=mask.device)
    return ((mask[..., None] >> bits) & 1).flatten(1)[:, :vocabulary].bool()


def _check(logits: torch.Tensor, rows: SamplingRows, mask: torch.Tensor | None) -> None:
    check("logits", logits, (None, None), dtypes=FLOATS)
    count = (logits.shape[0],)
    for name in ("temperature", "top_p", "min_p"):
        check(name, getattr(rows, name), count, dtypes=(torch.float32,), like=logits)
    check("top_k", rows.top_k, count, dtypes=(torch.int32,), like=logits)
    check("steps", rows.steps, count, dtypes=(torch.int32,), like=logits)
    check("seeds", rows.seeds, count, dtypes=(torch.int64,), like=logits)
    if mask is not None:
        check("mask", mask, (logits.shape[0], (logits.shape[1] + 31) // 32), dtypes=(torch.int32,), like=logits)


def _log_prob(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    wide = logits.float()
    return wide.gather(1, tokens[:, None])[:, 0] - torch.logsumexp(wide, dim=-1)


def _cpu(logits: torch.Tensor, rows: SamplingRows, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    wide = logits.float()
    if mask is not None:
        wide = wide.masked_fill(~unpack_mask(mask, logits.shape[1]), -torch.inf)
    hot = rows.temperature > 0
    tokens = wide.argmax(-1)
    if bool(hot.any()):
        drawn = wide[hot] / rows.temperature[hot, None]
        drawn = drawn.masked_fill_(drawn < _threshold(drawn, rows, hot)[:, None], -torch.inf)
        noise = gumbel_row(rows.seeds[hot], rows.steps[hot], logits.shape[1])
        tokens[hot] = (drawn + noise).argmax(-1)
    return tokens, _log_prob(logits, tokens)


def _threshold(z: torch.Tensor, rows: SamplingRows, hot: torch.Tensor) -> torch.Tensor:
    """The smallest z that each hot row keeps, [hot rows]; −inf where nothing is cut."""
    top_k, top_p, min_p = rows.top_k[hot].long(), rows.top_p[hot], rows.min_p[hot]
    edge = z.amax(-1) + min_p.log()  # log 0 = −inf: off
    if bool(((top_k > 0) | (top_p < 1)).any()):
        ordered = z.sort(dim=-1, descending=True).values
        last = torch.where(top_k > 0, top_k, z.shape[1]).clamp_max(z.shape[1]) - 1
        kth = ordered.gather(1, last[:, None])
        mass = ordered.masked_fill(ordered < kth, -torch.inf).softmax(-1).cumsum(-1)
        reached = (mass < top_p[:, None]).sum(-1).clamp_max(z.shape[1] - 1)
        nucleus = torch.where(top_p < 1, ordered.gather(1, reached[:, None])[:, 0], -torch.inf)
        edge = torch.maximum(edge, torch.maximum(torch.where(top_k > 0, kth[:, 0], -torch.inf), nucleus))
    return edge
