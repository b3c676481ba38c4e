"""What the columns of a query block are: leaves of its expressions, computed by one Scan over its FROM.

A leaf is what only DuckDB can resolve in the user's own FROM: a column, a star, a subquery. Each becomes a plan column
`_n`; the rest of every expression is then over plan columns and can be moved anywhere.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TypeVar

from dql.catalog import behind, quote_name
from dql.errors import DqlError, UnsupportedError
from dql.grammar import ast
from dql.grammar.unparse import to_sql
from dql.grammar.walk import children, transform, walk, with_children
from dql.planner.environment import ColumnInfo, Environment
from dql.planner.guards import Inference, has_inference
from dql.planner.logical import Column, LogicalPlan, Prompt, Scan, is_volatile
from dql.planner.places import no_column, placed
from dql.planner.row_text import SAMPLE_ROWS, RowText, sharing_order

N = TypeVar("N", bound=ast.Node)
Fields = tuple[ColumnInfo, ...]


@dataclass(frozen=True, slots=True)
class Known(ast.Expr):
    """A finished part, over plan columns, of an expression that is otherwise still the user's."""

    expr: ast.Expr


class Scope:
    """The FROM of one block. Ask for columns while binding, then `plan()` for the Scan that yields them."""

    def __init__(
        self, env: Environment, tables: tuple[ast.Table, ...], sample: ast.Sample | None, written: tuple[ast.Table, ...]
    ) -> None:
        """`tables` hold no inference; `written` is FROM as the user wrote it."""
        self.env = env
        self.tables = tables
        self.written = written
        self._from = f" FROM {', '.join(to_sql(t) for t in tables)}" if tables else ""
        self._sample = f" USING SAMPLE {to_sql(sample)}" if sample else ""
        self._items: dict[ast.Node, tuple[Column, ...]] = {}
        self._known: dict[str, str] | None = None

    @property
    def known(self) -> dict[str, str]:
        """Lower-case column names of FROM and their types."""
        if self._known is None:
            fields = self.describe("*") if self.tables else ()
            self._known = {name.lower(): sql_type for name, sql_type in fields}
        return self._known

    @property
    def known_or_none(self) -> dict[str, str] | None:
        """`known`, or None where FROM itself cannot be described."""
        try:
            return self.known
        except DqlError:
            return None

    def can_read(self, predicate: ast.Expr) -> bool:
        """Whether a predicate reads columns of FROM alone, no aliases of the select list."""
        columns = [node for node in walk(predicate) if isinstance(node, ast.Column)]
        return all(len(column.path) > 1 or column.path[0].lower() in self.known for column in columns)

    def describe(self, items: str) -> tuple[tuple[str, str], ...]:
        """Names and types of a select list over this FROM."""
        return tuple((f.name, f.type) for f in describe(self.env, self.sql(items)))

    def sql(self, items: str) -> str:
        """A query over this FROM, with the CTEs that it reads."""
        return with_ctes(self.env, f"SELECT {items}{self._from}{self._sample}")

    def leaf(self, node: ast.Expr) -> ast.Column:
        """The plan column that holds this leaf."""
        if node not in self._items:
            self._items[node] = (self.env.new_column(_label(node), self._type(node)),)
        return replace(self._items[node][0].ref, span=node.span)

    def star(self, node: ast.Expr | ast.Star) -> tuple[tuple[str, Column], ...]:
        """The columns of a star, or of COLUMNS(…), with their names."""
        fields = self.describe(to_sql(node))
        if node not in self._items:
            self._items[node] = tuple(self.env.new_column(name, sql_type) for name, sql_type in fields)
        return tuple((name, column) for (name, _), column in zip(fields, self._items[node], strict=True))

    def internal(self, expr: ast.Expr) -> ast.Expr:
        """`expr` over plan columns: every leaf replaced."""
        found = _internal(expr, self.leaf, self._row_text, frozenset())
        assert isinstance(found, ast.Expr)
        return found

    def _row_text(self, star: ast.Star) -> RowText:
        """The columns of a star in a template, with the order in which a sample of the rows shares most."""
        found = self.star(star)
        sql, best = self.sql(to_sql(star)), tuple[int, ...]()
        tables = [t for table in self.tables for t in _joined(table)]
        if len(found) > 1 and "$" not in sql and all(isinstance(t, ast.FileRef) or self._is_stored(t) for t in tables):
            limited = f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM (SELECT * FROM ({sql}) LIMIT {SAMPLE_ROWS})"
            rows = self.env.catalog.rows(limited)
            best = sharing_order(rows) if rows else ()
        return RowText(*_named(found, star), best, span=star.span)

    def label(self, column: ast.Column) -> str | None:
        """What the user calls this plan column; None if it is none of FROM's."""
        found = (c for columns in self._items.values() for c in columns if c.name == column.path[0])
        return next((c.label for c in found), None)

    def plan(self) -> Scan:
        """The plan that yields every leaf asked for, one row per row of FROM."""
        self._check_leaves()
        items = dict(self._items) or {ast.Number("1"): (self.env.new_column("row"),)}
        columns = tuple(c for found in items.values() for c in found)
        inner = self.sql(", ".join(to_sql(item) for item in items))
        aliases = ", ".join(quote_name(c.name) for c in columns)
        label = ", ".join(to_sql(t) for t in self.tables) or "one row"
        sql = f"SELECT * FROM ({inner}) AS dql_scan({aliases})"
        tables = [t for table in self.tables for t in _joined(table)]
        files = tuple(to_sql(t.path) for t in tables if len(tables) > 1 and isinstance(t, ast.FileRef))
        return Scan(columns, sql, inputs_of(inner, self.env), label, self._sides(tables, items), files)

    def _sides(self, tables: list[ast.Table], items: Mapping[ast.Node, tuple[Column, ...]]) -> tuple[str, ...]:
        """For each output the table that it comes from, where FROM joins stored tables and files; () elsewhere."""
        parts = [*self.tables, *(item for item in items if not isinstance(item, ast.Column | ast.Star))]
        if self._sample or len(tables) < 2 or any(is_volatile(p) or _holds_query(p) for p in parts):
            return ()
        known: dict[str, set[str]] = {}
        for table in tables:
            if not _is_plain_file(table) and not self._is_stored(table):
                return ()
            fields = describe(self.env, f"SELECT * FROM {to_sql(table)}")
            known[_name(table).lower()] = {f.name.lower() for f in fields}
        return tuple(_side(item, known) for item, columns in items.items() for _ in columns)

    def _is_stored(self, table: ast.Table) -> bool:
        """Whether a table of FROM is one of the session's or the caller's, with the same rows whenever it is read."""
        if not isinstance(table, ast.TableRef) or table.columns or table.sample:
            return False
        is_cte = table.name[-1].lower() in {cte.name.lower() for cte in self.env.ctes}
        return not is_cte and self.env.catalog.is_stored(table.name[-1])

    def _type(self, node: ast.Expr) -> str:
        return self.known.get(node.path[0].lower(), "") if isinstance(node, ast.Column) and len(node.path) == 1 else ""

    def _check_leaves(self) -> None:
        """Let DuckDB resolve the leaves; its complaint is put at the leaf that caused it."""
        leaves = [node for node in self._items if not isinstance(node, ast.Star)]
        try:
            self.describe(", ".join(to_sql(leaf) for leaf in leaves or [ast.Number("1")]))
        except DqlError as error:
            for node in (*leaves, *self.written):
                error = placed(error, node, self.known_or_none, self.env)
            raise error


