"""Random queries in the shapes that single rules look for, which the general generator seldom draws."""

from tests.planner.generator import LABELS, Columns, Generator, Q, R, Sql, join


class RuleQueries(Generator):
    """Draws queries; the same seed always draws the same ones."""

    def query(self) -> Sql:
        """A query whose rows are the same in whatever order they are computed, or that orders them all."""
        kinds = (self._chain, self._chain, self._label_join, self._label_join, self._first_in_order, self._exists)
        return self._draw.choice(kinds)()

    def _chain(self) -> Sql:
        """AND and OR over three to six conditions with inference, some answers shown."""
        source, columns = self._source(1)
        shown = self._call_filter(columns)
        where = self._conditions(columns, 2)
        if self._chance(0.3):
            where = join("({} OR {})" if self._chance(0.5) else "({} AND {})", shown, where)
        block = join("SELECT {} AS c0, {} AS c1 FROM {} WHERE {}", shown, self._text(columns, 1), source, where)
        return join("SELECT c0, count(*) AS n FROM ({}) AS d GROUP BY c0", block) if self._chance(0.2) else block

    def _label_join(self) -> Sql:
        """Tables joined where answers about each of them are equal."""
        on = self._equal_labels()
        if self._chance(0.5):
            on = join("a = k AND {}", on)
        if self._chance(0.4):
            on = join("{} AND {}", self._bool(R + Q, 1), on)
        items = self._any(R + Q, 1), self._any(R + Q, 1)
        kind = self._draw.choice(["JOIN", "JOIN", "JOIN", "LEFT JOIN", "FULL JOIN"])
        block = join(f"SELECT a, m, {{}} AS c0, {{}} AS c1 FROM r {kind} q ON {{}}{{}}", *items, on, self._where(R + Q))
        return join("{} ORDER BY ALL LIMIT 5", block) if self._chance(0.3) else block

    def _first_in_order(self) -> Sql:
        """The first rows, in an order that reads no answer or one of the filter's, of those that pass."""
        item, where = self._any(R, 1), self._conditions(R, 1)
        count, offset = self._draw.randint(0, 4), self._draw.choice(["", " OFFSET 1"])
        keys = "b DESC, a, s, u" if self._chance(0.7) else "c, a, b, s, u"
        return join(f"SELECT a, {{}} AS c, b FROM r WHERE {{}} ORDER BY {keys} LIMIT {count}{offset}", item, where)

    def _exists(self) -> Sql:
        """A test whether any row of the other table passes."""
        tail = self._draw.choice(["", " ORDER BY m", " LIMIT 1", " OFFSET 1", " LIMIT 0"])
        inner = join(f"SELECT t FROM q WHERE {{}}{tail}", self._conditions(Q, 1))
        where = join(self._draw.choice(["EXISTS ({}) AND {}", "(NOT EXISTS ({}) OR {})"]), inner, self._bool(R, 1))
        return join("SELECT a, {} AS c FROM r WHERE {}", self._any(R, 1), where)

    def _conditions(self, columns: Columns, depth: int) -> Sql:
        if not depth or self._chance(0.2):
            return self._bool(columns, 1)
        word = self._draw.choice([" AND ", " OR "])
        parts = [self._conditions(columns, depth - 1) for _ in range(self._draw.randint(2, 3))]
        return join(f"({word.join(['{}'] * len(parts))})", *parts)

    def _equal_labels(self) -> Sql:
        number = self._draw.randrange(len(LABELS))
        dql, oracle = f"AI_CLASSIFY({{}}, {list(LABELS[number])})", f"ai_classify_{number}({{}})"
        sides = [self._call(columns, dql, oracle, 1) for columns in (R, Q)]
        return join("{} = {}", *(sides if self._chance(0.5) else sides[::-1]))
