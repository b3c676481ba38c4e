"""Rows that are decoding together: equal lanes of slots in one block, so that attention reads them in place."""

import numpy as np
from numpy.typing import NDArray

from dql.executor.block_pool import Block
from dql.executor.prefix_tree import Node
from dql.executor.requests import Generate
from dql.executor.rows import Row
from dql.executor.sampler import DrawParameters, row_seed

Lanes = NDArray[np.int64]
_NO_TOKEN = -1


class Slab:
    """`lanes` lanes of `width` slots. Lane i holds its row's tokens that no dense run holds, in order.

    All per-row state is in arrays over lanes, so that a step costs the same Python for one row as for hundreds.
    """

    def __init__(self, block: Block, lanes: int, width: int) -> None:
        self.block = block
        self.width = width
        self.rows: list[Row | None] = [None] * lanes
        self.live = np.zeros(lanes, np.bool_)
        self.tenants = np.zeros(lanes, np.int64)  # how many rows have had the lane: tells this row from the last
        self.watched = np.zeros(lanes, np.bool_)  # whether the row may end by a stop text
        self.filled = np.zeros(lanes, np.int64)  # slots of the lane that hold keys and values
        self.base = np.zeros(lanes, np.int64)  # position of the lane's first slot
        self.produced = np.zeros(lanes, np.int64)
        self.guessed = np.zeros(lanes, np.int64)  # of those produced, the ones that took no pass of their own
        self.limit = np.zeros(lanes, np.int64)
        self.last = np.zeros(lanes, np.int64)  # the newest token, not yet stored
        self.stop = np.full((lanes, 1), _NO_TOKEN, np.int64)  # ids that end the row
        self.drawing = DrawParameters.empty(lanes)
        self.dense_parents: list[Node | None] = [None] * lanes
        self.tokens = np.zeros((lanes, width), np.int32)
        self.logprobs = np.zeros((lanes, width), np.float32)
        self._free = list(range(lanes))[::-1]

    @property
    def taken(self) -> int:
        """Lanes that hold a row, reading its prompt or decoding."""
        return len(self.rows) - len(self._free)

    def fits(self, row: Row) -> bool:
        """Whether a free lane can take the row."""
        return bool(self._free) and row.lane <= self.width

    def reserve(self, row: Row) -> int:
        """Give a row that decodes a lane; it takes part in decoding after `begin`."""
        if not isinstance(row.task, Generate):
            raise RuntimeError("only rows that generate take lanes")
        lane = self._free.pop()
        self.rows[lane] = row
        self.drawing.set(lane, row.task.sampling, row_seed(row.task.sampling, row.tokens))
        if len(row.task.stop) > self.stop.shape[1]:
            more = np.full((len(self.rows), len(row.task.stop) - self.stop.shape[1]), _NO_TOKEN, np.int64)
            self.stop = np.concatenate((self.stop, more), axis=1)
        self.stop[lane] = _NO_TOKEN
        self.stop[lane, : len(row.task.stop)] = sorted(row.task.stop)
        self.base[lane] = row.dense_end
        self.watched[lane] = bool(row.task.stop_texts)
        self.limit[lane] = row.task.max_tokens
        self.dense_parents[lane] = row.dense_parent
        self.filled[lane] = len(row.tokens) - row.dense_end - 1
        self.produced[lane] = self.guessed[lane] = 0
        return lane

    def slot(self, lane: int) -> int:
        """The first slot of a lane."""
        return self.block.start + lane * self.width

    @property
    def decoding(self) -> Lanes:
        """The lanes whose rows have tokens left to draw, as far as is known."""
        return np.flatnonzero(self.live & (self.produced < self.limit))

    def next_slots(self, lanes: Lanes) -> Lanes:
        """The slots that the newest tokens of these lanes will fill."""
        slots: Lanes = self.block.start + lanes * self.width + self.filled[lanes]
        return slots

    def advance(self, lanes: Lanes) -> None:
        """One more token is being drawn for each of these lanes; the one before is stored."""
        self.live[lanes] = True
        self.filled[lanes] += 1
        self.produced[lanes] += 1
        self.drawing.steps[lanes] += 1

    def record(
        self, lanes: Lanes, produced: NDArray[np.int64], tokens: NDArray[np.generic], logprobs: NDArray[np.generic]
    ) -> NDArray[np.bool_]:
        """Note the token that each of these lanes drew after `produced` others. Returns which rows it ends."""
        self.tokens[lanes, produced] = tokens
        self.logprobs[lanes, produced] = logprobs
        self.last[lanes] = tokens
        ended: NDArray[np.bool_] = self.stopped(lanes) | (produced + 1 == self.limit[lanes])
        return ended

    def stopped(self, lanes: Lanes) -> NDArray[np.bool_]:
        """Whether the newest token of each lane is one of its stop ids."""
        found: NDArray[np.bool_] = (self.last[lanes, None] == self.stop[lanes]).any(axis=1)
        return found

    def release(self, lane: int) -> Row:
        """Take the row out of its lane."""
        row = self.rows[lane]
        if row is None:
            raise RuntimeError(f"lane {lane} was released twice")
        self.rows[lane] = None
        self.live[lane] = False
        self.tenants[lane] += 1
        self.dense_parents[lane] = None
        self._free.append(lane)
        return row

    def moves(self) -> list[tuple[int, int]]:
        """(from, to) lanes that bring the live rows of a thinned slab to the front; none while prompts are read."""
        count = int(self.live.sum())
        if count != self.taken or count == 0:
            return []
        high = np.flatnonzero(self.live)[-1] + 1
        if high <= count + count // 2:
            return []
        holes = np.flatnonzero(~self.live[:count]).tolist()
        return list(zip((count + np.flatnonzero(self.live[count:])).tolist(), holes, strict=True))

    def move(self, source: int, target: int) -> None:
        """Bring a row's state from one lane to a free one; its keys and values are the caller's to copy."""
        for array in (
            self.live,
            self.watched,
            self.filled,
            self.base,
            self.produced,
            self.guessed,
            self.limit,
            self.last,
            self.stop,
            self.tokens,
            self.logprobs,
            *(getattr(self.drawing, name) for name in DrawParameters.__slots__),
        ):
            array[target] = array[source]
        self.rows[target], self.dense_parents[target] = self.rows[source], self.dense_parents[source]
        self.rows[source], self.dense_parents[source] = None, None
        self.live[source] = False
        self.tenants[[source, target]] += 1
        self._free.remove(target)
        self._free.append(source)
