"""Inference in the ON of joins: a filter behind inner joins, a look-up in the others."""

from collections.abc import Sequence
from dataclasses import replace

from dql.errors import UnsupportedError
from dql.grammar import ast
from dql.planner.environment import Environment
from dql.planner.guards import has_inference
from dql.planner.logical import conjunction, terms
from dql.planner.lookup import Rows, by_lookup


def joins_as_filters(select: ast.Select) -> ast.Select:
    """Inference in the ON of inner joins moved to WHERE, where it means the same."""
    moved: list[ast.Expr] = []
    tables = tuple(_as_filters(t, moved) if isinstance(t, ast.JoinChain) else t for t in select.from_)
    if not moved:
        return select
    where = (select.where,) if select.where is not None else ()
    return replace(select, from_=tables, where=conjunction((*moved, *where)))


def _as_filters(chain: ast.JoinChain, moved: list[ast.Expr]) -> ast.JoinChain:
    joins: list[ast.Join] = []
    for i, join in enumerate(chain.joins):
        later = {j.kind.split()[-1] for j in chain.joins[i + 1 :]}
        calls = [t for t in _terms(join) if has_inference(t)]
        if calls and join.kind == "INNER" and not later & {"RIGHT", "FULL"}:
            moved += calls
            rest = tuple(t for t in _terms(join) if t not in calls)
            join = replace(join, on=conjunction(rest), kind="INNER" if rest else "CROSS")
        joins.append(join)
    return replace(chain, joins=tuple(joins))


def joins_by_lookup(select: ast.Select, env: Environment, outer: Rows | None = None) -> ast.Select:
    """Inference that is left in the ON of joins as look-ups. `outer` are the rows around the block."""
    done: list[ast.Table] = []
    for table in select.from_:
        done.append(_by_lookup(table, done, env, outer) if isinstance(table, ast.JoinChain) else table)
    return replace(select, from_=tuple(done))


def _by_lookup(
    chain: ast.JoinChain, before: Sequence[ast.Table], env: Environment, outer: Rows | None
) -> ast.JoinChain:
    done: list[ast.Join] = []
    for join in chain.joins:
        calls = [t for t in _terms(join) if has_inference(t)]
        if calls and join.kind.split()[0] in ("ASOF", "NATURAL", "POSITIONAL"):
            hint = "filter in a subquery first"
            raise UnsupportedError(f"inference in the ON of {join.kind} does not run", span=calls[0].span, hint=hint)
        known = [t for t in _terms(join) if t not in calls]
        for term in calls:  # asked of the pairs that the terms before it leave
            pairs = ast.Join("INNER" if known else "CROSS", join.table, on=conjunction(known))
            rows = Rows((*before, replace(chain, joins=(*done, pairs))), (), outer)
            known.append(by_lookup(term, rows.select, env))
        done.append(replace(join, on=conjunction(known)) if calls else join)
    return replace(chain, joins=tuple(done))


def _terms(join: ast.Join) -> tuple[ast.Expr, ...]:
    return terms(join.on) if join.on is not None else ()
