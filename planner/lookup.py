"""Inference where DuckDB must run the clause around it: ON of outer joins, subqueries that read the row around them.

There a call becomes a look-up. Its answer depends on the texts in its holes alone, so those texts are found first, by
a query over the same rows; they are answered; and the clause reads each answer from that table:

    p LEFT JOIN t ON t.who = p.name AND AI_FILTER('{t.body} is rude')
    → dql_in_0 = FILTER over SELECT DISTINCT t.body FROM p JOIN t ON t.who = p.name
      p LEFT JOIN t ON t.who = p.name AND (SELECT answer FROM dql_in_0 WHERE hole IS NOT DISTINCT FROM t.body)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dql.catalog import quote_name
from dql.errors import UnsupportedError
from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.grammar.walk import transform
from dql.planner.environment import Environment
from dql.planner.guards import Extractor, has_inference
from dql.planner.logical import Column, Infer, InferCall, Prompt, Scan, conjunction
from dql.planner.scope import describe, inputs_of, with_ctes

Items = tuple[ast.SelectItem, ...]
# The query that yields a select list for each row in question; the conditions say for which rows a call runs.
Source = Callable[[Items, Sequence[ast.Expr]], str]

_VARCHAR = ast.TypeName(("VARCHAR",))


@dataclass(frozen=True, slots=True)
class Rows:
    """Where rows come from: a FROM list and what must be TRUE of them. `outer` are the rows around a subquery."""

    tables: tuple[ast.Table, ...]
    where: tuple[ast.Expr, ...] = ()
    outer: "Rows | None" = None

    def select(self, items: Items, where: Sequence[ast.Expr] = ()) -> str:
        """A select list over these rows."""
        block = ast.Select(items=items, from_=self.tables, where=conjunction((*self.where, *where)))
        return self.within(to_sql(block))

    def within(self, query: str) -> str:
        """All rows of a query over these tables that reads the rows around them."""
        if self.outer is None:
            return query
        lateral = ast.DerivedTable(query=ast.Query(ast.Island(query)), alias="dql_o", lateral=True)
        tables, star = (*self.outer.tables, lateral), ast.SelectItem(ast.Star(("dql_o",)))
        return replace(self.outer, tables=tables).select((star,))


def by_lookup(expr: ast.Expr, source: Source, env: Environment) -> ast.Expr:
    """`expr` with each call a look-up; `source` yields the rows that the expression is evaluated for."""
    if not has_inference(expr):
        return expr
    extractor = Extractor(env)
    found = extractor.extract(expr)
    answers: dict[str, ast.Expr] = {}
    for call in extractor.calls:  # those in the holes and guards of another come before it
        answers[call.out.name] = _answer(_over(call, answers), source, env)
    return _filled(found, answers)


def _over(call: InferCall, answers: dict[str, ast.Expr]) -> InferCall:
    prompt = _filled(call.prompt, answers)
    assert isinstance(prompt, Prompt)
    return replace(call, prompt=prompt, guards=tuple(_filled(guard, answers) for guard in call.guards))


def _filled(expr: ast.Expr, answers: dict[str, ast.Expr]) -> ast.Expr:
    def visit(node: ast.Node) -> ast.Node:
        return answers.get(node.path[0], node) if isinstance(node, ast.Column) and len(node.path) == 1 else node

    found = transform(expr, visit)
    assert isinstance(found, ast.Expr)
    return found


def _answer(call: InferCall, source: Source, env: Environment) -> ast.Expr:
    """Plan the call over the distinct texts of its holes; the look-up of its answer."""
    if not call.decoding.is_function:
        hint = "give a seed, or move it to the select list"
        raise UnsupportedError("a sampled call does not run in this place", span=call.span, hint=hint)
    for part in call.prompt.parts:
        if isinstance(part, ast.Star):
            hint = "name the columns: '{title} {body}'"
            raise UnsupportedError("{*} does not run in this place", span=part.span, hint=hint)
    texts = [ast.Cast(part, _VARCHAR) for part in call.prompt.parts if isinstance(part, ast.Expr)]
    holes = tuple(env.new_column("hole", "VARCHAR") for _ in texts)
    parts = iter(holes)
    prompt = replace(call.prompt, parts=tuple(p if isinstance(p, str) else next(parts).ref for p in call.prompt.parts))
    scan = _distinct(texts, holes, source, call.guards, env)
    plan = Infer(scan, (replace(call, prompt=prompt, guards=(), out=env.new_column(call.text, call.out.type)),))
    table = env.keep_plan(plan, (*(c.type for c in scan.columns), call.out.type))
    same = [ast.IsDistinct(c.ref, text, negated=True) for c, text in zip(holes, texts, strict=True)]
    items = (ast.SelectItem(plan.columns[-1].ref),)
    return ast.Subquery(ast.Query(ast.Island(Rows((ast.TableRef(name=(table,)),)).select(items, same))))


def _distinct(
    texts: Sequence[ast.Expr], holes: tuple[Column, ...], source: Source, guards: Sequence[ast.Expr], env: Environment
) -> Scan:
    columns = holes or (env.new_column("row", "INTEGER"),)
    asked = zip(texts or [ast.Number("1")], columns, strict=True)
    items = tuple(ast.SelectItem(text, column.name) for text, column in asked)
    names = ", ".join(quote_name(c.name) for c in columns)
    sql = with_ctes(env, f"SELECT DISTINCT {names} FROM ({source(items, guards)})")
    describe(env, sql)
    return Scan(columns, sql, inputs_of(sql, env), "the texts that this call is asked about")
