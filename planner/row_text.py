"""Holes that stand for several columns: `{*}` and `{t.*}`, one `name: value` line per column.

Nobody asked for an order of those lines, so the planner takes the one in which most prompts begin alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dql.grammar import ast
from dql.grammar.walk import transform

SAMPLE_ROWS = 2000  # of the table, that say which order shares most


@dataclass(frozen=True, slots=True)
class RowText(ast.Expr):
    """Named values as lines of text, NULLs left out. `best`: the places of the values in the order that shares most."""

    names: tuple[str, ...]
    values: tuple[ast.Expr, ...]
    best: tuple[int, ...] = ()

    @property
    def text(self) -> ast.Expr:
        """The lines as SQL."""
        lines = (
            ast.Operation((ast.String(f"{name}: "), ast.Cast(value, ast.TypeName(("VARCHAR",)))), ("||",))
            for name, value in zip(self.names, self.values, strict=True)
        )
        return ast.Call(("concat_ws",), (ast.String("\n"), *lines))


def as_text(expr: ast.Expr) -> ast.Expr:
    """`expr` with all `RowText` as SQL."""
    found = transform(expr, lambda node: node.text if isinstance(node, RowText) else node)
    assert isinstance(found, ast.Expr)
    return found


def sharing_order(rows: Sequence[Sequence[str | None]]) -> tuple[int, ...]:
    """The order of the columns of a sample in which the rows, one behind the other, begin alike for most characters.

    Greedy: next comes the column that adds most shared text to what is shared already, so that a column which the ones
    before determine follows them (Liu et al. 2025, "Optimizing LLM Queries in Relational Data Analytics Workloads").
    """
    columns = [np.array([value or "" for value in column]) for column in zip(*rows, strict=True)]
    codes = [np.unique(column, return_inverse=True)[1].astype(np.int64) for column in columns]
    lengths = [np.char.str_len(column) for column in columns]
    order: list[int] = []
    prefix: NDArray[np.int64] = np.zeros(len(rows), np.int64)
    while len(order) < len(columns):
        left = [place for place in range(len(columns)) if place not in order]
        best, saved = left[0], -1
        for place in left:
            _, first = np.unique(prefix * len(rows) + codes[place], return_index=True)
            if (found := int(lengths[place].sum() - lengths[place][first].sum())) > saved:
                best, saved = place, found
        order.append(best)
        prefix = np.unique(prefix * len(rows) + codes[best], return_inverse=True)[1].astype(np.int64)
    return tuple(order)
