"""Drawing the next token: temperature, top-k, top-p, min-p and a grammar's mask, by the Gumbel-max trick.

With logits l (tokens outside the mask −inf) and z = l / temperature, the kept tokens are those that
  top-k: are among the k largest z,
  top-p: of these, renormalised, belong to the smallest set of the most probable whose mass reaches p,
  min-p: and have at least min_p times the largest probability (tokens tied with the last one kept are kept);
the token drawn is argmax(z + noise) over the kept, noise the Gumbel of (seed, step, token): exactly one draw from the
renormalised softmax. Temperature 0 takes argmax(l), the lowest id among equals.
"""

from dataclasses import dataclass

import torch

from dql.kernels.configs import choose, processors
from dql.kernels.language import cdiv, power_of_two, uses_triton
from dql.kernels.layout import FLOATS, check
from dql.kernels.philox import gumbel_of, gumbel_row
from dql.kernels.sample_kernel import draw_kernel, finish_kernel, threshold_kernel

HEAD = 512  # on the CPU, how many of the largest logits are looked at before the whole vocabulary is
CHUNK_ROWS = 4  # rows whose noise is drawn at once on the CPU, so that the words stay in cache


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

    def at(self, index: torch.Tensor) -> "SamplingRows":
        """Some of the rows."""
        return SamplingRows(
            self.temperature[index], self.top_k[index], self.top_p[index], self.min_p[index], self.seeds[index],
            self.steps[index],
        )  # fmt: skip


