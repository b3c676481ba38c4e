"""Which work runs in which step, and which slots it takes: admission by exact arithmetic, nothing ever preempted.

Lengths are known and new tokens bounded, so a row is admitted when everything it will ever need is free; what it shares
is counted once. A step mixes decoding rows with as many prompt tokens as its token budget leaves room for.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile, islice
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.block_pool import Block, BlockPool
from dql.executor.prefix_tree import Node
from dql.executor.rows import Row, Window
from dql.executor.slab import Slab
from dql.executor.step import Segment, Step, StepBuilder
from dql.models.shape import ModelShape

_MIN_LANES = 8  # a new slab with fewer lanes waits for others to finish, unless it is all there is


@dataclass(frozen=True, slots=True)
class Planned:
    """`count` tokens of a node or of a row's own part, for `row`'s sake. `last`: the row's prompt ends with them."""

    row: Row
    work: Node | Row
    count: int
    last: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A step and what it stands for, in the order of the step's segments."""

    step: Step
    planned: Sequence[Planned]


class Scheduler:
    """The rows of one run: waiting, reading their prompts, decoding."""

    def __init__(self, shape: ModelShape, pool: BlockPool, *, step_tokens: int, max_rows: int, quota: int) -> None:
        """At most `step_tokens` tokens a step, `max_rows` rows decoding at once, and `quota` slots of the pool."""
        self.waiting: deque[Row] = deque()
        self.slabs: list[Slab] = []
        self.step_tokens = step_tokens
        self._shape = shape
        self._pool = pool
        self._max_rows = max_rows
        self._quota = quota
        self._used = 0
        self._nodes: list[Node] = []
        self._blocks: dict[int, Block] = {}  # by id of rows that do not decode
        self._lanes: dict[int, tuple[Slab, int]] = {}  # by id of rows that decode

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.waiting and not self.slabs

    def add(self, window: Window) -> None:
        """Queue a window's rows."""
        self.waiting.extend(window.rows)
        self._nodes = [node for node in self._nodes if node.waiting]
        self._nodes.extend(window.nodes)
        for node in window.nodes:
            if node.resident is not None:
                node.resident.users += 1
                self._pool.touch(node.resident)

    def plan(self) -> Plan | None:
        """The next step; None where the first waiting row cannot be admitted and nothing else is under way."""
        builder = StepBuilder(self._shape)
        decoding = [(slab, lanes) for slab in self.slabs if len(lanes := np.flatnonzero(slab.live))]
        room = self.step_tokens - sum(len(lanes) for _, lanes in decoding)
        planned = self._plan_prompts(max(room, 0))
        for item in planned:
            builder.add_segment(self._segment(item))
        room = max(self.step_tokens - builder.size, 1)
        for slab, lanes in decoding:
            if room > 0:
                builder.add_slab(slab, lanes[:room])
                room -= len(lanes)
        return Plan(builder.build(), planned) if builder.size else None

    def commit(self, plan: Plan) -> list[Row]:
        """Note that the plan's prompt tokens are stored. Returns the rows whose prompts are complete, in order."""
        complete = []
        for item in plan.planned:
            item.work.done += item.count
            item.row.computed += item.count
            if isinstance(item.work, Node):
                self._keep(item.work)
            if item.last:
                complete.append(self.waiting.popleft())
        return complete

    def lane(self, row: Row) -> tuple[Slab, int]:
        """Where a row decodes."""
        return self._lanes[id(row)]

    def start_decoding(self, rows: Sequence[Row]) -> None:
        """Copy the short shared runs above these rows into their lanes, which then hold all but the dense runs."""
        sources, targets = [], []
        for row in rows:
            slab, lane = self.lane(row)
            target = slab.slot(lane)
            for node in row.short_nodes():
                sources.append(node.slot + np.arange(node.length))
                targets.append(target + np.arange(node.length))
                target += node.length
            self._leave(row.short_nodes(), placed=True)
        if sources:
            self._pool.copy(_index(sources), _index(targets))

    def finish(self, row: Row) -> None:
        """The row is done (or given up): free all it holds."""
        placed = id(row) in self._blocks or id(row) in self._lanes
        path = [] if row.parent is None else row.parent.path()
        if id(row) in self._blocks:
            self._free(self._blocks.pop(id(row)))
        if id(row) in self._lanes:
            slab, lane = self._lanes.pop(id(row))
            started = bool(slab.live[lane])
            slab.release(lane)
            path = [node for node in path if node.dense or not started]
            if not slab.taken:
                self.slabs.remove(slab)
                self._free(slab.block)
        self._leave(path, placed=placed)

    def drop_first(self) -> Row:
        """Take the first row out: a waiting one, or where none waits, one that decodes."""
        row = self.waiting.popleft() if self.waiting else next(row for row in self.slabs[0].rows if row is not None)
        self.finish(row)
        return row

    def give_up(self) -> list[Row]:
        """Free everything; returns the rows that were not done."""
        rows = list(self.waiting)
        for slab in self.slabs:
            rows.extend(row for lane, row in enumerate(slab.rows) if row is not None and slab.live[lane])
        self.waiting.clear()
        for row in rows:
            self.finish(row)
        return rows

    def compact(self) -> None:
        """Bring the rows of slabs that have thinned out together, where no waiting row will fill the gaps."""
        if self.waiting:
            return
        for slab in self.slabs:
            moves = slab.moves()
            sources, targets = [], []
            for source, target in moves:
                filled = np.arange(slab.filled[source])
                sources.append(slab.slot(source) + filled)
                targets.append(slab.slot(target) + filled)
                row = slab.rows[source]
                slab.move(source, target)
                self._lanes[id(row)] = (slab, target)
            if moves:
                self._pool.copy(_index(sources), _index(targets))

    def make_room(self) -> bool:
        """Nothing runs and the first waiting row does not fit: give up sharing for memory. False: nothing left to do.

        Computed nodes that only later rows need are dropped and computed again; then the row itself stops sharing, so
        that it takes its own tokens and no copies.
        """
        row = self.waiting[0]
        kept = set() if row.parent is None else {id(node) for node in row.parent.path()}
        dropped = False
        for node in self._nodes:
            if node.waiting and not node.readers and id(node) not in kept and self._drop(node):
                dropped = True
        if dropped or row.parent is None:
            return dropped
        waiting = self.waiting.popleft()
        self.finish(waiting)
        waiting.parent = waiting.dense_parent = None
        waiting.start = waiting.dense_end = waiting.done = 0
        self.waiting.appendleft(waiting)
        return True

    def _keep(self, node: Node) -> None:
        """Hand a dense run that prompts begin with over to the pool, for the windows after this one."""
        if node.parent is None and node.dense and node.block is not None and node.done == node.length:
            self._used -= node.block.length
            node.resident, node.block = self._pool.keep(node.tokens, node.block), None

    def _drop(self, node: Node) -> bool:
        """Forget a node's keys and values; False where it has none."""
        if node.resident is not None:
            node.resident.users -= 1
            node.resident = None
        elif node.block is not None:
            self._free(node.block)
            node.block = None
        else:
            return False
        node.done = 0
        return True

    def _plan_prompts(self, room: int) -> list[Planned]:
        planned: list[Planned] = []
        ahead: dict[int, int] = {}  # tokens of nodes planned in this step
        limit = self.step_tokens
        for row in self.waiting:
            for node in [] if row.parent is None else row.parent.path():
                todo = node.length - node.done - ahead.get(id(node), 0)
                if not todo:
                    continue
                if (todo > room and todo <= limit and planned) or room <= 0 or not self._place_node(node):
                    return planned
                count = min(todo, room)
                planned.append(Planned(row, node, count))
                ahead[id(node)] = ahead.get(id(node), 0) + count
                room -= count
                if count < todo:
                    return planned
            todo = row.own - row.done
            if (todo + row.tail > room and (todo + row.tail <= limit or room <= 0)) or not self._place_row(row):
                return planned
            whole = todo + row.tail <= room or todo == 1
            count = todo if whole else min(room, todo - 1)
            planned.append(Planned(row, row, count, last=whole))
            room -= count + (row.tail if whole else 0)
            if not whole:
                return planned
        return planned

    def _segment(self, item: Planned) -> Segment:
        work, done = item.work, item.work.done
        if isinstance(work, Node):
            above = [] if work.parent is None else work.parent.path()
            start, tokens, slot = work.start, work.tokens, work.slot
        else:
            above = [] if work.parent is None else work.parent.path()
            start, tokens, slot = work.start, work.tokens[work.start :], self._slot(work)
        dense = [node for node in above if node.dense]
        return Segment(
            tokens=tokens[done : done + item.count],
            position=start + done,
            slot=slot + done,
            past=done,
            short=tuple((node.slot, node.length) for node in above if not node.dense),
            dense_parent=dense[-1] if dense else None,
            labels=work.labels if isinstance(work, Row) and item.last else None,
            output=item.last,
        )

    def _slot(self, row: Row) -> int:
        if id(row) in self._blocks:
            return self._blocks[id(row)].start
        slab, lane = self._lanes[id(row)]
        return slab.slot(lane) + row.start - row.dense_end

    def _place_node(self, node: Node) -> bool:
        if node.resident is None and node.block is None:
            node.block = self._allocate(node.length)
        return node.resident is not None or node.block is not None

    def _place_row(self, row: Row) -> bool:
        if id(row) in self._blocks or id(row) in self._lanes:
            return True
        if not row.decodes:
            block = self._allocate(row.own + row.tail)
            if block is None:
                return False
            self._blocks[id(row)] = block
        else:
            slab = next((slab for slab in self.slabs if slab.fits(row)), None) or self._new_slab(row)
            if slab is None:
                return False
            self._lanes[id(row)] = (slab, slab.reserve(row))
        row.admitted_at = perf_counter()
        for node in [] if row.parent is None else row.parent.path():
            node.readers += 1
        return True

    def _new_slab(self, row: Row) -> Slab | None:
        """A slab for this row and those that wait behind it."""
        free = self._max_rows - sum(slab.taken for slab in self.slabs)
        if free <= 0 or (self.slabs and free < min(_MIN_LANES, self._max_rows)):
            return None
        ahead = islice(dropwhile(lambda other: other is not row, self.waiting), free)
        behind = [other for other in ahead if other.decodes and other.lane <= row.lane]
        lanes = max(1, len(behind))
        while (block := self._allocate(lanes * row.lane)) is None:
            if lanes == 1:
                return None
            lanes //= 2
        slab = Slab(block, lanes, row.lane)
        self.slabs.append(slab)
        return slab

    def _leave(self, nodes: Sequence[Node], *, placed: bool) -> None:
        """A row needs these nodes no more; `placed`: it was counted among their readers."""
        for node in nodes:
            node.waiting -= 1
            node.readers -= placed
            if node.waiting:
                continue
            if node.resident is not None:
                node.resident.users -= 1
            elif node.block is not None:
                self._free(node.block)
            node.block = None

    def _allocate(self, length: int) -> Block | None:
        block = self._pool.allocate(length) if self._used + length <= self._quota else None
        if block is not None:
            self._used += length
        return block

    def _free(self, block: Block) -> None:
        self._used -= block.length
        self._pool.free(block)


def _index(parts: list[NDArray[np.int64]]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts))
