"""Statements."""

from dataclasses import dataclass

from dql.grammar.ast.clauses import ModelRef, Option, Quantity, SettingValue
from dql.grammar.ast.expressions import Column, String
from dql.grammar.ast.nodes import Expr, Node, Path, Statement, Word
from dql.grammar.ast.queries import Query


@dataclass(frozen=True, slots=True)
class QueryStatement(Statement):
    """A query with inference, or one with USING, WITH or INTO."""

    query: Query


@dataclass(frozen=True, slots=True)
class PlainSql(Statement):
    """A statement without inference: DuckDB's, whole, without its semicolon."""

    text: str


@dataclass(frozen=True, slots=True)
class Explain(Statement):
    """`EXPLAIN [ANALYZE] [(FORMAT json, CANDIDATES, REWRITES, ON 'hardware', ROWS n)] query`."""

    query: Query
    analyze: bool = False
    format: Word | None = None
    candidates: bool = False
    rewrites: bool = False
    on: String | None = None
    rows: Quantity | None = None


@dataclass(frozen=True, slots=True)
class Evaluate(Statement):
    """`EVALUATE query AGAINST gold [METRICS (…)]`: gold is a column of the result or another query."""

    query: Query
    against: Column | Query
    metrics: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateModel(Statement):
    """`CREATE MODEL name FROM 'uri' [WITH (option = value, …)]`."""

    name: str
    uri: String
    options: tuple[Option, ...] = ()
    or_replace: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class CreateAdapter(Statement):
    """`CREATE ADAPTER name FOR model FROM 'path'`."""

    name: str
    model: ModelRef
    path: String
    or_replace: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class CreateTable(Statement):
    """`CREATE TABLE name [(columns)] AS query`, with inference."""

    name: Path
    query: Query
    columns: tuple[str, ...] = ()
    or_replace: bool = False
    temporary: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class CreateView(Statement):
    """`CREATE VIEW name [(columns)] AS query`, with inference."""

    name: Path
    query: Query
    columns: tuple[str, ...] = ()
    or_replace: bool = False
    temporary: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """`name [:= default]` of a function."""

    name: str
    default: Expr | None = None


@dataclass(frozen=True, slots=True)
class CreateFunction(Statement):
    """`CREATE FUNCTION name(params) AS body`, with inference; MACRO is the same word."""

    name: Path
    params: tuple[Parameter, ...]
    body: Expr
    or_replace: bool = False
    temporary: bool = False
    if_not_exists: bool = False


@dataclass(frozen=True, slots=True)
class Drop(Statement):
    """kind is MODEL or ADAPTER; also VIEW or FUNCTION where that view or function holds inference."""

    kind: str
    name: Path
    if_exists: bool = False


@dataclass(frozen=True, slots=True)
class Insert(Statement):
    """`INSERT INTO table [(columns)] [BY NAME] query`, with inference."""

    table: Path
    query: Query
    columns: tuple[str, ...] = ()
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Copy(Statement):
    """`COPY (query) TO 'path' (options)`, with inference."""

    query: Query
    path: String
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Show(Statement):
    """what is MODELS, ADAPTERS, SETTINGS, RUNS, HARDWARE or FUNCTIONS."""

    what: str


@dataclass(frozen=True, slots=True)
class DescribeModel(Statement):
    """`DESCRIBE MODEL name`."""

    model: ModelRef


@dataclass(frozen=True, slots=True)
class DescribeQuery(Statement):
    """`DESCRIBE query`, with inference; `DESCRIBE v` of such a view is the query SELECT * FROM v."""

    query: Query


@dataclass(frozen=True, slots=True)
class SummarizeQuery(Statement):
    """`SUMMARIZE query`, with inference, like DescribeQuery."""

    query: Query


@dataclass(frozen=True, slots=True)
class SetSetting(Statement):
    """`SET name = value`; names that are not dql's are DuckDB's, by the statement's span."""

    name: Word
    value: SettingValue


@dataclass(frozen=True, slots=True)
class ResetSetting(Statement):
    """`RESET name`."""

    name: Word