class PlanScope:
    """The FROM of a block that reads one query with inference and nothing else: that query's plan streams through."""

    def __init__(
        self, env: Environment, alias: str | None, plan: LogicalPlan, names: Sequence[str], types: Sequence[str]
    ) -> None:
        """`names` and `types` are those of the plan's columns."""
        self.env = env
        self._alias = alias
        self._plan = plan
        self._columns = {n.lower(): replace(c, label=n) for n, c in zip(names, plan.columns, strict=True)}
        self.known = self.known_or_none = {n.lower(): t for n, t in zip(names, types, strict=True)}

    def internal(self, expr: ast.Expr) -> ast.Expr:
        """`expr` over plan columns."""
        found = _internal(expr, self._leaf, self._row_text, frozenset())
        assert isinstance(found, ast.Expr)
        return found

    def _row_text(self, star: ast.Star) -> RowText:
        """The columns of a star in a template, in the order written: what they hold is not known yet."""
        found = self.star(star)
        return RowText(*_named(found, star), span=star.span)

    def star(self, node: ast.Expr | ast.Star) -> tuple[tuple[str, Column], ...]:
        """All columns but the excluded ones."""
        assert isinstance(node, ast.Star), "blocks with COLUMNS do not stream"
        excluded = {path[-1].lower() for path in node.exclude}
        return tuple((c.label, c) for name, c in self._columns.items() if name not in excluded)

    @property
    def tables(self) -> tuple[ast.Table, ...]:
        """A table of these columns' names and types, for describing."""
        row = ", ".join(f"CAST(NULL AS {t}) AS {quote_name(self._columns[n].label)}" for n, t in self.known.items())
        return (ast.DerivedTable(query=ast.Query(ast.Island(f"SELECT {row}")), alias=self._alias),)

    def label(self, column: ast.Column) -> str | None:
        """What the user calls this plan column; None if it is none of the query's."""
        return next((c.label for c in self._columns.values() if c.name == column.path[0]), None)

    def plan(self) -> LogicalPlan:
        return self._plan

    def _leaf(self, node: ast.Expr) -> ast.Expr:
        if not isinstance(node, ast.Column):
            new = [
                self.internal(n) if isinstance(n, ast.Expr) else _self_contained(n, self.env) for n in children(node)
            ]
            return with_children(node, new)  # type: ignore[return-value]
        path = node.path[1:] if len(node.path) > 1 and self._is_alias(node.path[0]) else node.path
        column = self._columns.get(path[0].lower())
        if column is None:
            raise no_column(replace(node, path=path), self.known)
        found: ast.Expr = replace(column.ref, span=node.span)
        for name in path[1:]:
            found = ast.FieldAccess(ast.Paren(found), name, span=node.span)
        return found

    def _is_alias(self, name: str) -> bool:
        return self._alias is not None and name.lower() == self._alias.lower() and name.lower() not in self.known


