"""DuckDB's complaints about names, put where the user wrote them, with the names that exist."""

import re
from collections.abc import Collection

from dql.errors import BindError, DqlError, name_hint
from dql.grammar import ast
from dql.grammar.walk import walk
from dql.planner.environment import Environment

_TABLE = re.compile(r"Table with name (\S+) does not exist", re.IGNORECASE)
_FILE = re.compile(r"['\"]([^'\"]+\.[A-Za-z]+)['\"]")
_COLUMN = re.compile(r"[Cc]olumn \"([^\"]+)\"|named \"([^\"]+)\"")
_FUNCTION = re.compile(r"Function with name (\S+) does not exist", re.IGNORECASE)


def placed(error: DqlError, node: ast.Node, columns: Collection[str] | None, env: Environment) -> DqlError:
    """The error with a place inside `node`, where its message names something that stands there."""
    if error.span is not None:
        return error
    nodes = list(walk(node))
    if (match := _TABLE.search(error.message)) is not None:
        name = match[1].strip('"')
        for table in nodes:
            if isinstance(table, ast.TableRef) and table.name[-1].lower() == name.lower():
                return BindError(f"no table {name}", span=table.span, hint=name_hint(name, env.catalog.names()))
    if (match := _FILE.search(error.message)) is not None:
        error.span = next((n.span for n in nodes if isinstance(n, ast.FileRef) and n.path.value in match[1]), None)
    if (match := _FUNCTION.search(error.message)) is not None:
        error.span = next((n.span for n in nodes if isinstance(n, ast.Call) and n.name[-1] == match[1]), None)
    if (match := _COLUMN.search(error.message)) is not None:
        return _column(error, (match[1] or match[2]).rpartition(".")[2], nodes, columns)
    return error


def _column(error: DqlError, name: str, nodes: list[ast.Node], columns: Collection[str] | None) -> DqlError:
    for node in nodes:
        if isinstance(node, ast.Column) and node.path[-1].lower() == name.lower():
            if len(node.path) == 1 and columns is not None and name.lower() not in columns:
                return BindError(f"no column {node.path[0]}", span=node.span, hint=name_hint(name, columns))
            error.span = node.span
            return error
    return error
