"""FROM, SELECT, the verbs, and what joins them into a query."""

from dataclasses import dataclass

from dql.grammar.ast.calls import Call, OrderItem, Star, TypeName, WindowSpec
from dql.grammar.ast.clauses import Contract, Into, Using
from dql.grammar.ast.expressions import Number, Row, String
from dql.grammar.ast.nodes import Expr, Node, Path, QueryBody, Table


@dataclass(frozen=True, slots=True)
class Sample(Node):
    """`10 PERCENT`, `reservoir(50 ROWS) REPEATABLE (7)`; unit is PERCENT or ROWS."""

    size: Number
    unit: str | None = None
    method: str | None = None
    seed: Number | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTable(Table):
    """A table that may have `AS alias(columns) TABLESAMPLE …`."""

    alias: str | None = None
    columns: tuple[str, ...] = ()
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class TableRef(NamedTable):
    """`t`, `schema.t`: a table, view, CTE, or a frame of the caller."""

    name: Path


@dataclass(frozen=True, slots=True)
class FileRef(NamedTable):
    """`'tickets/*.parquet'`."""

    path: String


@dataclass(frozen=True, slots=True)
class TableFunction(NamedTable):
    """`[LATERAL] read_csv('x.csv', header = true) [WITH ORDINALITY]`."""

    call: Call
    lateral: bool = False
    ordinality: bool = False


@dataclass(frozen=True, slots=True)
class DerivedTable(NamedTable):
    """`[LATERAL] (query)`."""

    query: "Query"
    lateral: bool = False


@dataclass(frozen=True, slots=True)
class ParenTable(NamedTable):
    """`(a JOIN b ON …)`."""

    table: Table


@dataclass(frozen=True, slots=True)
class Join(Node):
    """`kind JOIN table [ON expr | USING (names)]`.

    kind is INNER, LEFT, RIGHT, FULL, SEMI, ANTI, CROSS or POSITIONAL, perhaps after ASOF or NATURAL.
    """

    kind: str
    table: Table
    on: Expr | None = None
    using: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinChain(Table):
    """`a JOIN b … JOIN c …`: joined from left to right."""

    first: Table
    joins: tuple[Join, ...]


@dataclass(frozen=True, slots=True)
class SelectItem(Node):
    """`expr [AS alias]`."""

    expr: Expr | Star
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Distinct(Node):
    """`DISTINCT` or `DISTINCT ON (…)`."""

    on: tuple[Expr, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupingSets(Node):
    """`GROUPING SETS ((a), (a, b), ())`: each set is a Paren, a Row or an expression."""

    sets: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class GroupBy(Node):
    """`GROUP BY …`; no items mean GROUP BY ALL."""

    items: tuple[Expr | GroupingSets, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedWindow(Node):
    """`name AS (…)` of a WINDOW clause."""

    name: str
    spec: WindowSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(QueryBody):
    """The clauses that SELECT and the verbs share."""

    from_: tuple[Table, ...] = ()
    where: Expr | None = None
    group_by: GroupBy | None = None
    having: Expr | None = None
    windows: tuple[NamedWindow, ...] = ()
    qualify: Expr | None = None
    sample: Sample | None = None


@dataclass(frozen=True, slots=True)
class Select(Block):
    """`SELECT …`; `FROM t` alone is SELECT *, and FROM-first order is not kept."""

    items: tuple[SelectItem, ...]
    distinct: Distinct | None = None


@dataclass(frozen=True, slots=True)
class VerbItem(Node):
    """One item of a verb. CLASSIFY has labels, SCORE low and high, EXTRACT and perhaps GENERATE a type."""

    input: Expr
    labels: Expr | None = None
    low: Expr | None = None
    high: Expr | None = None
    type: TypeName | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class VerbQuery(Block):
    """verb is GENERATE, CLASSIFY, SCORE, EXTRACT or EMBED."""

    verb: str
    items: tuple[VerbItem, ...]


@dataclass(frozen=True, slots=True)
class SetOperation(QueryBody):
    """A flat chain, left to right, of UNION and EXCEPT, or of INTERSECT: `UNION ALL BY NAME`, `EXCEPT`, …"""

    branches: tuple[QueryBody, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Values(QueryBody):
    """`VALUES (…), (…)`."""

    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class NestedQuery(QueryBody):
    """A query in parentheses as a branch of a set operation, or as the whole body."""

    query: "Query"


@dataclass(frozen=True, slots=True)
class Island(QueryBody):
    """A query without inference, verbatim, without its parentheses; DuckDB's to read."""

    text: str


@dataclass(frozen=True, slots=True)
class Limit(Node):
    """`LIMIT count` or `LIMIT count%`."""

    count: Expr
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Cte(Node):
    """`name(columns) [USING KEY (…)] AS [[NOT] MATERIALIZED] (query)`."""

    name: str
    query: "Query"
    columns: tuple[str, ...] = ()
    materialized: bool | None = None
    using_key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query(Node):
    """A whole query. Contract and INTO are the outermost query's only."""

    body: QueryBody
    ctes: tuple[Cte, ...] = ()
    recursive: bool = False
    order_by: tuple[OrderItem, ...] = ()
    limit: Limit | None = None
    offset: Expr | None = None
    using: Using | None = None
    contract: Contract | None = None
    into: Into | None = None
