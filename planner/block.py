"""One SELECT block with inference → a plan, clause by clause in the order in which SQL gives them meaning:

    FROM ▷ WHERE ▷ GROUP BY ▷ HAVING ▷ windows ▷ QUALIFY ▷ SELECT ▷ DISTINCT ▷ ORDER BY ▷ LIMIT

Calls of a clause are inferred right before it; the rules then move what can be moved.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from dql.errors import BindError
from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.grammar.walk import children, transform, with_children
from dql.planner.calls import is_aggregate
from dql.planner.environment import Environment
from dql.planner.guards import Extractor, Inference
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
from dql.planner.scope import Known, PlanScope, Scope

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
    extractor: Extractor = field(init=False)

    def __post_init__(self) -> None:
        self.extractor = Extractor(self.env)

    def bind(self) -> LogicalPlan:
        """The whole block's plan; its columns are the select list's."""
        self.filter(self.select.where)
        self.aggregate()
        self.filter(self.select.having)
        self.window()
        self.filter(self.select.qualify)
        self.finish()
        return _plug(self.plan, self.scope.plan())

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
        grouping = self._grouping()
        keys = [key for g in grouping for key in _keys(g)]
        exprs = list(dict.fromkeys([*keys, *found]))
        values = [self.value(expr) for expr in exprs]
        self.infer()
        outputs = tuple(self.env.new_column(label(expr)) for expr in exprs)
        inner = dict(zip(exprs, values, strict=True))
        grouped = tuple(_replace(g, {k: inner[k] for k in keys}) for g in grouping)
        self.plan = Aggregate(self.plan, outputs, tuple(values), grouped)  # type: ignore[arg-type]
        self.known = {e: Known(c.ref) for e, c in zip(exprs, outputs, strict=True)}
        self.extractor = Extractor(self.env)  # answers from below the grouping are no columns of its rows

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
        return self.extractor.extract(self.scope.internal(user))

    def infer(self) -> None:
        """Put the calls collected so far on top of the plan."""
        self.plan = self.extractor.stages(self.plan)

    def resolve(self, expr: ast.Expr, prefer_alias: bool = False) -> ast.Expr:
        """`expr` with aliases of the select list replaced; a column of FROM wins unless `prefer_alias`."""
        aliases = {name.lower(): e for name, e in reversed(self.items)}

        def visit(node: ast.Node) -> ast.Node:
            if isinstance(node, ast.Column) and len(node.path) == 1 and node.path[0].lower() in aliases:
                name = node.path[0].lower()
                if aliases[name] != node and (prefer_alias or name not in self.scope.known):
                    return ast.Paren(aliases[name], span=node.span)
            return node

        found = transform(expr, visit)
        assert isinstance(found, ast.Expr)
        return found

    def item(self, expr: ast.Expr, clause: str) -> ast.Expr:
        """An item of ORDER BY, GROUP BY or DISTINCT ON: a position, an alias or an expression."""
        if isinstance(expr, ast.Number) and expr.text.isdecimal():
            if not 1 <= int(expr.text) <= len(self.items):
                raise BindError(f"{clause} {expr.text}: there are {len(self.items)} columns", span=expr.span)
            return self.items[int(expr.text) - 1][1]
        found = self.resolve(expr, prefer_alias=clause != "GROUP BY")
        return found.expr if isinstance(found, ast.Paren) else found

    def _inside(self, node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Expr):
            return self.value(node)
        return with_children(node, [self._inside(child) for child in children(node)])

    def _sort_keys(self) -> tuple[ast.OrderItem, ...]:
        keys: list[ast.OrderItem] = []
        for item in self.query.order_by:
            exprs = [e for _, e in self.items] if item.expr is None else [self.item(item.expr, "ORDER BY")]
            keys += [replace(item, expr=self.value(expr)) for expr in exprs]
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
        if not group_by.items:  # GROUP BY ALL: what holds no aggregate
            return tuple(e for _, e in self.items if not any(True for _ in _matches(e, self._is_aggregate)))
        return tuple(g if isinstance(g, ast.GroupingSets) else self.item(g, "GROUP BY") for g in group_by.items)


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


def _keys(grouping: ast.Node) -> list[ast.Expr]:
    """The expressions that a grouping item groups by."""
    if isinstance(grouping, ast.GroupingSets | ast.Row | ast.Paren) or (
        isinstance(grouping, ast.Call) and grouping.name[-1].lower() in ("rollup", "cube")
    ):
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
