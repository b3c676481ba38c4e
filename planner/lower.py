"""Logical plan → physical plan: relational nodes between two inference nodes become one DuckDB query."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count

from dql.catalog import quote_name
from dql.errors import BindError
from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.grammar.walk import walk
from dql.planner.constants import constant
from dql.planner.logical import (
    Aggregate,
    Column,
    Distinct,
    Filter,
    Infer,
    InferCall,
    Limit,
    LogicalPlan,
    Project,
    Scan,
    Sort,
    Window,
)
from dql.planner.physical import (
    CallExec,
    ConditionExec,
    ConditionsExec,
    FragmentExec,
    InferExec,
    LimitExec,
    MapExec,
    PhysicalPlan,
    SiftExec,
    StepExec,
)
from dql.planner.row_text import as_text
from dql.planner.sift import Condition, Conditions, Sift

_TABLE = re.compile(r"\bdql_(?:in|by)_\d+\b")


@dataclass(frozen=True, slots=True)
class _Sql:
    """SQL under construction. `stream` is the plan whose batches it maps row by row, known to it as `name`."""

    text: str
    inputs: tuple[tuple[str, PhysicalPlan], ...] = ()
    stream: PhysicalPlan | None = None
    name: str = ""

    def over(self, text: str, rowwise: bool = False) -> "_Sql":
        """A query around this one; one that is not row-wise needs its input whole."""
        if self.stream is None or rowwise:
            return replace(self, text=text)
        return _Sql(text, (*self.inputs, (self.name, self.stream)))


class Lowering:
    """Lowers the plans of one query. `params` are values of parameters, `tables` the plans that SQL reads by name.

    names: what the user calls the columns of the plans.
    """

    def __init__(
        self, params: Mapping[str, object], tables: Mapping[str, LogicalPlan], names: Mapping[str, str]
    ) -> None:
        self._params = params
        self._tables = tables
        self._names = names
        self._lowered: dict[str, PhysicalPlan] = {}
        self._numbers = count()

    def lower(self, plan: LogicalPlan, stops_early: bool = False) -> PhysicalPlan:
        """The physical plan that yields the columns of `plan` by name, in order."""
        return self._finish(self._sql(plan, stops_early))

    def _finish(self, sql: _Sql) -> PhysicalPlan:
        if sql.stream is None:
            given = dict(sql.inputs)
            read = {name for name in _TABLE.findall(sql.text) if name in self._tables and name not in given}
            return FragmentExec(sql.text, (*sql.inputs, *((name, self._table_plan(name)) for name in sorted(read))))
        if sql.text == f"SELECT * FROM {sql.name}":
            return sql.stream
        return MapExec(sql.stream, sql.text, sql.name)

    def _sql(self, plan: LogicalPlan, early: bool) -> _Sql:
        match plan:
            case Scan():
                return _Sql(plan.sql)
            case Infer():
                return self._stream(self._infer(plan, early))
            case Sift():
                return self._stream(self._sift(plan, early))
            case Limit():
                return self._limit(plan, early)
            case Filter():
                below = self._sql(plan.child, early)
                text = f"SELECT * FROM {_table(below)} WHERE {to_sql(plan.predicate)}"
                return below.over(text, rowwise=_is_rowwise(plan.predicate))
            case Project():
                below = self._sql(plan.child, early)
                text = f"SELECT {_items(plan.exprs, plan.outputs)} FROM {_table(below)}"
                return below.over(text, rowwise=all(_is_rowwise(e) for e in plan.exprs))
        below = self._sql(plan.child, False)  # type: ignore[attr-defined]
        return below.over(_blocking(plan, _table(below)))

    def _table_plan(self, name: str) -> PhysicalPlan:
        """The plan of a table that SQL reads by name: one plan, however many places read it."""
        if name not in self._lowered:
            self._lowered[name] = self.lower(self._tables[name])
        return self._lowered[name]

    def _stream(self, plan: PhysicalPlan) -> _Sql:
        name = f"dql_rows_{next(self._numbers)}"
        return _Sql(f"SELECT * FROM {name}", (), plan, name)

    def _limit(self, plan: Limit, early: bool) -> _Sql:
        limit, offset = self._whole(plan.limit.count if plan.limit else None), self._whole(plan.offset)
        percent = plan.limit is not None and plan.limit.percent
        constant_limit = not percent and not isinstance(limit, ast.Expr) and not isinstance(offset, ast.Expr)
        below = self._sql(plan.child, early=constant_limit)
        if below.stream is not None and constant_limit:
            return self._stream(LimitExec(self._finish(below), limit, offset or 0))  # type: ignore[arg-type]
        return below.over(_limit_text(plan, _table(below)))

    def _whole(self, node: ast.Expr | None) -> int | ast.Expr | None:
        """A LIMIT's number, or its expression where only DuckDB can tell."""
        if node is None:
            return None
        try:
            value = constant(node, self._params)
        except BindError:
            if any(isinstance(n, ast.Column) for n in walk(node)):
                raise BindError("LIMIT and OFFSET cannot read columns", span=node.span) from None
            return node
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise BindError("LIMIT and OFFSET are whole numbers, not negative", span=node.span)
        return value

    def _infer(self, plan: Infer, early: bool) -> InferExec:
        """The calls, over a query that computes their holes and guards as columns."""
        below = self._sql(plan.child, early)
        items = [f"{quote_name(c.name)}" for c in plan.child.columns]
        calls = self._calls(plan.calls, plan.child.columns, items)
        rowwise = all(_is_rowwise(e) for call in plan.calls for e in (call.prompt, *call.guards))
        below = below.over(f"SELECT {', '.join(items)} FROM {_table(below)}", rowwise=rowwise)
        return InferExec(self._finish(below), calls, early)

    def _calls(
        self, calls: tuple[InferCall, ...], columns: tuple[Column, ...], items: list[str]
    ) -> tuple[CallExec, ...]:
        """The calls over these columns; what their holes and guards compute is added to the select list `items`."""
        carried = {c.name: c for c in columns}
        done: list[CallExec] = []
        for call in calls:
            holes: list[str] = []
            template: list[str | int] = []
            for part in call.prompt.parts:
                template.append(part if isinstance(part, str) else len(holes))
                if not isinstance(part, str):
                    assert isinstance(part, ast.Expr), "a star of a template is columns by now"
                    holes.append(self._computed(as_text(part), "VARCHAR", carried, items))
            guard = self._guard(call, carried, items)
            name = self._names.get(call.out.name) or call.text
            done.append(_call_exec(call, tuple(template), tuple(holes), guard, name))
        return tuple(done)

    def _sift(self, plan: Sift, early: bool) -> SiftExec:
        """The conditions, each with the SQL around its calls, over whatever rows are left open."""
        below = self._finish(self._sql(plan.child, early))
        kept = tuple(column.name for column in plan.kept)
        return SiftExec(below, self._conditions(plan.conditions, plan.child.columns), kept, early)

    def _conditions(self, conditions: Conditions, columns: tuple[Column, ...]) -> ConditionsExec:
        parts = (
            self._conditions(part, columns) if isinstance(part, Conditions) else self._condition(part, columns)
            for part in conditions.parts
        )
        return ConditionsExec(tuple(parts), conditions.any)

    def _condition(self, condition: Condition, columns: tuple[Column, ...]) -> ConditionExec:
        steps: list[StepExec] = []
        for stage in condition.stages:
            name, items = f"dql_rows_{next(self._numbers)}", ["*"]
            calls = self._calls(stage, columns, items)
            steps.append(StepExec(f"SELECT {', '.join(items)} FROM {name}", name, calls))
            columns = (*columns, *(call.out for call in stage))
        name = f"dql_rows_{next(self._numbers)}"
        return ConditionExec(tuple(steps), f"SELECT ({to_sql(condition.predicate)}) FROM {name}", name)

    def _computed(self, expr: ast.Expr, sql_type: str, carried: Mapping[str, Column], items: list[str]) -> str:
        if isinstance(expr, ast.Column) and len(expr.path) == 1 and carried[expr.path[0]].type == sql_type:
            return expr.path[0]
        name = f"dql_x_{next(self._numbers)}"
        items.append(f"CAST({to_sql(expr)} AS {sql_type}) AS {name}")
        return name

    def _guard(self, call: InferCall, carried: Mapping[str, Column], items: list[str]) -> str | None:
        if not call.guards:
            return None
        return self._computed(
            ast.And(call.guards) if len(call.guards) > 1 else call.guards[0], "BOOLEAN", carried, items
        )


