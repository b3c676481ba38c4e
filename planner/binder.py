"""Statement → logical plan: queries with inference are cut where inference begins and ends; the rest stays DuckDB's."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from dql.errors import BindError, DqlError, UnsupportedError
from dql.grammar import ast
from dql.grammar.parser import parse_type
from dql.grammar.unparse import to_sql
from dql.grammar.walk import children as ast_children
from dql.grammar.walk import transform, walk
from dql.planner.block import Block, Items
from dql.planner.calls import is_inference
from dql.planner.conditions import check_types
from dql.planner.environment import Environment
from dql.planner.guards import has_inference
from dql.planner.islands import bind_tables, is_structured, islands, ready
from dql.planner.logical import LogicalPlan, Scan, terms
from dql.planner.lookup import Rows
from dql.planner.places import placed
from dql.planner.prepare import blamed, typed
from dql.planner.scope import Fields, Known, PlanScope, Scope, alone, describe, inputs_of, with_ctes
from dql.planner.sugar import desugar
from dql.planner.using import using


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query's plan with the names and types of its result."""

    plan: LogicalPlan
    fields: Fields


@dataclass(frozen=True, slots=True)
class _View(ast.QueryBody):
    """The query of a view where its name stood: the CTEs around it are not its own."""

    name: str
    query: ast.Query


def bind(query: ast.Query, env: Environment) -> BoundQuery:
    """Bind a whole query. Raises BindError, PlanError or UnsupportedError with the place to blame."""
    plan, fields = bind_query(query, env)
    return BoundQuery(plan, fields)


def bind_query(query: ast.Query, env: Environment) -> tuple[LogicalPlan, Fields]:
    """Plan and fields of a query at any depth."""
    if isinstance(query.body, _View):
        return bind_query(query.body.query, env.inside_view(query.body.name))
    query = _inline(query, {name: ast.Query(_View(name, view)) for name, view in env.views.items()})
    if query.using is not None:
        env = using(query.using, env)
    query, env = _bind_ctes(query, env)
    body = query.body
    if isinstance(body, ast.VerbQuery):
        body = desugar(body)
    elif isinstance(body, ast.Values) and _infers(body, env):
        body = _as_union(body)
    if isinstance(body, ast.Select):
        return _bind_select(body, query, env)
    if isinstance(body, ast.NestedQuery) and not (query.order_by or query.limit or query.offset):
        return bind_query(body.query, env)
    return _bind_sql(query, body, env)


def _bind_ctes(query: ast.Query, env: Environment) -> tuple[ast.Query, Environment]:
    """The query without its WITH, in an environment that knows what it names."""
    if query.recursive and (inferring := [cte for cte in query.ctes if is_structured(cte.query)]):
        hint = "infer over its result: WITH RECURSIVE … SELECT AI_GENERATE(…) FROM it"
        raise UnsupportedError("inference in a recursive CTE does not run", span=inferring[0].span, hint=hint)
    for cte in query.ctes:
        if is_structured(cte.query) and _used_once(query, cte):
            query = _inline(query, {cte.name.lower(): cte.query})
        else:
            found = replace(cte, query=islands(cte.query, env, bind_query))
            env = env.with_ctes((found,), query.recursive)
    return query, env


def _inline(query: ast.Query, sources: Mapping[str, ast.Query]) -> ast.Query:
    """`query` with the tables of these names replaced by their queries."""

    def visit(node: ast.Node) -> ast.Node:
        if not isinstance(node, ast.TableRef) or node.name[-1].lower() not in sources:
            return node
        found, alias = sources[node.name[-1].lower()], node.alias or node.name[-1]
        if isinstance(found.body, _View):
            found = blamed(found, node.span)
        return ast.DerivedTable(query=found, alias=alias, columns=node.columns, sample=node.sample, span=node.span)

    found = transform(query, visit)
    assert isinstance(found, ast.Query)
    return found


def _used_once(query: ast.Query, cte: ast.Cte) -> bool:
    """Whether a CTE is read in one place, one that is parsed: it can then be read as a stream."""
    nodes = list(walk(query))
    named = [n for n in nodes if isinstance(n, ast.TableRef) and n.name[-1].lower() == cte.name.lower()]
    word = re.compile(rf"\b{re.escape(cte.name)}\b", re.IGNORECASE)
    in_text = any(isinstance(n, ast.Island) and word.search(n.text) for n in nodes)
    return len(named) == 1 and not in_text and not cte.columns and not cte.materialized


