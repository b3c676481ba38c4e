"""DuckDB's complaints about names, put where the user wrote them, with the names that exist."""

import re
from collections.abc import Collection
from fnmatch import fnmatch

from dql.errors import BindError, DqlError, name_hint, nearest
from dql.grammar import ast
from dql.grammar.names import INFERENCE_NAMES, SHOWN
from dql.grammar.walk import walk
from dql.planner.environment import Environment
from dql.planner.vendors import INSTEAD

_TABLE = re.compile(r"Table with name (\S+) does not exist", re.IGNORECASE)
_FILE = re.compile(r"['\"]([^'\"]+\.[A-Za-z]+)['\"]|^no file (.+)$")
_ALIAS = re.compile(r"Referenced table \"([^\"]+)\" not found")
_COLUMN = re.compile(r"[Cc]olumn(?: name)? \"([^\"]+)\"|named \"([^\"]+)\"")
_FUNCTION = re.compile(r"Function with name (\S+) does not exist", re.IGNORECASE)
_FUNCTIONS = tuple(name for name in INFERENCE_NAMES if "." not in name)
_READ = "parquet, csv, tsv, json, jsonl, ndjson, arrow and feather"


def placed(error: DqlError, node: ast.Node, columns: Collection[str] | None, env: Environment) -> DqlError:
    """The error with a place inside `node`, where its message names something that stands there."""
    if error.span is not None:
        return error
    nodes = list(walk(node))
    found = named(error, env.catalog.names())
    if (match := _TABLE.search(error.message)) is not None:
        name = match[1].strip('"').lower()
        found.span = next((n.span for n in nodes if _names_table(n, name)), None)
    elif (match := _FILE.search(error.message)) is not None:
        path = match[1] or match[2]
        found.span = next((n.span for n in nodes if isinstance(n, ast.FileRef) and _holds(n.path.value, path)), None)
    elif (match := _FUNCTION.search(error.message)) is not None:
        name = match[1].strip('"').lower().rpartition(".")[2]
        found.span = next((n.span for n in nodes if isinstance(n, ast.Call) and n.name[-1].lower() == name), None)
    elif (match := _ALIAS.search(error.message)) is not None:
        columns_of = (n.span for n in nodes if isinstance(n, ast.Column) and len(n.path) > 1 and n.path[0] == match[1])
        found.span = next(columns_of, None)
    elif (match := _COLUMN.search(error.message)) is not None:
        return _column(found, (match[1] or match[2]).rpartition(".")[2], nodes, columns)
    return found


def named(error: DqlError, tables: Collection[str]) -> DqlError:
    """The error in dql's words where it is about an unknown table or function: DuckDB does not know all that exist."""
    found = error
    if (match := _TABLE.search(error.message)) is not None:
        name = match[1].strip('"')
        if "." in name and "/" not in name.rpartition(".")[2]:
            found = BindError(f"no table {name}, and no kind of file", hint=f"dql reads {_READ} by their suffix")
        elif name.upper() in SHOWN:
            hint = f"SHOW {name.upper()} is a statement by itself, which no query reads from"
            found = BindError(f"no table {name}", hint=hint)
        else:
            found = BindError(f"no table {name}", hint=name_hint(name, tables))
    elif (match := _FUNCTION.search(error.message)) is not None:
        name = match[1].strip('"')
        if (instead := INSTEAD.get(name.lower().rpartition(".")[2])) is not None:
            found = BindError(f"no function {name}", hint=f"write {instead}")
        elif nearest(name, _FUNCTIONS):
            found = BindError(f"no function {name}", hint=name_hint(name, _FUNCTIONS))
    found.excerpt = error.excerpt
    return found


def no_column(node: ast.Column, columns: Collection[str]) -> BindError:
    """The error for a column that FROM does not have."""
    name = node.path[0]
    hint = name_hint(name, columns)
    if not name.isidentifier() and not nearest(name, columns):
        hint = f"text stands in single quotes: '{name}'"
    return BindError(f"no column {name}", span=node.span, hint=hint)


def _names_table(node: ast.Node, name: str) -> bool:
    if isinstance(node, ast.TableRef):
        return ".".join(node.name).lower() == name or node.name[-1].lower() == name
    return isinstance(node, ast.FileRef) and node.path.value.lower() == name


def _holds(pattern: str, path: str) -> bool:
    """Whether a path of FROM, perhaps with wildcards, may be the one that an error names."""
    return pattern in path or fnmatch(path, pattern)


def _column(error: DqlError, name: str, nodes: list[ast.Node], columns: Collection[str] | None) -> DqlError:
    for node in nodes:
        if isinstance(node, ast.Column) and node.path[-1].lower() == name.lower():
            if len(node.path) == 1 and columns is not None and name.lower() not in columns:
                return no_column(node, columns)
            error.span = node.span
            return error
    return error