def _call_exec(
    call: InferCall, template: tuple[str | int, ...], holes: tuple[str, ...], guard: str | None, name: str
) -> CallExec:
    return CallExec(
        op=call.op,
        template=template,
        bare=call.prompt.bare,
        holes=holes,
        guard=guard,
        out=call.out.name,
        type=call.out.type,
        model=call.model,
        labels=call.labels,
        multi=call.multi,
        low=call.low,
        high=call.high,
        system=call.system,
        instruction=call.instruction,
        examples=call.examples,
        calibrate=call.calibrate,
        decoding=call.decoding,
        details=call.details,
        alternatives=call.alternatives,
        draft=call.draft,
        stage=call.stage,
        label=name,
    )


def _blocking(plan: LogicalPlan, table: str) -> str:
    """SQL of a node that needs its whole input."""
    match plan:
        case Sort():
            return f"SELECT * FROM {table} ORDER BY {_list(plan.keys)}"
        case Distinct():
            on = f" ON ({_list(plan.on)})" if plan.on else ""
            keys = f" ORDER BY {_list(plan.keys)}" if plan.keys else ""
            return f"SELECT DISTINCT{on} * FROM {table}{keys}"
        case Window():
            named = f" WINDOW {_list(plan.named)}" if plan.named else ""
            return f"SELECT *, {_items(plan.exprs, plan.added)} FROM {table}{named}"
        case Aggregate():
            grouping = f" GROUP BY {_list(plan.grouping)}" if plan.grouping else ""
            return f"SELECT {_items(plan.exprs, plan.outputs)} FROM {table}{grouping}"
    raise TypeError(f"no such node: {type(plan).__name__}")


def _limit_text(plan: Limit, table: str) -> str:
    limit = f" LIMIT {to_sql(plan.limit.count)}{'%' if plan.limit.percent else ''}" if plan.limit else ""
    offset = f" OFFSET {to_sql(plan.offset)}" if plan.offset is not None else ""
    return f"SELECT * FROM {table}{limit}{offset}"


def _table(sql: _Sql) -> str:
    head, _, name = sql.text.rpartition("SELECT * FROM ")
    return name if not head and name == sql.name else f"({sql.text})"


def _items(exprs: tuple[ast.Expr, ...], columns: tuple[Column, ...]) -> str:
    return ", ".join(f"{to_sql(e)} AS {quote_name(c.name)}" for e, c in zip(exprs, columns, strict=True))


def _list(nodes: tuple[ast.Node, ...]) -> str:
    return ", ".join(to_sql(node) for node in nodes)


def _is_rowwise(node: ast.Node) -> bool:
    """Whether a row's value depends on that row alone."""
    return not any(isinstance(n, ast.Query) for n in walk(node))