def _bind_sql(query: ast.Query, body: ast.QueryBody, env: Environment) -> tuple[LogicalPlan, Fields]:
    """A query whose own clauses are DuckDB's; queries inside it that hold inference become tables."""
    if any(_infers(node, env) for node in (*query.order_by, query.limit, query.offset) if node is not None):
        table = ast.DerivedTable(query=ast.Query(body, span=query.span), alias=None)
        return _bind_select(ast.Select(items=(ast.SelectItem(ast.Star()),), from_=(table,)), query, env)
    if isinstance(body, ast.SetOperation):
        body = replace(body, branches=tuple(_branch(branch, env) for branch in body.branches))
    plain = ast.Query(body, order_by=query.order_by, limit=query.limit, offset=query.offset, span=query.span)
    if not isinstance(body, ast.Island):
        plain = replace(plain, body=islands(body, env, bind_query))
    return scan_sql(with_ctes(env, to_sql(plain)), env)


def scan_sql(sql: str, env: Environment, label: str = "") -> tuple[LogicalPlan, Fields]:
    """A plan that is one DuckDB query."""
    fields = describe(env, sql)
    outputs = tuple(env.new_column(f.name, f.type) for f in fields)
    aliases = ", ".join(f'"{c.name}"' for c in outputs)
    shown = label or " ".join(sql.split())
    return Scan(outputs, f"SELECT * FROM ({sql}) AS dql_scan({aliases})", inputs_of(sql, env), shown), fields


def _as_union(values: ast.Values) -> ast.QueryBody:
    """VALUES as a SELECT per row."""
    rows: list[ast.QueryBody] = [
        ast.Select(items=tuple(ast.SelectItem(e, f"col{i}") for i, e in enumerate(row.items)), span=row.span)
        for row in values.rows
    ]
    return rows[0] if len(rows) == 1 else ast.SetOperation(tuple(rows), ("UNION ALL",) * (len(rows) - 1))


def _branch(branch: ast.QueryBody, env: Environment) -> ast.QueryBody:
    """A branch of a set operation; one with inference becomes a query of its own."""
    if isinstance(branch, ast.SetOperation):
        return replace(branch, branches=tuple(_branch(b, env) for b in branch.branches))
    if isinstance(branch, ast.Values) and _infers(branch, env):
        branch = _as_union(branch)
    if isinstance(branch, ast.VerbQuery) or (isinstance(branch, ast.Select) and _holds_inference(branch, env)):
        return ast.NestedQuery(islands(ast.Query(branch, span=branch.span), env, bind_query))
    return branch


def _bind_select(select: ast.Select, query: ast.Query, env: Environment) -> tuple[LogicalPlan, Fields]:
    written = select
    select = replace(select, items=tuple(_named(item, env) for item in select.items))
    scope: Scope | PlanScope | None = _plan_scope(select, query, env)
    if scope is None:
        select = bind_tables(select, env, bind_query)
        scope = Scope(env, select.from_, select.sample, written.from_)
    outer = _rows(select, scope, env)
    query = replace(query, order_by=tuple(ready(item, env, bind_query, outer) for item in query.order_by))
    select = ready(replace(select, from_=(), sample=None), env, bind_query, outer)
    check_types(select)
    fields = _fields(select, query, scope, env, written)
    items: Items = []
    for item in select.items:
        if isinstance(item.expr, ast.Star) and has_inference(item.expr):
            items += _replaced(item.expr, scope)
        elif isinstance(item.expr, ast.Star) or _is_columns(item.expr):
            items += [(name, Known(column.ref)) for name, column in scope.star(item.expr)]
        else:
            items.append((item.alias or "", item.expr))
    if len(fields) != len(items):
        hint = "name the fields that you want: (…).value, (…).confidence"
        span = next((e.span for _, e in items if isinstance(e, ast.Call) and e.name[-1].lower() == "unnest"), None)
        raise UnsupportedError("unnest of a struct does not run beside inference", span=span, hint=hint)
    named = [(f.name, expr) for f, (_, expr) in zip(fields, items, strict=True)]
    return Block(env, scope, select, query, named).bind(), fields


