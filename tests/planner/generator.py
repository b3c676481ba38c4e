"""Random queries with inference, each in two spellings: dql's, and DuckDB's with Python functions for the calls.

The functions answer by the rules of the fake model (tests/fake_session.py), so that DuckDB alone, which knows nothing
of plans, says what every query must yield.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import duckdb

from tests.fake_session import CHOSEN, choose

LABELS = (("red", "blue"), ("one", "two", "three"))
TABLES = """
CREATE TABLE r AS FROM (VALUES
    (1, 10, 'red one', 'blue'), (2, NULL, 'blue two!', 'two'), (3, 5, NULL, 'red'), (4, 10, 'three', NULL),
    (1, 7, 'red red', 'one'), (NULL, 3, 'blue', 'blue two'), (2, 10, '', 'red'), (5, 1, 'two red!!', 'red'),
    (3, 5, 'red one', 'blue'), (4, NULL, NULL, NULL)
) AS t(a, b, s, u);
CREATE TABLE q AS FROM (VALUES
    (1, 2, 'red', 'one'), (2, 2, 'blue', 'two red'), (2, 9, NULL, 'blue'), (6, 1, 'three!', 'x'),
    (NULL, 4, 'one', 'one')
) AS t(k, m, t, v)
"""


@dataclass(frozen=True)
class Sql:
    """A piece of a query in both spellings."""

    dql: str
    oracle: str

    @classmethod
    def same(cls, text: str) -> "Sql":
        return cls(text, text)


@dataclass(frozen=True)
class Columns:
    """Columns by type that a place of a query can read."""

    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    outer: bool = True  # whether subqueries may read them

    def __add__(self, other: "Columns") -> "Columns":
        return Columns(self.numbers + other.numbers, self.texts + other.texts)


R, Q = Columns(("a", "b"), ("s", "u")), Columns(("k", "m"), ("t", "v"), outer=False)


def join(template: str, *parts: Sql) -> Sql:
    """Parts put into a template with {} places."""
    return Sql(template.format(*(p.dql for p in parts)), template.format(*(p.oracle for p in parts)))


class Generator:
    """Draws queries; the same seed always draws the same ones."""

    def __init__(self, seed: int) -> None:
        self._draw = Random(seed)

    def query(self) -> Sql:
        """A whole query whose rows are the same in whatever order they are computed."""
        kinds = (self._plain, self._plain, self._plain, self._grouped, self._grouped, self._windowed, self._union)
        found = self._draw.choice(kinds)(2)
        if self._chance(0.4):
            limit = f" LIMIT {self._draw.randint(0, 6)}" if self._chance(0.6) else ""
            found = join(f"{{}} ORDER BY ALL{limit}", found)
        return found

    def source(self) -> tuple[Sql, Columns]:
        """FROM without the word, and its columns."""
        return self._source(2)

    def predicate(self, columns: Columns) -> Sql:
        """A condition."""
        return self._bool(columns, 3)

    # ---- blocks -------------------------------------------------------------------------------------------------

    def _plain(self, depth: int) -> Sql:
        source, columns = self._source(depth)
        count = self._draw.randint(1, 3)
        items = [join(f"{{}} AS c{i}", self._any(columns, depth)) for i in range(count)]
        distinct = "DISTINCT " if self._chance(0.2) else ""
        return join(f"SELECT {distinct}{', '.join(['{}'] * count)} FROM {{}}{{}}", *items, source, self._where(columns))

    def _grouped(self, depth: int) -> Sql:
        source, columns = self._source(depth)
        texts = [self._chance(0.7) for _ in range(self._draw.randint(0, 2))]
        keys = [(self._text if text else self._number)(columns, 1) for text in texts]
        named = [join(f"{{}} AS g{i}", key) for i, key in enumerate(keys)]
        aggregates = [join(f"{{}} AS x{i}", self._aggregate(columns)) for i in range(self._draw.randint(1, 2))]
        items = [*named, *aggregates]
        names = [f"g{i}" for i in range(len(keys))]
        positions = [str(i + 1) for i in range(len(keys))]
        group = self._draw.choice(
            [", ".join(names), ", ".join(positions), "ALL", f"ROLLUP ({', '.join(names)})"] if keys else [""]
        )
        tail = Sql.same(f" GROUP BY {group}" if group else "")
        if keys and self._chance(0.4):
            tail = join("{} HAVING {}", tail, join("count(*) > {}", Sql.same(str(self._draw.randint(0, 2)))))
            if group != "ALL" and not group.startswith("ROLLUP"):  # there DuckDB groups by what HAVING reads as well
                above = Columns(("count(*)",), tuple(n for n, text in zip(names, texts, strict=True) if text), False)
                tail = join("{} AND {}", tail, self._bool(above, 0))
        block = join(f"SELECT {', '.join(['{}'] * len(items))} FROM {{}}{{}}", *items, source, self._where(columns))
        return join("{}{}", block, tail)

    def _windowed(self, depth: int) -> Sql:
        source, columns = self._source(depth)
        key, value = self._text(columns, 1), self._number(columns, 1)
        over = join(
            self._draw.choice(["sum({1}) OVER (PARTITION BY {0})", "rank() OVER (PARTITION BY {0} ORDER BY {1})"]),
            key,
            value,
        )
        items = (self._any(columns, 1), over)
        block = join("SELECT {} AS c0, {} AS w FROM {}{}", *items, source, self._where(columns))
        return join("{} QUALIFY w > {}", block, Sql.same("1")) if self._chance(0.4) else block

    def _union(self, depth: int) -> Sql:
        branches = []
        for _ in range(2):
            source, columns = self._source(1)
            items = self._text(columns, depth), self._number(columns, 1)
            branches.append(join("SELECT {} AS c0, {} AS c1 FROM {}{}", *items, source, self._where(columns)))
        operator = self._draw.choice(["UNION ALL", "UNION", "EXCEPT", "INTERSECT"])
        return join(f"{{}} {operator} {{}}", *branches)

    def _where(self, columns: Columns) -> Sql:
        return join(" WHERE {}", self._bool(columns, 3)) if self._chance(0.7) else Sql.same("")

    def _source(self, depth: int) -> tuple[Sql, Columns]:
        kinds: list[Callable[[], tuple[Sql, Columns]]] = [lambda: (Sql.same("r"), R)]
        if depth:
            kinds += [self._joined, self._joined, lambda: self._derived(depth - 1)]
        return self._draw.choice(kinds)()

    def _joined(self) -> tuple[Sql, Columns]:
        kind = self._draw.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"])
        on = Sql.same("a = k")
        if self._chance(0.5):
            on = join("{} AND {}", on, self._bool(R + Q, 1))
        return join(f"r {kind} q ON {{}}", on), R if kind in ("SEMI JOIN", "ANTI JOIN") else R + Q

    def _derived(self, depth: int) -> tuple[Sql, Columns]:
        source, columns = self._source(depth)
        items = self._number(columns, 1), self._text(columns, 2), self._text(columns, 1)
        inner = join("SELECT {} AS n, {} AS x, {} AS y FROM {}{}", *items, source, self._where(columns))
        if self._chance(0.2):
            inner = join(f"{{}} ORDER BY ALL LIMIT {self._draw.randint(1, 8)}", inner)
        return join("({}) AS d", inner), Columns(("n",), ("x", "y"))

    # ---- expressions --------------------------------------------------------------------------------------------

    def _any(self, columns: Columns, depth: int) -> Sql:
        return self._draw.choice([self._bool, self._text, self._number])(columns, depth)

    def _bool(self, columns: Columns, depth: int) -> Sql:
        leaves = [self._call_filter, self._compare_text, self._compare_number]
        if not depth:
            return self._draw.choice(leaves)(columns)

        def below() -> Sql:
            return self._bool(columns, depth - 1)

        match self._draw.randrange(11):
            case 0 | 1:
                return join("({} AND {})", below(), below())
            case 2:
                return join("({} OR {})", below(), below())
            case 3:
                return join("(NOT {})", below())
            case 4:
                return join("({} IS NOT TRUE)", below())
            case 5:
                return join("CASE WHEN {} THEN {} ELSE {} END", below(), below(), below())
            case 6 if columns.outer:
                return self._subquery_test(columns)
        return self._draw.choice(leaves)(columns)

    def _text(self, columns: Columns, depth: int) -> Sql:
        if depth:

            def below() -> Sql:
                return self._text(columns, depth - 1)

            match self._draw.randrange(9):
                case 0:
                    return join("COALESCE({}, {})", below(), below())
                case 1:
                    return join("CASE WHEN {} THEN {} END", self._bool(columns, depth - 1), below())
                case 2:
                    return join("({} || {})", below(), Sql.same("' red'"))
                case 3 | 4:
                    labels = self._draw.choice(LABELS)
                    number = LABELS.index(labels)
                    return self._call(
                        columns, f"AI_CLASSIFY({{}}, {list(labels)})", f"ai_classify_{number}({{}})", depth
                    )
                case 5:
                    return self._call(columns, "AI_GENERATE({})", "ai_generate({})", depth)
        return Sql.same(self._draw.choice([*columns.texts, "'red'"]))

    def _number(self, columns: Columns, depth: int) -> Sql:
        if depth:
            match self._draw.randrange(5):
                case 0 | 1:
                    return self._call(columns, "round(AI_SCORE({}, 0, 3), 3)", "round(ai_score({}), 3)", depth)
                case 2:
                    return join("({} + {})", self._number(columns, depth - 1), Sql.same("1"))
                case 3 if columns.outer:
                    return self._subquery_value(columns)
        return Sql.same(self._draw.choice([*columns.numbers, "2"]))

    def _aggregate(self, columns: Columns) -> Sql:
        match self._draw.randrange(5):
            case 0:
                return Sql.same("count(*)")
            case 1:
                return join("max({})", self._number(columns, 1))
            case 2:
                return join("count(DISTINCT {})", self._text(columns, 1))
            case 3:
                return join("count(*) FILTER (WHERE {})", self._bool(columns, 1))
        return join("min({})", self._text(columns, 2))

    def _call_filter(self, columns: Columns) -> Sql:
        return self._call(columns, "AI_FILTER({})", "ai_filter({})", 1)

    def _compare_text(self, columns: Columns) -> Sql:
        operator = self._draw.choice(["=", "<>", "<", "LIKE"])
        return join(f"({{}} {operator} {{}})", self._text(columns, 1), self._text(columns, 0))

    def _compare_number(self, columns: Columns) -> Sql:
        operator = self._draw.choice(["=", "<", ">="])
        return join(f"({{}} {operator} {{}})", self._number(columns, 1), self._number(columns, 0))

    def _subquery_test(self, columns: Columns) -> Sql:
        inner = self._bool(Q, 1)
        outer = self._draw.choice([*columns.numbers, "2"])
        text = self._draw.choice(columns.texts) if columns.texts else "'red'"
        if self._chance(0.3):
            return join(f"({text} IN (SELECT t FROM q WHERE {{}}))", inner)
        if self._chance(0.5):
            inner = self._bool(Columns(("k", outer), ("t", text), False), 1)
        return join(f"EXISTS (SELECT 1 FROM q WHERE k = {outer} AND {{}})", inner)

    def _subquery_value(self, columns: Columns) -> Sql:
        outer = self._draw.choice([*columns.numbers, "2"])
        value = self._draw.choice([Sql.same("count(*)"), join("max({})", self._number(Q, 1))])
        return join(f"(SELECT {{}} FROM q WHERE k = {outer} AND {{}})", value, self._bool(Q, 1))

    def _call(self, columns: Columns, dql: str, oracle: str, depth: int) -> Sql:
        """A call of a value, or of a template with one or two holes."""
        if self._chance(0.3):
            value = self._text(columns, 0)
            value = Sql(f"{value.dql} || ''", value.oracle) if value.dql.startswith("'") else value
            return Sql(dql.format(value.dql), oracle.format(value.oracle))
        holes = [self._text(columns, depth - 1) for _ in range(self._draw.randint(1, 2))]
        words = ["is ", " has ", ""] if len(holes) == 2 else ["", self._draw.choice([" is red", " has two", "!"])]
        places = list(zip(words, [*holes, None], strict=True))
        template = "".join(word + (f"{{{hole.dql}}}" if hole else "") for word, hole in places).replace("'", "''")
        pieces = [piece for word, hole in places for piece in (f"'{word}'", hole.oracle if hole else "''")]
        return Sql(dql.format(f"'{template}'"), oracle.format(" || ".join(pieces)))

    def _chance(self, share: float) -> bool:
        return self._draw.random() < share


def oracle() -> duckdb.DuckDBPyConnection:
    """DuckDB with the tables and with Python functions that answer as the fake model does."""
    connection = duckdb.connect()
    for statement in TABLES.split(";"):
        connection.execute(statement)
    for number, labels in enumerate(LABELS):
        connection.create_function(f"ai_classify_{number}", _classify(list(labels)), ["VARCHAR"], "VARCHAR")
    connection.create_function("ai_generate", lambda text: text.strip(), ["VARCHAR"], "VARCHAR")
    connection.create_function("ai_filter", lambda text: choose(text, ["Yes", "No"]) == 0, ["VARCHAR"], "BOOLEAN")
    connection.create_function("ai_score", _score, ["VARCHAR"], "DOUBLE")
    return connection


def _classify(labels: list[str]) -> Callable[[str], str]:
    return lambda text: labels[choose(text, labels)]


def _score(text: str) -> float:
    points = ["0", "1", "2", "3"]
    chosen = choose(text, points)
    return sum(i * (CHOSEN if i == chosen else (1 - CHOSEN) / 3) for i in range(4))
