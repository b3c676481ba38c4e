"""Guesses from a row's own text: it goes on as it did before (prompt lookup, n-gram speculation)."""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from dql.executor.slab import Lanes, Slab
from dql.executor.speculate import Matrix


@dataclass(slots=True)
class _Texts:
    """The texts of a slab's lanes, prompt and drawn tokens: tokens [lanes, places], ends and tenants [lanes]."""

    tokens: NDArray[np.int32]
    ends: NDArray[np.int64]
    tenants: NDArray[np.int64]


class Texts:
    """What the rows in the lanes of slabs say so far, kept up to date for a few tokens a step."""

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Slab, _Texts] = WeakKeyDictionary()

    def of(self, slab: Slab, lanes: Lanes) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Texts of these lanes [lanes, places], padded with anything, and their lengths [lanes]."""
        texts = self._of.setdefault(slab, _Texts(*_blank(len(slab.rows))))
        for lane in lanes[texts.tenants[lanes] != slab.tenants[lanes]].tolist():
            self._enter(texts, slab, lane)
        prompts = slab.base[lanes] + slab.filled[lanes] - slab.produced[lanes] + 1
        ends = prompts + slab.produced[lanes]
        behind = int((ends - texts.ends[lanes]).max(initial=0))
        for place in range(behind):  # as a rule the one token, or few, of the last step
            at = np.minimum(texts.ends[lanes] + place, ends - 1)
            texts.tokens[lanes, at] = slab.tokens[lanes, at - prompts]
        texts.ends[lanes] = ends
        return texts.tokens[lanes, : int(ends.max())], ends

    def _enter(self, texts: _Texts, slab: Slab, lane: int) -> None:
        """A lane has a new row: its prompt and the room for all it may draw."""
        row = slab.rows[lane]
        if row is None:
            raise RuntimeError(f"lane {lane} decodes without a row")
        prompt = row.tokens
        missing = len(prompt) + int(slab.limit[lane]) - texts.tokens.shape[1]
        if missing > 0:
            texts.tokens = np.pad(texts.tokens, ((0, 0), (0, missing)))
        texts.tokens[lane, : len(prompt)] = prompt
        texts.ends[lane], texts.tenants[lane] = len(prompt), slab.tenants[lane]


def _blank(lanes: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    return np.zeros((lanes, 0), np.int32), np.zeros(lanes, np.int64), np.full(lanes, -1, np.int64)


class OwnText:
    """Proposes what followed a row's last three tokens (or two) when they stood in its prompt or answer before.

    Pays where answers copy or repeat.
    """

    cost = 0.0

    def __init__(self) -> None:
        self._texts = Texts()

    def propose(self, slab: Slab, lanes: Lanes, most: int) -> Matrix:
        """See Proposer."""
        texts, ends = self._texts.of(slab, lanes)
        return continued(texts, ends, most)

    def close(self) -> None:
        """Holds nothing."""


def continued(texts: NDArray[np.int32], ends: NDArray[np.int64], most: int) -> Matrix:
    """texts [rows, places] of lengths `ends` → [rows, most] guesses, −1 where a text's last two tokens are new to it.

    What follows the latest earlier place is taken; at the text's end it repeats itself.
    """
    rows, width = texts.shape
    if width < 3:
        return np.full((rows, most), -1, np.int64)
    row = np.arange(rows)
    last = [texts[row, np.maximum(ends - back, 0)][:, None] for back in (1, 2, 3)]
    after = np.arange(2, width)  # the place after a match
    two = (texts[:, 1 : width - 1] == last[0]) & (texts[:, : width - 2] == last[1]) & (after < ends[:, None])
    three = two.copy()
    three[:, 1:] &= texts[:, : width - 3] == last[2]
    three[:, :1] = False
    place = np.maximum(np.where(two, after, 0), np.where(three, after + width, 0)).max(axis=1)
    found, start = place > 0, place % width
    period = np.maximum(ends - start, 1)
    at = np.minimum(start[:, None] + np.arange(most) % period[:, None], width - 1)
    return np.where(found[:, None], texts[row[:, None], at].astype(np.int64), -1)
