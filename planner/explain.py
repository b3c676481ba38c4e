"""A plan as text: what runs where, how often, and why it looks as it does."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.planner.cascading import SURE_ANSWER, reads_threshold
from dql.planner.contract import Contract
from dql.planner.drafting import guesses_line
from dql.planner.explain_cost import Promise, call_lines, choice_lines, precisions, promises_of
from dql.planner.hardware import Kind
from dql.planner.logical import (
    Aggregate,
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
    user_names,
    walk_plan,
)
from dql.planner.measured import Measured
from dql.planner.optimizer import Applied
from dql.planner.row_text import RowText
from dql.planner.rules.join_on_labels import files_in_the_way, join_on_labels
from dql.planner.rules.learn_filter_order import learn_filter_order
from dql.planner.search import Choice
from dql.planner.sift import Sift
from dql.planner.statistics import CallStatistics
from dql.planner.units import seconds_text, value_text

_COLUMN = re.compile(r'"?\b(_\d+)\b"?')
_RIGHT = 53  # column where the notes on a node begin


@dataclass(frozen=True, slots=True)
class Explanation:
    """What EXPLAIN knows of one query beside its plan. Keys are the columns of the calls' answers.

    choice: the plan that was chosen and its figures. measured: what the calls did, where the query has run. seconds:
    of the whole run. quality: what is certain of the answers. kind: of the device
    that it is planned for. answered: answers of a run that stopped; where there are
    some, figures are those of the rest.
    """

    logical: LogicalPlan
    applied: tuple[Applied, ...]
    contract: Contract
    statistics: Mapping[str, CallStatistics] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tables: Mapping[str, LogicalPlan] = field(default_factory=dict)
    choice: Choice | None = None
    measured: Mapping[str, Measured] = field(default_factory=dict)
    seconds: float | None = None
    quality: tuple[str, ...] = ()
    kind: Kind = "cpu"
    answered: int = 0


def explain(found: Explanation, rewrites: bool = False) -> str:
    """The plan as a tree, then the rules applied and what became of each bound."""
    names = user_names([found.logical, *found.tables.values()])
    lines = list(_tree(found.logical, found, names))
    for table, plan in found.tables.items():
        lines += ["", f"-- {table}, read as a table above:", *_tree(plan, found, names)]
    if found.applied:
        lines.append(f"-- applied: {', '.join(dict.fromkeys(a.rule for a in found.applied))}")
    if isinstance(disabled := found.contract.setting("disabled_rules"), tuple):
        lines.append(f"-- disabled: {', '.join(disabled)}")
    lines += [f"-- not applied: {line}" for line in not_applied(found)]
    lines += [f"-- bound {p.bound}: {p}" for p in promises(found)]
    if found.contract.bound("quality") is None:
        lines += [f"-- quality: {line}" for line in found.quality]
    for how, settings in (("pinned", found.contract.pinned), ("set", found.contract.of_session)):
        given = {name: value for name, value in settings.items() if name != "disabled_rules"}
        lines += [f"-- {how}: {name} = {value_text(value)}" for name, value in given.items()]
    if found.choice is not None:
        lines += [f"-- {line}" for line in choice_lines(found.choice)]
    if found.answered:
        lines.append(f"-- {found.answered:,} answers are there, of a run that stopped: the figures are for the rest")
    if found.seconds is not None:
        lines.append(f"-- the run took {seconds_text(found.seconds)}")
    if rewrites:
        lines += _rewrites(found, names)
    return "\n".join(line.rstrip() for line in lines)


def not_applied(found: Explanation) -> Iterator[str]:
    """The rule that would have changed the plan if FROM were stored tables, and how to make it."""
    disabled = found.contract.setting("disabled_rules")
    if isinstance(disabled, tuple) and join_on_labels.__name__ in disabled:
        return
    before = next((a.before for a in found.applied if a.rule == learn_filter_order.__name__), found.logical)
    if files := files_in_the_way(before):
        others = f" (likewise for {', '.join(files[1:])})" if len(files) > 1 else ""
        why = "files may change between two reads"
        yield f"join_on_labels, as {why}: write CREATE TABLE … AS FROM {files[0]}{others} and join that"


def promises(found: Explanation) -> list[Promise]:
    """What was promised for each bound of the contract, and what became of it."""
    return promises_of(found.contract, found.choice, found.measured, found.seconds, found.quality)


def tree_nodes(found: Explanation) -> Iterator[tuple[int, str, str, list[str]]]:
    """Depth, title, note and details of the plan's nodes, from the top."""
    for depth, title, note, details, _ in _nodes(
        found.logical, found, user_names([found.logical, *found.tables.values()])
    ):
        yield depth, title.strip(), note, details


def _tree(plan: LogicalPlan, found: Explanation, names: Mapping[str, str]) -> Iterator[str]:
    for depth, title, note, details, is_last in _nodes(plan, found, names):
        indent = "   " * (depth - 1) + "└─ " if depth else ""
        yield f"{indent}{title}  ".ljust(_RIGHT) + note
        bar = "   " * depth + ("   " if is_last else "│  ")
        yield from (bar + line for line in details)