def _replaced(star: ast.Star, scope: Scope | PlanScope) -> Items:
    """The columns of `* REPLACE (… AS name)` with inference in it."""
    new = {item.alias.lower(): item.expr for item in star.replace if item.alias and isinstance(item.expr, ast.Expr)}
    columns = scope.star(replace(star, replace=()))
    return [(name, new.get(name.lower(), Known(column.ref))) for name, column in columns]


def _is_columns(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.Call) and expr.name[-1].lower() == "columns"


def _rows(select: ast.Select, scope: Scope | PlanScope, env: Environment) -> Rows | None:
    """What the block's subqueries may read: its rows, those that plain terms of WHERE rule out left out."""
    if not isinstance(scope, Scope) or not scope.tables:
        return None
    rows = Rows(scope.tables)
    for term in terms(select.where) if select.where is not None else ():
        if not _holds_inference(term, env) and not has_inference(term) and scope.can_read(term):
            rows = replace(rows, where=(*rows.where, term))
    return rows


def _named(item: ast.SelectItem, env: Environment) -> ast.SelectItem:
    """A nameless item with inference is called after its text, as DuckDB calls a column."""
    if item.alias is not None or isinstance(item.expr, ast.Star) or not _holds_inference(item.expr, env):
        return item
    return replace(item, alias=to_sql(item.expr))


def _plan_scope(select: ast.Select, query: ast.Query, env: Environment) -> PlanScope | None:
    """The columns of one query with inference that is the only source: it streams, unless a subquery must see it."""
    if len(select.from_) != 1 or not isinstance(table := select.from_[0], ast.DerivedTable):
        return None
    if table.sample or table.lateral or select.sample or not is_structured(table.query):
        return None
    parts = (*_clauses(select), *query.order_by)
    if any(_needs_sql(n, env) for part in parts for n in walk(part)):
        return None
    plan, fields = bind_query(table.query, env)
    if len(table.columns) > len(fields):
        what = f"{table.alias} has {len(table.columns)} names for {len(fields)} columns"
        raise BindError(what, span=table.span)
    names = (*table.columns, *(f.name for f in fields[len(table.columns) :]))
    return PlanScope(env, table.alias, plan, names, [f.type for f in fields])


def _clauses(select: ast.Select) -> Iterator[ast.Node]:
    """The clauses of a block but FROM."""
    for part in ast_children(select):
        if not isinstance(part, ast.Table):
            yield part


def _needs_sql(node: ast.Node, env: Environment) -> bool:
    """Whether only DuckDB can tell what a part of a block means over its FROM."""
    if isinstance(node, ast.Query):
        return is_structured(node) or alone(node, env) is None
    return (isinstance(node, ast.Star) and bool(node.replace or node.rename or node.like)) or (
        isinstance(node, ast.Expr) and _is_columns(node)
    )


def _fields(
    select: ast.Select, query: ast.Query, scope: Scope | PlanScope, env: Environment, written: ast.Select
) -> Fields:
    """Names and types of the output, as DuckDB sees the block with every call a NULL of its type."""
    shown = _plain_windows(typed(replace(select, from_=scope.tables)), scope)
    try:
        return describe(env, with_ctes(env, to_sql(ast.Query(shown, span=query.span))))
    except DqlError as error:
        raise placed(error, written, scope.known_or_none, env) from error


def _plain_windows(select: ast.Select, scope: Scope | PlanScope) -> ast.Select:
    """`select` with NULLs for subqueries in windows: DuckDB refuses some there, which the plan computes below."""

    def as_null(node: ast.Node) -> ast.Node:
        if not isinstance(node, ast.Subquery) or not isinstance(scope, Scope):
            return node
        return ast.Cast(ast.Constant("NULL"), parse_type(scope.describe(to_sql(node))[0][1]))

    def visit(node: ast.Node) -> ast.Node:
        return transform(node, as_null) if isinstance(node, ast.WindowSpec) else node

    return transform(select, visit)  # type: ignore[return-value]


def _holds_inference(node: ast.Node, env: Environment) -> bool:
    """Whether inference stands in a block or in any query below it."""
    return any(
        is_inference(n, env) or isinstance(n, ast.VerbQuery) or (isinstance(n, ast.Query) and is_structured(n))
        for n in walk(node)
    )


def _infers(node: ast.Node, env: Environment) -> bool:
    return any(is_inference(n, env) for n in walk(node))
