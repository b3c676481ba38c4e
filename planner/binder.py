"""Statement → logical plan: queries with inference are cut where inference begins and ends; the rest stays DuckDB's."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dql.errors import DqlError, UnsupportedError
from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.grammar.walk import children as ast_children
from dql.grammar.walk import transform, walk
from dql.planner.block import Block, Items
from dql.planner.calls import is_inference
from dql.planner.environment import Environment
from dql.planner.guards import has_inference
from dql.planner.logical import LogicalPlan, Scan, terms
from dql.planner.places import placed
from dql.planner.prepare import prepare, typed
from dql.planner.scope import Fields, Known, PlanScope, Scope, describe, inputs_of, islands, with_ctes
from dql.planner.sugar import desugar


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query's plan with the names and types of its result."""

    plan: LogicalPlan
    fields: Fields


def bind(query: ast.Query, env: Environment) -> BoundQuery:
    """Bind a whole query. Raises BindError, PlanError or UnsupportedError with the place to blame."""
    plan, fields = bind_query(query, env)
    return BoundQuery(plan, fields)


def bind_query(query: ast.Query, env: Environment) -> tuple[LogicalPlan, Fields]:
    """Plan and fields of a query at any depth."""
    query = inline(query, env.views)
    if query.using is not None:
        env = env.with_model(_model(query.using, env))
    if query.recursive and any(_is_structured(cte.query) for cte in query.ctes):
        raise UnsupportedError("inference in a recursive CTE does not run", span=query.ctes[0].span)
    for cte in query.ctes:
        if _is_structured(cte.query) and _used_once(query, cte):
            query = inline(query, {cte.name.lower(): cte.query})
        else:
            env = env.with_ctes((replace(cte, query=islands(cte.query, env, bind_query)),))
    body = query.body
    if isinstance(body, ast.VerbQuery):
        body = desugar(body)
    if isinstance(body, ast.Select):
        return _bind_select(body, query, env)
    if isinstance(body, ast.NestedQuery) and not (query.order_by or query.limit or query.offset):
        return bind_query(body.query, env)
    return _bind_sql(query, body, env)


def inline(query: ast.Query, sources: Mapping[str, ast.Query]) -> ast.Query:
    """`query` with the tables of these names replaced by their queries."""
    if not sources:
        return query

    def visit(node: ast.Node) -> ast.Node:
        if not isinstance(node, ast.TableRef) or node.name[-1].lower() not in sources:
            return node
        found, alias = sources[node.name[-1].lower()], node.alias or node.name[-1]
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
    return len(named) == 1 and not in_text and not cte.columns


def _is_structured(query: ast.Query) -> bool:
    return not isinstance(query.body, ast.Island)


def _bind_sql(query: ast.Query, body: ast.QueryBody, env: Environment) -> tuple[LogicalPlan, Fields]:
    """A query whose own clauses are DuckDB's; queries inside it that hold inference become tables."""
    if isinstance(body, ast.SetOperation):
        body = replace(body, branches=tuple(_branch(branch, env) for branch in body.branches))
    plain = ast.Query(body, order_by=query.order_by, limit=query.limit, offset=query.offset, span=query.span)
    tail = [*plain.order_by, *(n for n in (plain.limit, plain.offset) if n is not None)]
    if has_inference(prepare(body, env)) or any(has_inference(prepare(n, env)) for n in tail):
        hint = "wrap the query: SELECT … FROM (…) and put the inference there"
        raise UnsupportedError("inference beside a set operation or VALUES does not run", span=query.span, hint=hint)
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


def _branch(branch: ast.QueryBody, env: Environment) -> ast.QueryBody:
    """A branch of a set operation; one with inference becomes a query of its own."""
    if isinstance(branch, ast.SetOperation):
        return replace(branch, branches=tuple(_branch(b, env) for b in branch.branches))
    if isinstance(branch, ast.VerbQuery) or (isinstance(branch, ast.Select) and _holds_inference(branch, env)):
        return ast.NestedQuery(islands(ast.Query(branch, span=branch.span), env, bind_query))
    return branch


def _bind_select(select: ast.Select, query: ast.Query, env: Environment) -> tuple[LogicalPlan, Fields]:
    select = joins_as_filters(select, env)
    select = replace(select, items=tuple(_named(item, env) for item in select.items))
    scope, written = _scope(select, env), select
    order_by = tuple(_below(item, env) for item in query.order_by)
    query = replace(query, order_by=order_by)
    select = _below(replace(select, from_=(), sample=None), env)
    fields = _fields(select, query, scope, env, written)
    items: Items = []
    for item in select.items:
        if isinstance(item.expr, ast.Star):
            items += [(name, Known(column.ref)) for name, column in scope.star(item.expr)]
        else:
            items.append((item.alias or "", item.expr))
    named = [(f.name, expr) for f, (_, expr) in zip(fields, items, strict=True)]
    return Block(env, scope, select, query, named).bind(), fields