def sample(
    logits: torch.Tensor, rows: SamplingRows, *, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """logits [rows, vocabulary] → tokens [rows] int64, log-probabilities [rows] float32 under softmax(logits) itself.

    mask [rows, ⌈vocabulary / 32⌉] int32: bit n % 32 of word n // 32 allows token n; it must allow at least one.
    """
    count = (logits.shape[0],)
    for name in ("temperature", "top_p", "min_p"):
        check(name, getattr(rows, name), count, dtypes=(torch.float32,), like=logits)
    check("top_k", rows.top_k, count, dtypes=(torch.int32,), like=logits)
    check("steps", rows.steps, count, dtypes=(torch.int32,), like=logits)
    check("seeds", rows.seeds, count, dtypes=(torch.int64,), like=logits)
    _check(logits, mask)
    return _triton(logits, rows, mask) if uses_triton(logits) else _cpu(logits, rows, mask)


def greedy(logits: torch.Tensor, *, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """`sample` at temperature 0 for every row, without its tensors of parameters."""
    _check(logits, mask)
    if uses_triton(logits):
        return _triton(logits, None, mask)
    tokens = _masked(logits, mask).argmax(-1)
    return tokens, _log_prob(logits, tokens)


def unpack_mask(mask: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """mask [rows, words] int32 → [rows, vocabulary] bool."""
    bits = torch.arange(32, dtype=torch.int32, device=mask.device)
    return ((mask[..., None] >> bits) & 1).flatten(1)[:, :vocabulary].bool()


def _check(logits: torch.Tensor, mask: torch.Tensor | None) -> None:
    check("logits", logits, (None, None), dtypes=FLOATS)
    if mask is not None:
        check("mask", mask, (logits.shape[0], cdiv(logits.shape[1], 32)), dtypes=(torch.int32,), like=logits)


def _masked(logits: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return logits if mask is None else logits.masked_fill(~unpack_mask(mask, logits.shape[1]), -torch.inf)


def _log_prob(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    wide = logits.float()
    return wide.gather(1, tokens[:, None])[:, 0] - torch.logsumexp(wide, dim=-1)


def _cpu(logits: torch.Tensor, rows: SamplingRows, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    wide = _masked(logits.float(), mask)
    tokens = torch.empty(len(wide), dtype=torch.int64)
    hot, narrow = rows.temperature > 0, (rows.top_k > 0) | (rows.top_p < 1) | (rows.min_p > 0)
    for part, draw in ((~hot, _most_probable), (hot & ~narrow, _drawn_of_all), (hot & narrow, _drawn_of_some)):
        if len(at := part.nonzero()[:, 0]):
            every = len(at) == len(wide)
            tokens[at] = draw(wide if every else wide[at], rows if every else rows.at(at))
    return tokens, _log_prob(logits, tokens)


def _most_probable(logits: torch.Tensor, rows: SamplingRows) -> torch.Tensor:
    return logits.argmax(-1)


def _drawn_of_all(logits: torch.Tensor, rows: SamplingRows) -> torch.Tensor:
    """Of rows that keep every token, which needs all their noise and nothing else."""
    tokens = torch.empty(len(logits), dtype=torch.int64)
    for start in range(0, len(logits), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        noise = gumbel_row(rows.seeds[part], rows.steps[part], logits.shape[1])
        tokens[part] = noise.add_(logits[part] / rows.temperature[part, None]).argmax(-1)
    return tokens


def _drawn_of_some(logits: torch.Tensor, rows: SamplingRows) -> torch.Tensor:
    """Among the HEAD largest where a row keeps no more than those, which spares its sort and most of its noise."""
    z = logits / rows.temperature[:, None]
    head = z.topk(min(HEAD, z.shape[1]), dim=-1)
    edge, known = _edge(head.values, z.logsumexp(-1), rows)
    short = known & ((edge > head.values[:, -1]) | (head.values.shape[1] == z.shape[1]))
    tokens = torch.empty(len(z), dtype=torch.int64)
    few, many = short.nonzero()[:, 0], (~short).nonzero()[:, 0]
    if len(few):
        ids = head.indices[few].sort(dim=-1).values  # of equal sums the lowest id wins, as everywhere
        kept = z[few].gather(1, ids)
        kept.masked_fill_(kept < edge[few, None], -torch.inf)
        winner = (kept + gumbel_of(rows.seeds[few], rows.steps[few], ids)).argmax(-1)
        tokens[few] = ids.gather(1, winner[:, None])[:, 0]
    for start in range(0, len(many), CHUNK_ROWS):
        part = many[start : start + CHUNK_ROWS]
        some, whole = rows.at(part), z[part]
        if bool(((some.top_k > 0) | (some.top_p < 1)).any()):
            edges, _ = _edge(whole.sort(dim=-1, descending=True).values, whole.logsumexp(-1), some)
        else:
            edges = whole.amax(-1) + some.min_p.log()
        whole = whole.masked_fill(whole < edges[:, None], -torch.inf)
        tokens[part] = (whole + gumbel_row(some.seeds, some.steps, z.shape[1])).argmax(-1)
    return tokens


def _edge(ordered: torch.Tensor, normaliser: torch.Tensor, rows: SamplingRows) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest z that each row keeps, and whether `ordered`, the largest z in order, is enough to know it.

    ordered [rows, n], normaliser [rows] the log-sum-exp of all of a row's z.
    """
    count = ordered.shape[1]
    limited = rows.top_k > 0
    last = torch.where(limited, rows.top_k.long(), count).clamp_max(count) - 1
    kth = ordered.gather(1, last[:, None])
    kept = ordered.masked_fill(ordered < kth, -torch.inf)
    total = torch.where(limited, kept.logsumexp(-1), normaliser)
    reached = ((kept - total[:, None]).exp().cumsum(-1) < rows.top_p[:, None]).sum(-1)
    nucleus = ordered.gather(1, reached.clamp_max(count - 1)[:, None])[:, 0]
    edge = ordered[:, 0] + rows.min_p.log()  # log 0 = −inf: off
    edge = torch.maximum(edge, torch.where(limited, kth[:, 0], -torch.inf))
    edge = torch.maximum(edge, torch.where(rows.top_p < 1, nucleus, -torch.inf))
    known = (~limited | (rows.top_k <= count)) & ((rows.top_p >= 1) | (reached < count))
    return edge, known


def _triton(
    logits: torch.Tensor, rows: SamplingRows | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Threshold per row, then the draw split over the vocabulary, then the splits' winner. `rows` None: greedy."""
    (count, vocabulary), device = logits.shape, logits.device
    config = choose("sample", "any")
    threshold = torch.empty(count, device=device)
    words = logits if mask is None else mask
    masked = mask is not None
    if rows is not None:
        threshold_kernel[(count,)](
            logits, words, rows.temperature, rows.top_k, rows.top_p, rows.min_p, threshold,
            vocabulary, cdiv(vocabulary, 32), MASKED=masked, **choose("sample_threshold", "any").options(),
        )  # fmt: skip
    blocks = cdiv(vocabulary, config.blocks["BLOCK"])
    splits = max(1, min(cdiv(2 * processors(), max(1, count)), blocks))
    best, largest, total = (torch.empty((splits, count), device=device) for _ in range(3))
    winner = torch.empty((splits, count), dtype=torch.int32, device=device)
    draw_kernel[(count, splits)](
        logits, words, *(
            (rows.temperature, rows.seeds, rows.steps) if rows is not None else (logits, logits, logits)
        ), threshold, best, winner, largest, total, vocabulary, cdiv(vocabulary, 32), count,
        cdiv(blocks, splits),
        MASKED=masked, GREEDY=rows is None, **config.options(),
    )  # fmt: skip
    tokens = torch.empty(count, dtype=torch.int64, device=device)
    log_probs = torch.empty(count, device=device)
    finish_kernel[(count,)](
        logits, best, winner, largest, total, tokens, log_probs, vocabulary, count, splits,
        BLOCK=power_of_two(blocks), **choose("sample_finish", "any").options(),  # one variant for all numbers of rows
    )  # fmt: skip
    return tokens, log_probs
