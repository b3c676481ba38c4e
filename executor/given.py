"""Given tokens in the steps of a run: which of a step's hidden states judge them, and what the model said to them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.following import Followed, follow, joined
from dql.executor.models.head import LogitHead
from dql.executor.requests import Follow
from dql.executor.rows import Row
from dql.executor.transfer import Fetch, to_device


@dataclass(frozen=True, slots=True)
class Given:
    """Of the `read` own tokens of a row that a step reads, the last `count` judge given tokens.

    place: of the first of these among the step's outputs. last: no given tokens of the row are left.
    """

    row: Row
    task: Follow
    place: int
    count: int
    read: int
    last: bool

    @property
    def tokens(self) -> tuple[int, ...]:
        """The given tokens; to be asked before the step counts as done."""
        row = self.row
        first = row.done + self.read - self.count - (row.own - row.outputs)
        return self.task.tokens[first : first + self.count]


def judge(
    given: Sequence[Given], hidden: torch.Tensor, head: LogitHead, vocabulary: int
) -> list[tuple[Sequence[Given], Fetch]]:
    """What the model says to them, those of which whole distributions are wanted apart; hidden: of the outputs."""
    found: list[tuple[Sequence[Given], Fetch]] = []
    for whole in (False, True):
        group = [each for each in given if each.task.whole == whole]
        if group:
            places = np.concatenate([each.place + np.arange(each.count) for each in group])
            tokens = np.concatenate([np.array(each.tokens, np.int64) for each in group])
            states = hidden[to_device(places, hidden.device)]
            told = follow(head, states, to_device(tokens, hidden.device), vocabulary, whole=whole)
            found.append((group, Fetch(told)))
    return found


def note(group: Sequence[Given], told: Sequence[NDArray[np.generic]]) -> list[Row]:
    """Write it down with the rows; returns those that are done, all they were told joined."""
    done: list[Row] = []
    start = 0
    for each in group:
        end = start + each.count
        best, logprobs, *whole = (array[start:end].copy() for array in told)
        parts = [*each.row.followed, Followed(best, logprobs, whole[0] if whole else None)]  # type: ignore[arg-type]
        each.row.followed = [joined(parts)] if each.last else parts
        if each.last:
            done.append(each.row)
        start = end
    return done
