"""One SELECT block with inference → a plan, clause by clause in the order in which SQL gives them meaning:

    FROM ▷ WHERE ▷ GROUP BY ▷ HAVING ▷ windows ▷ QUALIFY ▷ SELECT ▷ DISTINCT ▷ ORDER BY ▷ LIMIT

Calls of a clause are inferred right before it; the rules then move what can be moved.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dql.errors import BindError
from dql.grammar import ast
from dql.grammar.template import substitute
from dql.grammar.unparse import to_sql
from dql.grammar.walk import children, transform, walk, with_children
from dql.planner.calls import is_aggregate
from dql.planner.environment import Environment
from dql.planner.guards import Extractor, Inference, has_inference
from dql.planner.logical import (
    Aggregate,
    Column,
    Distinct,
    Filter,
    Limit,
    LogicalPlan,
    Project,
    Sort,
    Window,
    column_names,
    terms,
    transform_plan,
)
from dql.planner.scope import Known, PlanScope, Scope, alone

Items = list[tuple[str, ast.Expr]]


@dataclass(frozen=True, slots=True)
class _Hole(LogicalPlan):
    """Where the plan of FROM goes: it can be built only when the block has asked for all its columns."""


@dataclass
class Block:
    """A block being bound: the plan so far, and the columns that stand for expressions grouped or windowed already.

    `select` is prepared (see prepare.py); `items` are its output columns' names and expressions, stars expanded.
    """

    env: Environment
    scope: Scope | PlanScope
    select: ast.Select
    query: ast.Query
    items: Items
    plan: LogicalPlan = field(default_factory=_Hole)
    known: dict[ast.Expr, ast.Expr] = field(default_factory=dict)
    grouped: bool = False
    extractor: Extractor = field(init=False)

    def __post_init__(self) -> None:
        self.extractor = Extractor(self.env)
        written, self.items = self.items, []
        for name, expr in written:  # an item may read the aliases before it
            self.items.append((name, self.resolve(expr)))

    def bind(self) -> LogicalPlan:
        """The whole block's plan; its columns are the select list's."""
        self.check_where()
        self.filter(self.select.where)
        self.aggregate()
        self.filter(self.select.having)
        self.window()
        self.filter(self.select.qualify)
        self.finish()
        return _plug(self.plan, self.scope.plan())

    def check_where(self) -> None:
        """Refuse in WHERE what has no value before grouping."""
        where = self.resolve(self.select.where) if self.select.where is not None else None
        for node in _matches(where, self._is_aggregate) if where is not None else ():
            raise BindError("WHERE cannot hold an aggregate", span=node.span, hint="use HAVING, or a subquery")
        for node in _matches(where, _is_window) if where is not None else ():
            raise BindError("WHERE cannot hold a window function", span=node.span, hint="use QUALIFY")

    def filter(self, predicate: ast.Expr | None) -> None:
        """Keep rows term by term: a call runs only for the rows that the terms before it left."""
        for term in terms(self.resolve(predicate)) if predicate is not None else ():
            kept = self.value(term)
            self.infer()
            self.plan = Filter(self.plan, kept)

    def aggregate(self) -> None:
        """GROUP BY and aggregate functions: the calls inside them are inferred below."""
        found = self._outermost(self._is_aggregate)
        if self.select.group_by is None and not found:
            return
        for nested in [n for e in found for child in children(e) for n in _matches(child, self._is_aggregate)]:
            raise BindError("an aggregate cannot hold another", span=nested.span, hint="aggregate in a subquery first")
        self.known |= self._alone()
        grouping = self._grouping()
        keys = [key for g in grouping for key in _keys(g)]
        around = [e for e in self._outermost(_is_query) if e not in self.known and e not in keys]
        exprs = list(dict.fromkeys([*keys, *found, *around]))
        values = [self._grouped_value(expr) if expr in around else self.value(expr) for expr in exprs]
        self.infer()
        outputs = tuple(self.env.new_column(label(expr)) for expr in exprs)
        values = [_no_position(value) if expr in keys else value for expr, value in zip(exprs, values, strict=True)]
        inner = dict(zip(exprs, values, strict=True))
        grouped = tuple(_replace(g, {k: inner[k] for k in keys}) for g in grouping)
        self.plan = Aggregate(self.plan, outputs, tuple(values), grouped)  # type: ignore[arg-type]
        self.known |= {e: Known(c.ref) for e, c in zip(exprs, outputs, strict=True)}
        self.extractor = Extractor(self.env)  # answers from below the grouping are no columns of its rows
        self.grouped = True

    def window(self) -> None:
        """Window functions: the calls inside them are inferred below; each becomes a column."""
        found = self._outermost(_is_window)
        if not found:
            return
        named = tuple(with_children(n, [self._inside(c) for c in children(n)]) for n in self.select.windows)
        values = tuple(self.value(expr) for expr in found)
        self.infer()
        added = tuple(self.env.new_column(label(expr)) for expr in found)
        self.plan = Window(self.plan, added, values, named)  # type: ignore[arg-type]
        self.known.update({e: Known(c.ref) for e, c in zip(found, added, strict=True)})

    def finish(self) -> None:
        """SELECT, DISTINCT, ORDER BY, LIMIT. Sorting and LIMIT come below the projection where DISTINCT allows it."""
        distinct = self.select.distinct
        values = tuple(self.value(expr) for _, expr in self.items)
        on = tuple(self.value(self.item(expr, "DISTINCT ON")) for expr in (distinct.on if distinct else ()))
        keys = self._sort_keys()
        self.infer()
        outputs = tuple(self.env.new_column(name) for name, _ in self.items)
        if distinct is not None and on:
            self.plan = Distinct(self.plan, on, keys)
        elif distinct is not None:
            self.plan = Distinct(Project(self.plan, outputs, values))
            keys = _over_outputs(keys, values, outputs)
            values = tuple(c.ref for c in outputs)
        self.plan = Sort(self.plan, keys) if keys else self.plan
        if self.query.limit is not None or self.query.offset is not None:
            self.plan = Limit(self.plan, self.query.limit, self.query.offset)
        self.plan = Project(self.plan, outputs, values)

    # ---- expressions --------------------------------------------------------------------------------------------

    def value(self, expr: ast.Expr) -> ast.Expr:
        """`expr` over plan columns; its calls are collected."""
        user = _replace(expr, self.known)
        assert isinstance(user, ast.Expr)
        internal = self.scope.internal(user)
        if self.grouped:
            self._check_grouped(internal)
        return self.extractor.extract(internal)

    def infer(self) -> None:
        """Put the calls collected so far on top of the plan."""
        self.plan = self.extractor.stages(self.plan)

    def resolve(self, expr: ast.Expr, prefer_alias: bool = False) -> ast.Expr:
        """`expr` with aliases of the select list replaced; a column of FROM wins unless `prefer_alias`."""
        aliases = {
            name.lower(): ast.Paren(value, span=value.span)
            for name, value in reversed(self.items)
            if value != ast.Column((name,)) and (prefer_alias or name.lower() not in self.scope.known)
        }
        return substitute(expr, aliases) if aliases else expr

    def item(self, expr: ast.Expr, clause: str) -> ast.Expr:
        """An item of ORDER BY, GROUP BY or DISTINCT ON: a position, an alias or an expression."""
        if isinstance(expr, ast.Number) and expr.text.isdecimal():
            if not 1 <= int(expr.text) <= len(self.items):
                raise BindError(f"{clause} {expr.text}: there are {len(self.items)} columns", span=expr.span)
            return self.items[int(expr.text) - 1][1]
        found = self.resolve(expr, prefer_alias=clause != "GROUP BY" and isinstance(expr, ast.Column))
        return found.expr if isinstance(found, ast.Paren) else found

    def _alone(self) -> dict[ast.Expr, ast.Expr]:
        """Subqueries that read nothing around them: they have one value, above the grouping as below."""
        queries = [e for e in self._outermost(_is_query) if not isinstance(e, ast.In)]
        return {e: Known(found) for e in queries if (found := alone(e, self.env)) is not None}

    def _grouped_value(self, expr: ast.Expr) -> ast.Expr:
        """A subquery that reads the grouping keys alone: it has one value in a group."""
        return ast.Call(("any_value",), (self.value(expr),))

    def _check_grouped(self, expr: ast.Expr) -> None:
        known = {c.name for c in self.plan.columns}
        for node in walk(expr):
            if isinstance(node, ast.Column) and (label := self.scope.label(node)) and node.path[0] not in known:
                what = f"column {label} is neither grouped by nor inside an aggregate"
                hint = f"add it to GROUP BY, or take any_value({label})"
                raise BindError(what, span=node.span, hint=hint)

    def _inside(self, node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Expr):
            return self.value(node)
        return with_children(node, [self._inside(child) for child in children(node)])

    def _sort_keys(self) -> tuple[ast.OrderItem, ...]:
        keys: list[ast.OrderItem] = []
        for item in self.query.order_by:
            exprs = [e for _, e in self.items] if item.expr is None else [self.item(item.expr, "ORDER BY")]
            keys += [
                replace(item, expr=self.value(expr)) for expr in exprs if expr in self.known or not _is_literal(expr)
            ]
        return tuple(keys)

    def _outermost(self, wanted: Callable[[ast.Node], bool]) -> list[ast.Expr]:
        """Distinct outermost matches in the select list and in the clauses after grouping."""
        exprs = [e for _, e in self.items]
        exprs += [self.resolve(e) for e in (self.select.having, self.select.qualify) if e is not None]
        exprs += [self.item(o.expr, "ORDER BY") for o in self.query.order_by if o.expr is not None]
        return list(dict.fromkeys(match for expr in exprs for match in _matches(expr, wanted)))

    def _is_aggregate(self, node: ast.Node) -> bool:
        return is_aggregate(node, self.env)

    def _grouping(self) -> tuple[ast.Expr | ast.GroupingSets, ...]:
        group_by = self.select.group_by
        if group_by is None:
            return ()
        if not group_by.items:  # GROUP BY ALL: what depends on a row and holds no aggregate
            plain = [e for _, e in self.items if not any(True for _ in _matches(e, self._is_aggregate))]
            return tuple(e for e in plain if e not in self.known and any(map(_reads_row, walk(e))))
        return tuple(self._grouping_item(g) for g in group_by.items)

    def _grouping_item(self, node: ast.Node) -> Any:
        if _holds_keys(node):
            return with_children(node, [self._grouping_item(child) for child in children(node)])
        return self.item(node, "GROUP BY") if isinstance(node, ast.Expr) else node


def label(expr: ast.Expr) -> str:
    """What EXPLAIN calls a computed column."""
    plain = transform(expr, lambda n: ast.Call((n.call.text,)) if isinstance(n, Inference) else n)
    return plain.path[-1] if isinstance(plain, ast.Column) else to_sql(plain)


def _is_window(node: ast.Node) -> bool:
    return isinstance(node, ast.Call) and node.over is not None


def _matches(node: ast.Node, wanted: Callable[[ast.Node], bool]) -> Iterator[ast.Expr]:
    if isinstance(node, ast.Query):
        return
    if isinstance(node, ast.Expr) and wanted(node):
        yield node
        return
    for child in children(node):
        yield from _matches(child, wanted)


def _reads_row(node: ast.Node) -> bool:
    return isinstance(node, ast.Column | Known | ast.Positional | ast.Query)


def _is_literal(expr: ast.Expr) -> bool:
    """Whether an expression is the same for every row by its spelling; a number would be read as a position."""
    while isinstance(expr, ast.Paren | ast.Unary):
        expr = expr.expr if isinstance(expr, ast.Paren) else expr.operand
    return isinstance(expr, ast.Number | ast.String | ast.Constant | ast.TypedLiteral | ast.Param)


def _no_position(key: ast.Expr) -> ast.Expr:
    """A grouping key that DuckDB cannot take for the number of a column."""
    return ast.Case(None, (ast.When(ast.Constant("TRUE"), key),)) if _is_literal(key) else key


def _is_query(node: ast.Node) -> bool:
    if isinstance(node, ast.In):
        return isinstance(node.container, ast.Subquery) and not has_inference(node)
    return isinstance(node, ast.Subquery | ast.Exists | ast.ArraySubquery)


def _holds_keys(grouping: ast.Node) -> bool:
    """Whether a grouping item is a list of keys."""
    return isinstance(grouping, ast.GroupingSets | ast.Row | ast.Paren) or (
        isinstance(grouping, ast.Call) and grouping.name[-1].lower() in ("rollup", "cube")
    )


def _keys(grouping: ast.Node) -> list[ast.Expr]:
    """The expressions that a grouping item groups by."""
    if _holds_keys(grouping):
        return [key for child in children(grouping) for key in _keys(child)]
    return [grouping] if isinstance(grouping, ast.Expr) else []


def _replace(node: ast.Node, known: Mapping[ast.Expr, ast.Expr]) -> ast.Node:
    """Top-down replacement of whole expressions; queries below are left alone."""
    if isinstance(node, ast.Expr) and node in known:
        return replace(known[node], span=node.span)
    if isinstance(node, ast.Query) or not known:
        return node
    return with_children(node, [_replace(child, known) for child in children(node)])


def _over_outputs(
    keys: tuple[ast.OrderItem, ...], values: tuple[ast.Expr, ...], outputs: tuple[Column, ...]
) -> tuple[ast.OrderItem, ...]:
    """Sort keys of a DISTINCT, over its output columns."""
    shown: dict[ast.Expr, ast.Expr] = {value: c.ref for value, c in zip(values, outputs, strict=True)}
    names = {c.name for c in outputs}
    done: list[ast.OrderItem] = []
    for key in keys:
        new = _replace(key, shown)
        assert isinstance(new, ast.OrderItem)
        if column_names(new) - names:
            hint = "add it to the select list"
            raise BindError("ORDER BY of a DISTINCT reads its select list only", span=key.span, hint=hint)
        done.append(new)
    return tuple(done)


def _plug(plan: LogicalPlan, base: LogicalPlan) -> LogicalPlan:
    return transform_plan(plan, lambda node: base if isinstance(node, _Hole) else node)
