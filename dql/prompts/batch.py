"""Many prompts as one flat array of token ids, put together without a step of Python per row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowFailure:
    """Why a row has no prompt. kind: 'tokenizer' or 'template', as the error classes of a job name it."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Prompts of a batch of rows.

    ids: int32, all prompts end to end. offsets: int64[rows + 1]; row i is ids[offsets[i]:offsets[i + 1]].
    slots: int64[rows, slots, 2], where each hole's text starts in `ids` and how many tokens it has.
    failures: rows without a prompt (they have no tokens), by row number.
    """

    ids: Ids
    offsets: Places
    slots: Places
    failures: Mapping[int, RowFailure] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> Ids:
        """One row's ids, as a view."""
        return self.ids[self.offsets[number] : self.offsets[number + 1]]

    @property
    def lengths(self) -> Places:
        """Tokens of each row, int64[rows]."""
        return np.diff(self.offsets)


@dataclass(frozen=True, slots=True)
class Column:
    """One hole's tokens for every row: flat ids and int64[rows + 1] offsets."""

    ids: Ids
    offsets: Places


def assemble(pieces: Sequence[Ids | Column], rows: int, failures: Mapping[int, RowFailure]) -> TokenBatch:
    """Join constants and columns, in order, into one prompt per row."""
    lengths = np.stack([_lengths(piece, rows) for piece in pieces]) if pieces else np.zeros((0, rows), np.int64)
    lengths[:, list(failures)] = 0
    ends = np.cumsum(lengths, axis=0)
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(ends[-1] if len(pieces) else np.zeros(rows, np.int64), out=offsets[1:])
    starts = offsets[:-1] + ends - lengths
    ids = np.empty(int(offsets[-1]), np.int32)
    for piece, start, length in zip(pieces, starts, lengths, strict=True):
        into = spread(start, length)
        if isinstance(piece, Column):
            ids[into] = piece.ids[spread(piece.offsets[:-1], length)]
        else:
            ids[into] = np.tile(piece, int(np.count_nonzero(length)))
    is_slot = [at for at, piece in enumerate(pieces) if isinstance(piece, Column)]
    return TokenBatch(ids, offsets, np.stack([starts[is_slot].T, lengths[is_slot].T], axis=-1), failures)


def truncate_middle(batch: TokenBatch, limit: int, reserves: Places) -> tuple[TokenBatch, NDArray[np.bool_]]:
    """Cut prompts of more than `limit` tokens, from the middle of their longest hole, then of the next longest.

    reserves: int64[slots, 2], tokens at the start and the end of each hole that are never cut. Constants are not cut
    either, so a row that they alone make too long stays too long. Returns the batch and which rows were cut,
    bool[rows].
    """
    starts, lengths = batch.slots[..., 0], batch.slots[..., 1]
    excess = np.maximum(batch.lengths - limit, 0)
    room = np.maximum(lengths - reserves.sum(axis=1), 0)
    cuts = np.zeros_like(room)
    for row in np.flatnonzero(excess):
        for slot in np.argsort(-lengths[row], kind="stable"):
            cuts[row, slot] = min(excess[row], room[row, slot])
            excess[row] -= cuts[row, slot]
    was_cut: NDArray[np.bool_] = np.any(cuts, axis=1)
    if not was_cut.any():
        return batch, was_cut
    kept = lengths - cuts
    head = np.clip((kept + 1) // 2, reserves[:, 0], np.maximum(kept - reserves[:, 1], reserves[:, 0]))
    keep = np.ones(len(batch.ids), bool)
    keep[spread((starts + head).ravel(), cuts.ravel())] = False
    moved = np.zeros(len(batch.ids) + 1, np.int64)
    np.cumsum(keep, out=moved[1:])
    slots = np.stack([moved[starts], kept], axis=-1)
    return TokenBatch(batch.ids[keep], moved[batch.offsets], slots, batch.failures), was_cut


def spread(starts: Places, lengths: Places) -> Places:
    """All places start, start + 1 … of stretches of these lengths, end to end."""
    before = np.cumsum(lengths) - lengths
    places: Places = np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
    return places


def _lengths(piece: Ids | Column, rows: int) -> Places:
    return np.diff(piece.offsets) if isinstance(piece, Column) else np.full(rows, len(piece), np.int64)
