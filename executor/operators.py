"""Operators: pull-based, Arrow batches in, Arrow batches out, each with a schema even when it has no rows.

Answers of the engine meet SQL again here: row-wise SQL batch by batch, anything else over a whole scratch table.
"""

from collections.abc import Generator, Iterator
from typing import Protocol

import pyarrow as pa

from dql.catalog import behind
from dql.executor.context import Context
from dql.executor.infer import infer
from dql.executor.sift import sift
from dql.planner.physical import FragmentExec, InferExec, LimitExec, MapExec, PhysicalPlan, SiftExec

SCAN_ROWS = 2048  # rows of a batch read from DuckDB, its own vector size

Batches = Generator[pa.RecordBatch, None, None]


class Operator(Protocol):
    """Runs one node. Yields at least one batch, perhaps empty; closing it stops everything below."""

    def __call__(self, context: Context) -> Batches: ...


def execute(plan: PhysicalPlan, context: Context) -> Batches:
    """Run a plan: its batches in order."""
    match plan:
        case FragmentExec():
            return fragment(plan, context)
        case MapExec():
            return map_batches(plan, context)
        case InferExec():
            return infer(plan, execute(plan.child, context), context)
        case SiftExec():
            return sift(plan, execute(plan.child, context), context)
        case LimitExec():
            return limit(plan, context)
    raise TypeError(f"no such node: {type(plan).__name__}")


def fragment(plan: FragmentExec, context: Context) -> Batches:
    """Keep every input in a scratch table, once per query, then stream the SQL over them."""
    for name, child in plan.inputs:
        if name not in context.tables:
            context.tables[name] = context.catalog.materialise(_whole(execute(child, context), context))
    tables = {name: f"FROM {context.tables[name]}" for name, _ in plan.inputs}
    yield from context.catalog.stream(behind(tables, plan.sql), SCAN_ROWS, context.params)


def map_batches(plan: MapExec, context: Context) -> Batches:
    """Run row-wise SQL over each batch."""
    below = execute(plan.child, context)
    first = True
    try:
        for batch in below:
            for mapped in context.catalog.map_batch(plan.sql, plan.name, batch, context.params):
                if mapped.num_rows or first:
                    yield mapped
                    first = False
    finally:
        below.close()


def limit(plan: LimitExec, context: Context) -> Batches:
    """Pass rows until there are enough, then stop the plan below."""
    below = execute(plan.child, context)
    skip, left = plan.offset, plan.limit
    try:
        for number, batch in enumerate(below):
            kept = batch.slice(min(skip, batch.num_rows), left)
            skip -= min(skip, batch.num_rows)
            left = None if left is None else left - kept.num_rows
            if kept.num_rows or number == 0:
                yield kept
            if left == 0:
                return
    finally:
        below.close()


def _whole(batches: Iterator[pa.RecordBatch], context: Context) -> Iterator[pa.RecordBatch]:
    """Batches of an input that must be complete: a part of it would make a wrong answer, not a partial one."""
    yield from batches
    if context.cancelled.is_set():
        raise KeyboardInterrupt
