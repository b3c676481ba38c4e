"""What the rows of a run hold of the KV cache: everything a row will ever need, taken when it is admitted."""

from collections.abc import Iterable, Sequence
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from dql.executor.block_pool import Block, BlockPool
from dql.executor.prefix_tree import Node
from dql.executor.rows import Row, size_class
from dql.executor.slab import Slab

_MIN_LANES = 8  # a new slab with fewer lanes waits for others to finish, unless it is all there is


class Admission:
    """Slots of one run: nodes have blocks; rows have blocks too, or lanes of slabs where they decode."""

    def __init__(self, pool: BlockPool, *, max_rows: int, quota: int, invariant: bool = False) -> None:
        """At most `max_rows` lanes taken at once, and `quota` slots of the pool; invariant: see Resident."""
        self.slabs: list[Slab] = []
        self.max_rows = max_rows
        self._pool = pool
        self._quota = quota
        self._invariant = invariant
        self._used = 0
        self._nodes: list[Node] = []
        self._blocks: dict[int, Block] = {}  # by id of rows that do not decode
        self._lanes: dict[int, tuple[Slab, int]] = {}  # by id of rows that decode

    @property
    def full(self) -> bool:
        """Whether as many rows hold lanes as may."""
        return sum(slab.taken for slab in self.slabs) >= self.max_rows

    def add(self, nodes: Sequence[Node]) -> None:
        """Take note of a window's shared runs, which its rows will want."""
        self._nodes = [node for node in self._nodes if node.waiting]
        self._nodes.extend(nodes)
        for node in nodes:
            if node.resident is not None:
                node.resident.users += 1
                self._pool.touch(node.resident)

    def place_node(self, node: Node) -> bool:
        """See that a shared run has slots; False where there are none."""
        if node.resident is None and node.block is None:
            node.block = self._allocate(node.length)
        return node.resident is not None or node.block is not None

    def place_row(self, row: Row, behind: Iterable[Row]) -> bool:
        """See that a row has all its slots; False where there are none. `behind`: rows that may share a new slab."""
        if self._placed(row):
            return True
        if row.decodes:
            if self.full:
                return False
            slab = next((slab for slab in self.slabs if slab.fits(row)), None) or self._new_slab(row, behind)
            if slab is None:
                return False
            self._lanes[id(row)] = (slab, slab.reserve(row))
        else:
            block = self._allocate(row.own + row.tail)
            if block is None:
                return False
            self._blocks[id(row)] = block
        row.admitted_at = perf_counter()
        for node in row.path():
            node.readers += 1
        return True

    def slot(self, row: Row) -> int:
        """The slot of a row's first own token."""
        if id(row) in self._blocks:
            return self._blocks[id(row)].start
        slab, lane = self._lanes[id(row)]
        return slab.slot(lane) + row.start - row.dense_end

    def lane(self, row: Row) -> tuple[Slab, int]:
        """Where a row decodes."""
        return self._lanes[id(row)]

    def fill_lanes(self, rows: Sequence[Row]) -> None:
        """Copy the short shared runs above these rows into their lanes, which then hold all but the dense runs.

        May be done again: it changes nothing but the lanes' slots.
        """
        sources, targets = [], []
        for row in rows:
            slab, lane = self.lane(row)
            target = slab.slot(lane)
            for node in row.short_nodes():
                sources.append(node.slot + np.arange(node.length))
                targets.append(target + np.arange(node.length))
                target += node.length
        self._copy(sources, targets)

    def start_decoding(self, rows: Sequence[Row]) -> None:
        """These rows, whose lanes are filled, need the short shared runs above them no more."""
        for row in rows:
            self._leave(row.short_nodes(), placed=True)

    def compact(self) -> None:
        """Bring the rows of slabs that have thinned out together."""
        sources, targets = [], []
        moves = [(slab, slab.moves()) for slab in self.slabs]
        for slab, pairs in moves:
            for source, target in pairs:
                filled = np.arange(slab.filled[source])
                sources.append(slab.slot(source) + filled)
                targets.append(slab.slot(target) + filled)
        self._copy(sources, targets)  # may run out of memory, and then nothing has moved
        for slab, pairs in moves:
            for source, target in pairs:
                row = slab.rows[source]
                slab.move(source, target)
                self._lanes[id(row)] = (slab, target)

    def node_stored(self, node: Node) -> None:
        """Hand a dense run that prompts begin with over to the pool once it is computed, for windows to come."""
        if node.parent is None and node.dense and node.block is not None and node.done == node.length:
            self._used -= node.block.length
            node.resident = self._pool.keep(node.tokens, node.block, invariant=self._invariant, precise=node.precise)
            node.block = None

    def release(self, row: Row) -> None:
        """The row is done, or given up: free all it holds."""
        placed, path = self._placed(row), row.path()
        if id(row) in self._blocks:
            self._free(self._blocks.pop(id(row)))
        if id(row) in self._lanes:
            slab, lane = self._lanes.pop(id(row))
            if slab.live[lane]:
                path = [node for node in path if node.dense]  # it left the short ones when it started to decode
            slab.release(lane)
            if not slab.taken:
                self.slabs.remove(slab)
                self._free(slab.block)
        self._leave(path, placed=placed)

    def drop_nodes(self, row: Row) -> bool:
        """Forget computed nodes that nothing reads and `row` does not need; False where there are none."""
        kept = {id(node) for node in row.path()}
        idle = [node for node in self._nodes if node.waiting and not node.readers and id(node) not in kept]
        return sum(self._drop(node) for node in idle) > 0

    def _new_slab(self, row: Row, behind: Iterable[Row]) -> Slab | None:
        free = self.max_rows - sum(slab.taken for slab in self.slabs)
        if free <= 0 or (self.slabs and free < min(_MIN_LANES, self.max_rows)):
            return None
        alike = [other for _, other in zip(range(free - 1), behind, strict=False) if other.decodes]
        width = max(other.lane for other in (row, *alike) if size_class(other.lane) == size_class(row.lane))
        lanes = 1 + sum(other.lane <= width for other in alike)
        while (block := self._allocate(lanes * width)) is None:
            if lanes == 1 and width == row.lane:
                return None
            lanes, width = max(1, lanes // 2), row.lane  # memory is short: for rows like this one
        slab = Slab(block, lanes, width)
        self.slabs.append(slab)
        return slab

    def _placed(self, row: Row) -> bool:
        return id(row) in self._blocks or id(row) in self._lanes

    def _leave(self, nodes: Sequence[Node], *, placed: bool) -> None:
        """A row needs these nodes no more; `placed`: it was counted among their readers."""
        for node in nodes:
            node.waiting -= 1
            node.readers -= placed
            if not node.waiting:
                self._drop(node)

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

    def _copy(self, sources: list[NDArray[np.int64]], targets: list[NDArray[np.int64]]) -> None:
        if sources:
            self._pool.copy(np.concatenate(sources), np.concatenate(targets))

    def _allocate(self, length: int) -> Block | None:
        block = self._pool.allocate(length) if self._used + length <= self._quota else None
        if block is not None:
            self._used += length
        return block

    def _free(self, block: Block) -> None:
        self._used -= block.length
        self._pool.free(block)