def _named(found: Sequence[tuple[str, Column]], star: ast.Star) -> tuple[tuple[str, ...], tuple[ast.Expr, ...]]:
    """The names and columns of a star, each blamed where the star stands."""
    return tuple(name for name, _ in found), tuple(replace(column.ref, span=star.span) for _, column in found)


def _holds_query(node: ast.Node) -> bool:
    return any(isinstance(n, ast.Query) for n in walk(node))


def _joined(table: ast.Table) -> list[ast.Table]:
    """The tables of a join."""
    if not isinstance(table, ast.JoinChain):
        return [table]
    return [t for part in (table.first, *(join.table for join in table.joins)) for t in _joined(part)]


def _is_plain_file(table: ast.Table) -> bool:
    return isinstance(table, ast.FileRef) and not table.columns and not table.sample


def _name(table: ast.Table) -> str:
    """What columns of a stored table or a file can be qualified with."""
    assert isinstance(table, ast.TableRef | ast.FileRef)
    if table.alias:
        return table.alias
    return table.name[-1] if isinstance(table, ast.TableRef) else PurePath(table.path.value).name.partition(".")[0]


def _side(item: ast.Node, known: Mapping[str, set[str]]) -> str:
    """The one table that a leaf is a column of, "" where there is none."""
    if not isinstance(item, ast.Column):
        return ""
    if len(item.path) > 1:
        return item.path[0].lower() if item.path[0].lower() in known else ""
    found = [name for name, columns in known.items() if item.path[0].lower() in columns]
    return found[0] if len(found) == 1 else ""


