"""The greatest logit of each row by a first pass in bf16, which leaves a few candidates for fp32 to decide between.

With ŵ and ĥ rounded, |h·w − ĥ·ŵ| ≤ ‖h‖ · ‖w − ŵ‖ + ‖h − ĥ‖ · ‖ŵ‖ (Cauchy-Schwarz, both differences as they are and not
as they might be), to which the sums in fp32 and the rounding of the result to bf16 are added. A token that this bound
keeps below another one's logit cannot be the greatest. What is left is multiplied in fp32: of 49,152 tokens two or
three. Tokens stand in groups, of which the pass over memory keeps the greatest alone.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch.nn import functional

from dql.executor.memory import give_back_freed_memory
from dql.executor.models.linear import PackedLinear, packing_works
from dql.planner.hardware import cpu_precisions

_CHUNK = 4096  # tokens at once: their logits stay in cache until they are reduced
_GROUP = 16  # tokens that are kept or dropped together, `_CHUNK / _GROUP` apart
_STRIDE = _CHUNK // _GROUP
_MOST = 64  # groups of a row beyond which all tokens are looked at
_ROUNDING = 2.0**-8  # of a bf16 number, relative
_SUM = 2.0**-23  # of one sum in fp32, relative; oneDNN rounds products and sums each

Exact = Callable[[torch.Tensor], torch.Tensor]


class Screen:
    """The first pass over a head's weight, float32 [vocabulary, hidden_size] on the CPU, its logits not capped."""

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight
        self._sums = 2 * weight.shape[1] * _SUM

    def tokens(self, hidden: torch.Tensor, exact: Exact) -> torch.Tensor:
        """Each row's most probable token, int64 [rows], for hidden [rows, hidden_size].

        The one that fp32 finds, but for logits so near each other that the order of its own sums decides. exact: all
        tokens in fp32, for rows where too many are left.
        """
        rows, groups, crowded = self._candidates(hidden)
        found = torch.zeros(len(hidden), dtype=torch.int64)
        if len(rows):
            found = self._decided(hidden, rows, groups)
        if len(crowded):
            found[crowded] = exact(hidden[crowded])
        return found

    @cached_property
    def _chunks(self) -> list[PackedLinear]:
        """Built when a row first asks: many queries only score labels."""
        return [PackedLinear(chunk.bfloat16()) for chunk in torch.split(self._weight, _CHUNK)]

    @cached_property
    def _norms(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each group: the largest ‖w − ŵ‖ and the largest ‖ŵ‖, [groups] each."""
        lost, kept = [], []
        for chunk in torch.split(self._weight, _CHUNK):
            rounded = chunk.bfloat16().float()
            lost.append(_grouped((chunk - rounded).norm(dim=1)))
            kept.append(_grouped(rounded.norm(dim=1)))
        del chunk, rounded
        give_back_freed_memory()  # copies of the whole head, by now
        return torch.cat(lost), torch.cat(kept)

    def _candidates(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pairs of a row and a group that may hold its greatest logit, in the order of rows; rows with too many."""
        narrow = hidden.bfloat16()
        greatest = torch.cat([_grouped(chunk(narrow)) for chunk in self._chunks], dim=1)
        lost, kept = self._norms
        size = hidden.norm(dim=1)
        rounded = (hidden - narrow.float()).norm(dim=1).add_(size * self._sums)
        margin = size * lost.max() + rounded * kept.max()  # no group's is wider
        top = greatest.amax(1).float()
        least = _widened(_widened(top, -1) - 2 * margin, -1)
        # compared in bf16, as the passes over all groups would else be in fp32; rounding down keeps more, never fewer
        edge = torch.nextafter(least.bfloat16(), torch.tensor(-torch.inf, dtype=torch.bfloat16))
        rows, groups = (greatest >= edge[:, None]).nonzero(as_tuple=True)
        value, bound = greatest[rows, groups].float(), size[rows] * lost[groups] + rounded[rows] * kept[groups]
        low, high = _widened(value, -1) - bound, _widened(value, 1) + bound
        sure = torch.full((len(hidden),), -torch.inf).scatter_reduce_(0, rows, low, "amax")
        may = high >= sure[rows]
        rows, groups = rows[may], groups[may]
        counts = rows.bincount(minlength=len(hidden))
        crowded = (counts == 0) | (counts > _MOST)  # none: hidden states that are no numbers
        few = ~crowded[rows]
        return rows[few], groups[few], crowded.nonzero()[:, 0]

    def _decided(self, hidden: torch.Tensor, rows: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
        """The token with the greatest fp32 logit among each row's groups, the lowest id of equal ones; others get 0."""
        first = (groups // _STRIDE) * _CHUNK + groups % _STRIDE
        tokens = first[:, None] + torch.arange(0, _CHUNK, _STRIDE)
        weights = self._weight[tokens.clamp_max(len(self._weight) - 1)]
        logits = torch.bmm(weights, hidden[rows, :, None])[:, :, 0]
        logits.masked_fill_(tokens >= len(self._weight), -torch.inf)
        best = hidden.new_full((len(hidden),), -torch.inf).scatter_reduce_(0, rows, logits.amax(1), "amax")
        wins = torch.where(logits == best[rows, None], tokens, len(self._weight)).amin(1)
        return torch.full((len(hidden),), len(self._weight)).scatter_reduce_(0, rows, wins, "amin")


def screen_of(weight: torch.Tensor, softcap: float | None) -> Screen | None:
    """The screen of a head, where this processor multiplies bf16 by itself and logits are what the product gives."""
    plain = softcap is None and weight.device.type == "cpu" and weight.dtype == torch.float32
    return Screen(weight) if plain and "bf16" in cpu_precisions() and packing_works(torch.bfloat16) else None


def _grouped(values: torch.Tensor) -> torch.Tensor:
    """The greatest of each group along the last dimension, at most `_CHUNK` long."""
    if (missing := _CHUNK - values.shape[-1]) > 0:
        values = functional.pad(values, (0, missing), value=-torch.inf)
    return values.view(*values.shape[:-1], _GROUP, _STRIDE).amax(-2)


def _widened(values: torch.Tensor, sign: int) -> torch.Tensor:
    """What a number may have been before it was rounded to bf16, at most (sign 1) or at least (sign −1)."""
    return values + sign * _ROUNDING * values.abs()
