"""Which work runs in which step.

Lengths are known and new tokens bounded, so a row is admitted when everything it will ever need is free, what it shares
counted once, and nothing is preempted. A step mixes decoding rows with as many prompt tokens as its token budget leaves
room for.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from dql.executor.admission import Admission
from dql.executor.block_pool import BlockPool
from dql.executor.prefix_tree import Node
from dql.executor.rows import Row, Window
from dql.executor.speculate import Speculation
from dql.executor.step import LONG_RUN, Segment, Step, StepBuilder


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

    def __init__(
        self,
        pool: BlockPool,
        *,
        step_tokens: int,
        max_rows: int,
        quota: int,
        speculation: Speculation | None = None,
        invariant: bool = False,
    ) -> None:
        """At most `step_tokens` tokens a step, `max_rows` rows decoding at once, and `quota` slots of the pool.

        speculation: makes guesses where they pay. invariant: see Resident.
        """
        self.waiting: deque[Row] = deque()
        self.step_tokens = step_tokens
        self.held = Admission(pool, max_rows=max_rows, quota=quota, invariant=invariant)
        self.speculation = speculation

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do."""
        return not self.waiting and not self.held.slabs

    def resize(self, max_rows: int, step_tokens: int) -> None:
        """Sizes from the next step on. Rows that decode already go on."""
        self.step_tokens = step_tokens
        self.held.max_rows = max_rows

    def add(self, window: Window) -> None:
        """Queue a window's rows."""
        self.waiting.extend(window.rows)
        self.held.add(window.nodes)

    @property
    def depth(self) -> int:
        """How many guesses a row the next step tries; at 0 it may be planned before the last step is known."""
        rows = sum(len(slab.decoding) for slab in self.held.slabs)
        return self.speculation.depth(rows) if self.speculation is not None and rows else 0

    def plan(self) -> Plan | None:
        """The next step; None where the first waiting row cannot be admitted and nothing else is under way."""
        builder, depth, guessed = StepBuilder(), self.depth, False
        decoding = [(slab, lanes) for slab in self.held.slabs if len(lanes := slab.decoding)]
        planned = self._plan_prompts(self.step_tokens - sum(len(lanes) for _, lanes in decoding))
        for item in planned:
            builder.add_segment(self._segment(item))
        room = max(self.step_tokens - builder.size, 1)
        for slab, lanes in decoding:
            if room > 0:
                fits = depth and self.speculation and len(lanes) * (1 + depth) <= room
                guesses = self.speculation.guesses(slab, lanes, depth) if fits and self.speculation else None
                guessed |= guesses is not None
                before = builder.size
                builder.add_slab(slab, lanes[:room], guesses)
                room -= builder.size - before
        if self.speculation is not None and decoding:
            self.speculation.settle(tried=depth > 0, guessed=guessed)
        return Plan(builder.build(), planned) if builder.size else None

    def commit(self, plan: Plan) -> None:
        """Note that the plan's prompt tokens are stored; rows whose prompts are complete wait no more."""
        for item in plan.planned:
            item.work.done += item.count
            item.row.computed += item.count
            if isinstance(item.work, Node):
                self.held.node_stored(item.work)
            if item.last:
                self.waiting.popleft()

    def make_room(self) -> bool:
        """Nothing runs and the first waiting row does not fit: give up sharing for memory. False: nothing left to do.

        Computed nodes that only later rows need are dropped, to be computed again; then the row itself stops sharing,
        so that it takes its own tokens and no copies.
        """
        row = self.waiting[0]
        if self.held.drop_nodes(row):
            return True
        if row.parent is None:
            return False
        self.held.release(row)
        row.unshare()
        return True

    def drop_first(self) -> Row:
        """Take the first row out: a waiting one, or where none waits, one that decodes."""
        row = self.waiting.popleft() if self.waiting else next(filter(None, self.held.slabs[0].rows))
        self.held.release(row)
        return row

    def drop_overdue(self, since: float) -> list[Row]:
        """Take out the rows that were admitted before `since` and are not done."""
        rows = [row for row in self._unfinished() if 0 < row.admitted_at < since]
        overdue = {id(row) for row in rows}
        self.waiting = deque(row for row in self.waiting if id(row) not in overdue)
        for row in rows:
            self.held.release(row)
        return rows

    def give_up(self) -> list[Row]:
        """Free everything; returns the rows that were not done."""
        rows = self._unfinished()
        self.waiting.clear()
        for row in rows:
            self.held.release(row)
        return rows

    def _unfinished(self) -> list[Row]:
        rows = list(self.waiting)
        for slab in self.held.slabs:
            rows.extend(row for row, live in zip(slab.rows, slab.live, strict=True) if row is not None and live)
        return rows

    def _plan_prompts(self, room: int) -> list[Planned]:
        """Prompt tokens for at most `room` places, in the order of the queue. Short runs are never cut in two."""
        planned: list[Planned] = []
        ahead: dict[int, int] = {}  # tokens of nodes planned in this step
        for place, row in enumerate(self.waiting):
            for node in row.path():
                todo = node.length - node.done - ahead.get(id(node), 0)
                if todo == 0:
                    continue
                if not self._opens(todo, room, first=not planned) or not self.held.place_node(node):
                    return planned
                count = min(todo, room)
                planned.append(Planned(row, node, count))
                ahead[id(node)] = ahead.get(id(node), 0) + count
                room -= count
                if count < todo:
                    return planned
            todo = row.own - row.done
            if not self._opens(todo + row.tail, room, first=False):
                return planned
            if not self.held.place_row(row, islice(self.waiting, place + 1, None)):
                return planned
            whole = todo + row.tail <= room or todo == 1
            count = todo if whole else min(room, todo - 1)
            planned.append(Planned(row, row, count, last=whole))
            room -= count + row.tail
            if not whole:
                return planned
        return planned

    def _opens(self, todo: int, room: int, *, first: bool) -> bool:
        """Whether a run of `todo` tokens may start here: it fits, or is long enough to be cut, or is all there is."""
        return room > 0 and (todo <= room or todo > min(LONG_RUN, self.step_tokens) or first)

    def _segment(self, item: Planned) -> Segment:
        work, done, outputs = item.work, item.work.done, 0
        if isinstance(work, Node):
            above = work.path()[:-1]
            start, tokens, slot = work.start, work.tokens, work.slot
        else:
            above = work.path()
            start, tokens, slot = work.start, work.tokens[work.start :], self.held.slot(work)
            outputs = min(item.count, max(done + item.count - (work.own - work.outputs), 0))
        dense = [node for node in above if node.dense]
        position = start + done
        return Segment(
            tokens=tokens[done : done + item.count],
            position=position,
            slot=slot + done,
            past=done,
            short=tuple((node.slot, node.length) for node in above if not node.dense),
            dense_parent=dense[-1] if dense else None,
            labels=work.labels if isinstance(work, Row) and item.last else None,
            outputs=outputs,
            precise=min(max(item.row.task.precise - position, 0), item.count),
        )
