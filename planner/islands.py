"""Queries with inference inside expressions and FROM: tables that DuckDB reads, each a plan of its own.

One that reads the row around it cannot be a plan of its own: it stays DuckDB's, and its calls become look-ups.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from dql.catalog import quote_name
from dql.errors import BindError, UnsupportedError
from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.grammar.walk import children, transform, walk, with_children
from dql.planner.calls import is_aggregate
from dql.planner.environment import Environment
from dql.planner.guards import has_inference
from dql.planner.joins import joins_as_filters, joins_by_lookup
from dql.planner.logical import LogicalPlan, conjunction, terms
from dql.planner.lookup import Items, Rows, Source, by_lookup
from dql.planner.prepare import prepare, typed
from dql.planner.scope import Fields, describe, with_ctes
from dql.planner.sugar import desugar

N = TypeVar("N", bound=ast.Node)
Bind = Callable[[ast.Query, Environment], tuple[LogicalPlan, Fields]]


def ready(node: N, env: Environment, bind: Bind, outer: Rows | None = None) -> N:
    """`node` with its queries that hold inference as tables and its calls marked, holes included.

    `outer` are the rows that a query in it may read.
    """

    def below(part: ast.Expr) -> ast.Expr:
        return islands(part, env, bind, outer)

    return prepare(islands(node, env, bind, outer), env, below)  # type: ignore[return-value]


def islands(node: N, env: Environment, bind: Bind, outer: Rows | None = None) -> N:
    """`node` with every query below it that holds inference replaced by one that DuckDB can run."""

    def visit(current: ast.Node) -> ast.Node:
        if isinstance(current, ast.Exists) and is_structured(current.query):
            return replace(current, query=_island(current.query, env, bind, outer, rows=1))
        if isinstance(current, ast.Query):
            return _island(current, env, bind, outer) if is_structured(current) else current
        return with_children(current, [visit(child) for child in children(current)])

    return visit(node)  # type: ignore[return-value]


def is_structured(query: ast.Query) -> bool:
    """Whether a query was parsed; what holds no inference is left as text."""
    return not isinstance(query.body, ast.Island) or bool(query.ctes)


def bind_tables(select: ast.Select, env: Environment, bind: Bind, outer: Rows | None = None) -> ast.Select:
    """A block whose FROM DuckDB can read; inference in the ON of inner joins has gone to its WHERE."""
    done: list[ast.Table] = []
    for table in select.from_:
        done.append(_table(table, done, env, bind, outer))
    return joins_by_lookup(joins_as_filters(replace(select, from_=tuple(done))), env, outer)


def _table(table: ast.Table, before: list[ast.Table], env: Environment, bind: Bind, outer: Rows | None) -> ast.Table:
    """One table; a query in it may read the tables before it."""
    if not isinstance(table, ast.JoinChain):
        return ready(table, env, bind, Rows(tuple(before), (), outer) if before else outer)
    chain = replace(table, first=_table(table.first, before, env, bind, outer), joins=())
    for join in table.joins:
        joined = _table(join.table, [*before, chain], env, bind, outer)
        pairs = replace(chain, joins=(*chain.joins, ast.Join("CROSS", joined)))
        on = ready(join.on, env, bind, Rows((*before, pairs), (), outer)) if join.on is not None else None
        chain = replace(chain, joins=(*chain.joins, replace(join, table=joined, on=on)))
    return chain


def _island(query: ast.Query, env: Environment, bind: Bind, outer: Rows | None, rows: int | None = None) -> ast.Query:
    """`query` as one that reads a plan. `rows`: how many of its rows are looked at, where not all are."""
    kept = set(env.plans)
    try:
        plan, fields = bind(query if rows is None else _first(query, rows), env)
    except BindError as error:
        if outer is None:
            raise
        for name in env.plans.keys() - kept:
            del env.plans[name]
        try:
            return _correlated(query, env, bind, outer)
        except BindError:
            raise error from None
    table = env.keep_plan(plan, tuple(f.type for f in fields))
    named = zip(plan.columns, fields, strict=True)
    columns = ", ".join(f"{quote_name(c.name)} AS {quote_name(f.name)}" for c, f in named)
    return ast.Query(ast.Island(f"SELECT {columns} FROM {table}"), span=query.span)


def _first(query: ast.Query, rows: int) -> ast.Query:
    """As many rows of a query, in any order, where it does not say how many itself."""
    return query if query.limit is not None else replace(query, order_by=(), limit=ast.Limit(ast.Number(str(rows))))


def _correlated(query: ast.Query, env: Environment, bind: Bind, outer: Rows) -> ast.Query:
    """A query that reads the rows around it, its calls as look-ups."""
    if query.using is not None:
        raise UnsupportedError("USING in a subquery that reads the row around it does not run", span=query.using.span)
    ctes = tuple(replace(cte, query=islands(cte.query, env, bind)) for cte in query.ctes)
    env = env.with_ctes(ctes)
    body = desugar(query.body) if isinstance(query.body, ast.VerbQuery) else query.body
    found = replace(query, ctes=ctes)
    if isinstance(body, ast.Select):
        found = _Correlated(env, bind, outer).query(body, found)
    elif isinstance(body, ast.SetOperation):
        branches = tuple(_correlated(ast.Query(branch), env, bind, outer) for branch in body.branches)
        found = replace(found, body=replace(body, branches=tuple(ast.NestedQuery(b) for b in branches)))
    else:
        found = replace(found, body=islands(body, env, bind, outer))
    text = to_sql(found)
    describe(env, with_ctes(env, Rows((), (), outer).within(text)))
    return ast.Query(ast.Island(text), span=query.span)


class _Correlated:
    """Rewrites one block that reads the rows around it, clause by clause as SQL gives them meaning."""

    def __init__(self, env: Environment, bind: Bind, outer: Rows) -> None:
        self._env = env
        self._bind = bind
        self._outer = outer

    def query(self, select: ast.Select, query: ast.Query) -> ast.Query:
        """`query` with the block `select`, no inference left in it."""
        env = self._env
        select = bind_tables(select, env, self._bind, self._outer)
        rows = Rows(select.from_, (), self._outer)
        select = replace(ready(replace(select, from_=()), env, self._bind, rows), from_=select.from_)
        order_by = tuple(ready(item, env, self._bind, rows) for item in query.order_by)
        for term in sorted(terms(select.where) if select.where is not None else (), key=has_inference):
            rows = replace(rows, where=(*rows.where, by_lookup(term, rows.select, env)))
        select = self._grouped(replace(select, where=conjunction(rows.where)), rows.select)
        order_by = tuple(self._in_aggregates(item, rows.select) for item in order_by)
        if select.having is not None:
            select = replace(select, having=by_lookup(select.having, self._groups(replace(select, having=None)), env))
        order_by = tuple(self._inside(item, self._groups(select)) for item in order_by)
        whole = replace(query, body=select, order_by=order_by)
        items = tuple(self._inside(item, self._groups(select, whole)) for item in select.items)
        return replace(whole, body=replace(select, items=items))

    def _grouped(self, select: ast.Select, source: Source) -> ast.Select:
        """Look-ups in what is evaluated for each row: grouping keys, arguments of aggregates."""
        parts = (*select.items, *select.windows, *((select.qualify,) if select.qualify is not None else ()))
        for node in (n for part in parts for n in walk(part)):
            if has_inference(node) and (isinstance(node, ast.NamedWindow | ast.WindowSpec) or node is select.qualify):
                hint = "move it into a subquery of its own"
                what = "a window or QUALIFY with inference does not run in a subquery that reads the row around it"
                raise UnsupportedError(what, span=node.span, hint=hint)
        keys = _keys(select, self._env)
        items = tuple(
            self._inside(item, source) if i in keys else self._in_aggregates(item, source)
            for i, item in enumerate(select.items)
        )
        group_by = self._inside(select.group_by, source) if select.group_by is not None else None
        having = self._in_aggregates(select.having, source) if select.having is not None else None
        return replace(select, items=items, group_by=group_by, having=having)

    def _groups(self, select: ast.Select, query: ast.Query | None = None) -> Source:
        """The rows of a select list: after grouping and, with `query`, after its LIMIT."""

        def source(items: Items, where: Sequence[ast.Expr]) -> str:
            shown = tuple(replace(item, expr=typed(item.expr)) for item in select.items)
            guard = ast.SelectItem(conjunction(where) or ast.Constant("TRUE"), "dql_guard")
            block = replace(select, items=(*shown, *items, guard))
            whole = replace(query, body=block, ctes=()) if query is not None else ast.Query(block)
            table = ast.DerivedTable(query=whole, alias="dql_i")
            names = tuple(ast.SelectItem(ast.Column((item.alias or "",))) for item in items)
            return Rows((table,), (ast.Column(("dql_guard",)),), self._outer).select(names)

        return source

    def _in_aggregates(self, node: N, source: Source) -> N:
        """`node` with the calls in the arguments of its aggregates as look-ups."""

        def visit(current: ast.Node) -> ast.Node:
            return self._inside(current, source) if is_aggregate(current, self._env) else current

        return transform(node, visit)  # type: ignore[return-value]

    def _inside(self, node: N, source: Source) -> N:
        """`node` with the calls in its operands as look-ups."""
        new = [
            by_lookup(child, source, self._env) if isinstance(child, ast.Expr) else self._inside(child, source)
            for child in children(node)
        ]
        return with_children(node, new)  # type: ignore[return-value]


def _keys(select: ast.Select, env: Environment) -> set[int]:
    """Numbers of the items that the block groups by."""
    if select.group_by is None:
        return set()
    if not select.group_by.items:
        return {i for i, item in enumerate(select.items) if not any(is_aggregate(n, env) for n in walk(item))}
    named = {n for n in walk(select.group_by) if isinstance(n, ast.Expr)}
    return {
        i
        for i, item in enumerate(select.items)
        if {item.expr, ast.Number(str(i + 1)), ast.Column((item.alias or "",))} & named
    }
