"""A join on equal labels: both sides classified first, text by text, then joined on the labels by hash."""

from collections.abc import Mapping
from dataclasses import replace

from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.grammar.walk import transform
from dql.planner.logical import (
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
    children,
    column_names,
    infer,
    is_repeatable,
    with_children,
)
from dql.planner.row_text import as_text
from dql.planner.sift import Condition, chain


def join_on_labels(plan: LogicalPlan) -> LogicalPlan:
    """`f(a.x) = g(b.y)` over pairs of stored tables becomes two tables of answers and a join that DuckDB can hash.

    An answer depends on its text alone, and the texts asked about are those of the pairs that the plain conditions
    leave: the same calls are made. Under a LIMIT that may stop the pairs early nothing changes.
    """
    return _visit(plan, stops_early=False)


def files_in_the_way(plan: LogicalPlan) -> tuple[str, ...]:
    """The files, as written in FROM, that would have to be stored tables for the rule to change this plan."""
    found: list[str] = []

    def as_stored(node: LogicalPlan) -> LogicalPlan:
        if isinstance(node, Scan) and node.files:
            found.extend(node.files)
            return replace(node, files=())
        return with_children(node, tuple(as_stored(child) for child in children(node)))

    stored = as_stored(plan)
    return tuple(dict.fromkeys(found)) if found and join_on_labels(stored) != stored else ()


def _visit(node: LogicalPlan, stops_early: bool) -> LogicalPlan:
    if isinstance(node, Filter) and not stops_early and (found := _rewritten(node)) is not None:
        node = found
    if isinstance(node, Limit):
        stops_early = node.limit is not None and not node.limit.percent
    elif isinstance(node, Sort | Distinct) or not isinstance(node, Filter | Project | Infer):
        stops_early = False
    return with_children(node, tuple(_visit(child, stops_early) for child in children(node)))


def _rewritten(node: Filter) -> LogicalPlan | None:
    links, below = chain(node)
    for link in links:
        below = below if link.stages else Filter(below, link.predicate)  # plain, so it leaves fewer pairs to ask about
    equal = next((link for link in links if _compares_sides(link, below)), None)
    if equal is None:
        return None
    scan = _as_scan(below)
    assert scan is not None
    plan: LogicalPlan = Filter(_answered(scan, equal.calls), equal.predicate)
    for link in (link for link in links if link.stages and link is not equal):
        for stage in link.stages:
            plan = infer(plan, stage)
        plan = Filter(plan, link.predicate)
    return plan


def _compares_sides(link: Condition, below: LogicalPlan) -> bool:
    """Whether a condition is an equation between answers about one table and answers about another."""
    predicate = link.predicate
    while isinstance(predicate, ast.Paren):
        predicate = predicate.expr
    scan = _as_scan(below)
    if scan is None or not isinstance(predicate, ast.Comparison) or predicate.operator not in ("=", "=="):
        return False
    if len(link.stages) != 1 or not all(_depends_on_text_alone(call) for call in link.calls):
        return False
    side_of = {column.name: side for column, side in zip(scan.outputs, scan.sides, strict=True)}
    for call in link.calls:
        side_of[call.out.name] = _side(column_names(call.prompt), side_of)
    asked = {call.out.name for call in link.calls}
    left, right = column_names(predicate.left), column_names(predicate.right)
    sides = {_side(left, side_of), _side(right, side_of)}
    return asked <= left | right and bool(asked & left) and bool(asked & right) and len(sides) == 2 and "" not in sides


def _depends_on_text_alone(call: InferCall) -> bool:
    return not call.guards and call.decoding.is_function and bool(column_names(call.prompt))


def _side(names: set[str], side_of: Mapping[str, str]) -> str:
    """The one table that all of these columns are about, "" where there are several or none."""
    sides = {side_of.get(name, "") for name in names}
    return sides.pop() if len(sides) == 1 else ""


def _as_scan(plan: LogicalPlan) -> Scan | None:
    """A join with the plain filters and projections above it as one query; None where it is none."""
    match plan:
        case Scan():
            return plan if plan.sides and not plan.files else None
        case Filter() if is_repeatable(plan.predicate) and (scan := _as_scan(plan.child)) is not None:
            label = f"{scan.label} WHERE {_as_written(plan.predicate, scan)}"
            return _over(scan, f"SELECT * FROM ({scan.sql}) WHERE {to_sql(plan.predicate)}", scan.outputs, label)
        case Project() if all(isinstance(e, ast.Column) for e in plan.exprs):
            scan = _as_scan(plan.child)
            if scan is not None and plan.exprs == tuple(column.ref for column in plan.outputs):
                names = ", ".join(f'"{column.name}"' for column in plan.outputs)
                return _over(scan, f"SELECT {names} FROM ({scan.sql})", plan.outputs, scan.label)
    return None


def _as_written(predicate: ast.Expr, scan: Scan) -> str:
    labels = {column.name: column.label for column in scan.outputs}
    return to_sql(transform(predicate, lambda n: ast.Column((labels[n.path[0]],)) if isinstance(n, ast.Column) else n))


def _over(scan: Scan, sql: str, outputs: tuple[Column, ...], label: str) -> Scan:
    side_of = dict(zip((column.name for column in scan.outputs), scan.sides, strict=True))
    return Scan(outputs, sql, scan.inputs, label, tuple(side_of[column.name] for column in outputs))


def _answered(scan: Scan, calls: tuple[InferCall, ...]) -> Scan:
    """The scan with the calls' answers as columns, each looked up in a table of its own by the texts of its holes."""
    select, joins = ["dql_pairs.*"], [f"({scan.sql}) AS dql_pairs"]
    tables: list[tuple[str, LogicalPlan]] = []
    for call in calls:
        name = f"dql_by{call.out.name}"
        parts = [as_text(part) for part in call.prompt.parts if isinstance(part, ast.Expr)]
        texts = [ast.Cast(part, ast.TypeName(("VARCHAR",))) for part in parts]
        holes = tuple(Column(f"{call.out.name}_{i}", "VARCHAR", "text") for i in range(len(texts)))
        items = ", ".join(f'{to_sql(text)} AS "{hole.name}"' for text, hole in zip(texts, holes, strict=True))
        label = f"the texts that {call.text} is asked about"
        rest = iter(holes)
        prompt = replace(
            call.prompt, parts=tuple(p if isinstance(p, str) else next(rest).ref for p in call.prompt.parts)
        )
        about = Scan(holes, f"SELECT DISTINCT {items} FROM ({scan.sql})", scan.inputs, label)
        asked = Infer(about, (replace(call, prompt=prompt),))
        tables.append((name, asked))
        same = " AND ".join(
            f'{name}."{hole.name}" IS NOT DISTINCT FROM {to_sql(text)}' for text, hole in zip(texts, holes, strict=True)
        )
        joins.append(f"{name} ON {same}")
        select.append(f'{name}."{call.out.name}"')
    sql = f"SELECT {', '.join(select)} FROM {' JOIN '.join(joins)}"
    outputs = (*scan.outputs, *(call.out for call in calls))
    return Scan(outputs, sql, (*scan.inputs, *tables), scan.label, (*scan.sides, *("" for _ in calls)))