def _named(item: ast.SelectItem, env: Environment) -> ast.SelectItem:
    """A nameless item with inference is called after its text, as DuckDB calls a column."""
    if item.alias is not None or isinstance(item.expr, ast.Star) or not _holds_inference(item.expr, env):
        return item
    return replace(item, alias=to_sql(item.expr))


def _scope(select: ast.Select, env: Environment) -> Scope | PlanScope:
    """The columns of FROM. One query with inference as the only source streams, unless a subquery must see it."""
    if len(select.from_) == 1 and isinstance(table := select.from_[0], ast.DerivedTable):
        plain = not (table.columns or table.sample or table.lateral or select.sample)
        inner = [n for part in walk_parts(select) for n in walk(part) if isinstance(n, ast.Query | ast.Star)]
        if plain and _is_structured(table.query) and not any(_needs_sql(n) for n in inner):
            plan, fields = bind_query(table.query, env)
            return PlanScope(env, table.alias, plan, fields)
    return Scope(env, select.from_, select.sample, bind_query)


def walk_parts(select: ast.Select) -> Iterator[ast.Node]:
    """The clauses of a block but FROM."""
    for part in ast_children(select):
        if not isinstance(part, ast.Table):
            yield part


def _needs_sql(node: ast.Node) -> bool:
    return isinstance(node, ast.Query) or (
        isinstance(node, ast.Star) and bool(node.replace or node.rename or node.like)
    )


def _fields(
    select: ast.Select, query: ast.Query, scope: Scope | PlanScope, env: Environment, written: ast.Select
) -> Fields:
    """Names and types of the output, as DuckDB sees the block with every call a NULL of its type."""
    shown = typed(replace(select, from_=scope.tables))
    assert isinstance(shown, ast.Select)
    try:
        return describe(env, with_ctes(env, to_sql(ast.Query(shown, span=query.span))))
    except DqlError as error:
        raise placed(error, written, scope.known_or_none, env) from error


def _below(node: ast.Node, env: Environment) -> Any:
    """`node` with its subqueries that hold inference as tables, and its calls marked."""
    return prepare(islands(node, env, bind_query), env)


def joins_as_filters(select: ast.Select, env: Environment) -> ast.Select:
    """Inference in the ON of inner joins moved to WHERE, where it means the same."""
    moved: list[ast.Expr] = []
    tables = tuple(_without_inference_on(t, env, moved) if isinstance(t, ast.JoinChain) else t for t in select.from_)
    if not moved:
        return select
    where = (*(ast.Paren(m) for m in moved), *((ast.Paren(select.where),) if select.where is not None else ()))
    return replace(select, from_=tables, where=ast.And(where) if len(where) > 1 else where[0])


def _without_inference_on(chain: ast.JoinChain, env: Environment, moved: list[ast.Expr]) -> ast.JoinChain:
    joins: list[ast.Join] = []
    for i, join in enumerate(chain.joins):
        calls = [t for t in terms(join.on) if _infers(t, env)] if join.on is not None else []
        if calls:
            later = {j.kind.split()[-1] for j in chain.joins[i + 1 :]}
            if join.kind != "INNER" or later & {"RIGHT", "FULL"}:
                hint = "write an inner join, or filter in a subquery first"
                raise UnsupportedError(
                    "inference in the ON of an outer join does not run", span=calls[0].span, hint=hint
                )
            moved += calls
            rest = tuple(t for t in terms(join.on) if t not in calls) if join.on is not None else ()
            on = None if not rest else rest[0] if len(rest) == 1 else ast.And(rest)
            join = replace(join, on=on, kind=join.kind if rest else "CROSS")
        joins.append(join)
    return replace(chain, joins=tuple(joins))


def _holds_inference(node: ast.Node, env: Environment) -> bool:
    """Whether inference stands in a block or in any query below it."""
    return any(
        is_inference(n, env) or isinstance(n, ast.VerbQuery) or (isinstance(n, ast.Query) and _is_structured(n))
        for n in walk(node)
    )


def _infers(node: ast.Node, env: Environment) -> bool:
    return any(is_inference(n, env) for n in walk(node))


def _model(using: ast.Using, env: Environment) -> str:
    model = using.model
    if not isinstance(model, ast.SingleModel):
        what = {ast.AnyModel: "USING ANY", ast.CascadeModel: "USING CASCADE", ast.RowModel: "USING (column)"}[
            type(model)
        ]
        raise UnsupportedError(f"{what} does not run yet", span=model.span, hint="name one model: USING smollm2")
    if model.adapter is not None or model.draft is not None:
        what = "ADAPTER" if model.adapter is not None else "DRAFT"
        raise UnsupportedError(f"{what} does not run yet", span=model.span, hint="name the model alone: USING smollm2")
    return env.check_model(model.model)
