"""Views and functions with inference: kept as trees in the session and, in a database file, as DQL text that lasts."""

from dataclasses import dataclass, field

from dql.catalog import Catalog
from dql.grammar import ast
from dql.grammar.parser import parse
from dql.grammar.unparse import to_sql
from dql.planner.environment import Macro

Created = ast.CreateView | ast.CreateFunction


@dataclass
class Names:
    """What a session calls by name beside DuckDB's own tables and functions. Keys are lower case."""

    catalog: Catalog
    lasting: bool
    macros: dict[str, Macro] = field(default_factory=dict)
    views: dict[str, ast.Query] = field(default_factory=dict)

    def load(self) -> None:
        """Read what the database file holds."""
        if not self.lasting:
            return
        self.catalog.execute("CREATE SCHEMA IF NOT EXISTS dql")
        self.catalog.execute("CREATE TABLE IF NOT EXISTS dql.names (kind VARCHAR, name VARCHAR, text VARCHAR)")
        rows = self.catalog.rows("SELECT kind, name, text FROM dql.names ORDER BY rowid")
        functions = frozenset(name for kind, name, _ in rows if kind == "FUNCTION")
        tables = frozenset(name for kind, name, _ in rows if kind == "VIEW")
        for _, name, text in rows:
            for statement in parse(text, functions, tables):
                if isinstance(statement, Created):
                    self._keep(name, statement)

    def create(self, statement: Created) -> None:
        """Remember a view or function in place of one of its name."""
        name, kind = statement.name[-1].lower(), _kind(statement)
        self._keep(name, statement)
        if self.lasting and not statement.temporary:
            self._forget(kind, name)
            values = {"kind": kind, "name": name, "text": to_sql(statement)}
            self.catalog.execute("INSERT INTO dql.names VALUES ($kind, $name, $text)", values)

    def drop(self, kind: str, name: str) -> None:
        """Forget a view or function."""
        (self.views if kind == "VIEW" else self.macros).pop(name.lower())
        if self.lasting:
            self._forget(kind, name.lower())

    def _keep(self, name: str, statement: Created) -> None:
        if isinstance(statement, ast.CreateView):
            self.views[name] = view_query(statement)
        else:
            self.macros[name] = Macro(statement.params, statement.body)

    def _forget(self, kind: str, name: str) -> None:
        self.catalog.execute("DELETE FROM dql.names WHERE kind = $kind AND name = $name", {"kind": kind, "name": name})


def view_query(statement: ast.CreateView) -> ast.Query:
    """What a view stands for: its query, under the column names that it gives."""
    if not statement.columns:
        return statement.query
    renamed = ast.DerivedTable(alias=statement.name[-1], columns=statement.columns, query=statement.query)
    return ast.Query(ast.Select((ast.SelectItem(ast.Star()),), from_=(renamed,)), span=statement.query.span)


def _kind(statement: Created) -> str:
    return "VIEW" if isinstance(statement, ast.CreateView) else "FUNCTION"