def alone(node: N, env: Environment) -> N | None:
    """`node` with its queries free of anything around them, or None where one reads the row around it."""
    queries = [n for n in walk(node) if isinstance(n, ast.Query)]
    try:
        for query in queries:
            describe(env, with_ctes(env, to_sql(query)))
    except DqlError:
        return None
    return transform(node, lambda n: _self_contained(n, env))  # type: ignore[return-value]


def _self_contained(node: ast.Node, env: Environment) -> ast.Node:
    """A query with the CTEs that it reads; any other node as it is."""
    return ast.Query(ast.Island(with_ctes(env, to_sql(node)))) if isinstance(node, ast.Query) else node


def with_ctes(env: Environment, sql: str) -> str:
    """`sql` behind the CTEs that it reads, directly or through one another."""
    if not env.ctes:
        return sql
    by_name = {cte.name.lower(): cte for cte in env.ctes}
    wanted: set[str] = set()
    pending = [sql]
    while pending:
        for name in env.catalog.table_names(pending.pop()):
            key = name.strip('"').lower()
            if key in by_name and key not in wanted:
                wanted.add(key)
                pending.append(to_sql(by_name[key].query))
    used = [to_sql(cte) for key, cte in by_name.items() if key in wanted]
    return f"WITH {'RECURSIVE ' if env.recursive else ''}{', '.join(used)} {sql}" if used else sql


def describe(env: Environment, sql: str) -> Fields:
    """Columns of a query that may read bound plans, without running anything."""
    stubs = {name: f"SELECT {env.stub(name)}" for name, _ in inputs_of(sql, env)}
    return tuple(env.catalog.describe(behind(stubs, sql), env.params))


def inputs_of(sql: str, env: Environment) -> tuple[tuple[str, LogicalPlan], ...]:
    """The plans that a piece of SQL reads as tables."""
    if not any(name in sql for name in env.plans):
        return ()
    named = env.catalog.table_names(sql)
    return tuple((name, plan) for name, (plan, _) in env.plans.items() if name in named)


def _internal(
    node: ast.Node,
    leaf: Callable[[ast.Expr], ast.Expr],
    row_text: Callable[[ast.Star], RowText],
    bound: frozenset[str],
) -> ast.Node:
    """Replace leaves, and stars in templates, top-down; names bound by a lambda or comprehension stay."""
    if isinstance(node, Known):
        return node.expr
    if isinstance(node, Prompt):
        whole = (row_text(part) if isinstance(part, ast.Star) else part for part in node.parts)
        node = replace(node, parts=tuple(whole))
    if isinstance(node, RowText):
        return node
    if isinstance(node, ast.Column):
        return node if node.path[0].lower() in bound else leaf(node)
    if isinstance(node, Inference) and any(
        isinstance(n, ast.Column) and n.path[0].lower() in bound for n in walk(node)
    ):
        hint = "make rows of the list first: SELECT … FROM (SELECT unnest(items) AS item FROM t)"
        raise UnsupportedError("inference over the items of a list does not run", span=node.span, hint=hint)
    if isinstance(node, ast.Subquery | ast.Exists | ast.ArraySubquery | ast.Positional):
        return leaf(node)
    if isinstance(node, ast.In) and isinstance(node.container, ast.Subquery):
        if has_inference(node.operand):
            return with_children(node, [_internal(node.operand, leaf, row_text, bound), node.container])
        return leaf(node)
    if isinstance(node, ast.Comparison | ast.Operation) and any(isinstance(n, ast.Quantified) for n in children(node)):
        return leaf(node)
    if isinstance(node, ast.Lambda):
        bound = bound | {name.lower() for name in node.params}
    elif isinstance(node, ast.Comprehension):
        bound = bound | {name.lower() for name in node.names}
    elif isinstance(node, ast.Call) and node.name[-1].lower() == "columns":
        hint = "name the columns, or move COLUMNS(…) into a subquery"
        raise UnsupportedError("COLUMNS beside inference does not run", span=node.span, hint=hint)
    return with_children(node, [_internal(child, leaf, row_text, bound) for child in children(node)])


def _label(node: ast.Expr) -> str:
    return node.path[-1] if isinstance(node, ast.Column) else to_sql(node)