def _nodes(
    plan: LogicalPlan, found: Explanation, names: Mapping[str, str]
) -> Iterator[tuple[int, str, str, list[str], bool]]:
    depth = 0
    node: LogicalPlan | None = plan
    while node is not None:
        child = getattr(node, "child", None)
        for title, note, details in _node(node, found, names):
            yield depth, title, note, details, child is None
            depth += 1
        node = child


def _node(node: LogicalPlan, found: Explanation, names: Mapping[str, str]) -> Iterator[tuple[str, str, list[str]]]:
    """Title, note and details of a node; several for one that makes several calls, none for a mere renaming."""

    def show(expr: ast.Node) -> str:
        return _COLUMN.sub(lambda m: names.get(m[1]) or m[1], to_sql(expr))

    match node:
        case Infer():
            for call in node.calls:
                yield _call(call, found, names, show)
        case Filter():
            below = any(isinstance(n, Infer | Sift) for n in walk_plan(node.child))
            yield f"FILTER {show(node.predicate)}", "duckdb" + ("" if below else ", pushed into the scan"), []
        case Sift():
            yield f"FILTER {show(node.conditions.predicate)}", "duckdb · order learnt on the first rows", []
            for call in reversed(node.conditions.calls):
                yield _call(call, found, names, show)
        case Sort():
            yield f"SORT {', '.join(show(k) for k in node.keys)}", "duckdb", []
        case Limit():
            offset = f" OFFSET {to_sql(node.offset)}" if node.offset is not None else ""
            count = "ALL" if node.limit is None else to_sql(node.limit.count) + "%" * node.limit.percent
            yield f"LIMIT {count}{offset}", "duckdb" if count[-1] == "%" else "stops what is below", []
        case Distinct():
            yield "DISTINCT" + (f" ON ({', '.join(show(e) for e in node.on)})" if node.on else ""), "duckdb", []
        case Aggregate():
            keys = f" BY {', '.join(show(g) for g in node.grouping)}" if node.grouping else ""
            yield f"AGGREGATE{keys}", "duckdb", []
        case Window():
            yield f"WINDOW {', '.join(show(e) for e in node.exprs)}", "duckdb", []
        case Project() if any(not isinstance(e, ast.Column) for e in node.exprs):
            shown = (SURE_ANSWER if reads_threshold(e) else show(e) for e in node.exprs)
            yield f"PROJECT {', '.join(shown)}", "duckdb", []
        case Scan():
            columns = ", ".join(dict.fromkeys(c.label for c in node.columns if c.label))
            yield f"SCAN {node.label}", f"columns {columns}", []


def _call(call: InferCall, found: Explanation, names: Mapping[str, str], show: object) -> tuple[str, str, list[str]]:
    title = f"{call.op.upper().replace('_', ' ')} {names.get(call.out.name) or ''}"
    details: list[str] = []
    details += [f"fields {', '.join(part.names)}" for part in call.prompt.parts if isinstance(part, RowText)]
    if (counted := found.statistics.get(call.out.name)) is not None:
        details.append(_counts(call, counted))
    if own := [g for g in call.guards if not reads_threshold(g)]:
        guards = " AND ".join(_COLUMN.sub(lambda m: names.get(m[1]) or m[1], to_sql(g)) for g in own)
        details.append(f"only where {guards}")
    if (note := found.notes.get(call.out.name)) is not None:
        details.append(note)
    if call.op == "count_tokens":
        return title, f"tokenizer of {call.model}, no model run", details
    details += call_lines(call.out.name, found.choice, found.measured, found.contract, cascades=call.stage is not None)
    if call.op == "generate" and counted is not None and found.choice is not None:
        rows = min(found.choice.place(call.out.name).max_rows, counted.distinct)
        details.append(guesses_line(found.choice, call.out.name, rows, call.draft))
    weights, kv_cache = precisions(found.contract, found.choice, found.kind)
    weights = call.stage.weights if call.stage is not None and call.stage.weights else weights
    return title, f"model {call.model} · {weights} weights · {kv_cache} KV", details


def _counts(call: InferCall, counted: CallStatistics) -> str:
    about = "" if counted.exact else "≥ " if counted.at_least else "≈ "
    mean = counted.prompt_tokens / counted.asked if counted.asked else 0
    each = f" × {counted.prompts} prompts" if counted.prompts > 1 else ""
    priors = f", {counted.priors} of them without content, to calibrate" if counted.priors else ""
    output = f" · output ≤ {call.decoding.max_tokens}" if call.op == "generate" else " · no decoding"
    if counted.without:
        output += f" · LIMIT ends the run after about so many of {counted.without:,} rows"
    if counted.too_long:
        output += f" · {about}{counted.too_long:,} rows over the context"
    return (
        f"rows {about}{counted.rows:,}{each} → {about}{counted.distinct:,} distinct{priors} · prompt {mean:,.0f} tokens"
        f" ({counted.shared:,} shared), {about}{counted.prompt_tokens:,} in all{output}"
    )


def _rewrites(found: Explanation, names: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for step in found.applied:
        for title, plan in (("before", step.before), ("after", step.after)):
            lines += ["", f"-- {step.rule}, {title}:"]
            lines += _tree(plan, Explanation(plan, (), found.contract), user_names([step.before, step.after]))
    for column, frames in found.frames.items():
        lines += ["", f"-- frame of {names.get(column) or column}:", *("\n".join(frames)).splitlines()]
    return lines
