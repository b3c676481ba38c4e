"""Random syntax trees as the parser would build them, islands and inference where the text would have them.

A tree is made of a `random.Random`, which Hypothesis controls and shrinks.
"""

from collections.abc import Callable

from hypothesis import strategies as st

from dql.grammar import ast
from tests.grammar.expression_trees import FUNCTIONS, TEXTS, ExpressionMaker

ISLANDS = [
    "SELECT 1",
    "FROM t WHERE a = ')'",
    "SELECT (SELECT 1) /* ( */ UNION SELECT 2",
    "VALUES (1)",
    "FROM t LIMIT 1",
]
INFERENCE = ast.SelectItem(ast.Call(("AI_FILTER",), (ast.String("{a}?"),)))


class Maker(ExpressionMaker):
    """Makes statements and all they are made of."""

    # ---------------------------------------------------------------- queries

    def query(self) -> ast.Query:
        """A query in brackets: verbatim, or with inference."""
        self.size -= 1
        if self.size <= 0 or self.yes():
            return ast.Query(ast.Island(self.pick(ISLANDS)), using=self.maybe(lambda: ast.Using(self.single_model())))
        return self.inference_query()

    def inference_query(self) -> ast.Query:
        bodies: list[Callable[[], ast.QueryBody]] = [self.select, self.select, self.verb_query, self.union]
        return ast.Query(
            self.pick(bodies)(),
            self.some(self.cte, 0, 1),
            order_by=self.some(self.order_item, 0, 1),
            limit=self.maybe(lambda: ast.Limit(self.operand(), self.yes())),
            offset=self.maybe(self.expr),
            using=self.maybe(self.using),
        )

    def cte(self) -> ast.Cte:
        return ast.Cte(self.name(), self.query(), self.some(self.name), self.pick([None, True, False]))

    def union(self) -> ast.SetOperation:
        operators = self.pick([["UNION", "UNION ALL BY NAME", "EXCEPT"], ["INTERSECT", "INTERSECT ALL"]])
        rest = self.some(self.branch, 1, 2)
        return ast.SetOperation((self.select(), *rest), tuple(self.pick(operators) for _ in rest))

    def branch(self) -> ast.QueryBody:
        makers: list[Callable[[], ast.QueryBody]] = [
            self.select,
            self.verb_query,
            lambda: ast.Values(self.some(lambda: ast.Row(self.some(self.expr, 1, 3)), 1, 2)),
            lambda: ast.NestedQuery(self.query()),
        ]
        return self.pick(makers)()

    def select(self) -> ast.Select:
        return ast.Select(
            (INFERENCE, *self.some(self.select_item)),
            self.maybe(lambda: ast.Distinct(self.some(self.expr))),
            from_=self.some(self.table),
            where=self.maybe(self.expr),
            group_by=self.maybe(lambda: ast.GroupBy(self.some(self.group_item))),
            having=self.maybe(self.expr),
            windows=self.some(lambda: ast.NamedWindow(self.name(), self.window()), 0, 1),
            qualify=self.maybe(self.expr),
            sample=self.maybe(self.sample),
        )

    def select_item(self) -> ast.SelectItem:
        return ast.SelectItem(self.star()) if self.yes() else ast.SelectItem(self.expr(), self.maybe(self.name))

    def group_item(self) -> ast.Expr | ast.GroupingSets:
        return ast.GroupingSets(self.some(self.expr, 1, 2)) if self.yes() else self.expr()

    def verb_query(self) -> ast.VerbQuery:
        verb = self.pick(["GENERATE", "CLASSIFY", "SCORE", "EXTRACT", "EMBED"])
        return ast.VerbQuery(
            verb=verb,
            items=self.some(lambda: self.verb_item(verb), 1, 2),
            from_=self.some(self.table, 0, 1),
            where=self.maybe(self.expr),
        )

    def verb_item(self, verb: str) -> ast.VerbItem:
        value = self.string() if self.yes() else ast.Column(("body",))
        alias = self.maybe(self.name)
        if verb == "CLASSIFY":
            return ast.VerbItem(value, labels=self.operand(), alias=alias)
        if verb == "SCORE":
            return ast.VerbItem(value, low=self.operand(), high=self.operand(), alias=alias)
        if verb == "EXTRACT":
            return ast.VerbItem(value, type=self.type(), alias=alias)
        return ast.VerbItem(value, type=self.maybe(self.type) if verb == "GENERATE" else None, alias=alias)

    # ---------------------------------------------------------------- FROM

    def table(self) -> ast.Table:
        self.size -= 1
        if self.size <= 0 or self.yes():
            return self.named_table()
        return self.joins()

    def joins(self) -> ast.JoinChain:
        return ast.JoinChain(self.named_table(), self.some(self.join, 1, 2))

    def named_table(self) -> ast.NamedTable:
        alias, sample = self.maybe(self.name), self.maybe(self.sample)
        columns = self.some(self.name) if alias else ()
        if self.size <= 0:
            return ast.TableRef(self.path(), alias=alias, columns=columns, sample=sample)
        makers: list[Callable[[], ast.NamedTable]] = [
            lambda: ast.TableRef(self.path(), alias=alias, columns=columns, sample=sample),
            lambda: ast.FileRef(self.string(), alias=alias, columns=columns, sample=sample),
            lambda: ast.DerivedTable(self.query(), self.yes(), alias=alias, columns=columns, sample=sample),
            lambda: ast.ParenTable(self.joins(), alias=alias, columns=columns, sample=sample),
            lambda: ast.TableFunction(
                ast.Call(self.pick(FUNCTIONS), self.some(self.argument)),
                self.yes(),
                self.yes(),
                alias=alias,
                columns=columns,
                sample=sample,
            ),
        ]
        return self.pick(makers)()

    def join(self) -> ast.Join:
        kind = self.pick(["INNER", "LEFT", "FULL", "SEMI", "ASOF INNER", "ASOF LEFT", "CROSS", "NATURAL INNER"])
        if kind in ("CROSS", "NATURAL INNER"):
            return ast.Join(kind, self.named_table())
        if self.yes():
            return ast.Join(kind, self.named_table(), using=self.some(self.name, 1, 2))
        return ast.Join(kind, self.named_table(), self.expr())

    def sample(self) -> ast.Sample:
        return ast.Sample(self.number(), self.pick([None, "PERCENT", "ROWS"]), self.maybe(self.name))

    # ---------------------------------------------------------------- USING, WITH, INTO

    def model(self) -> ast.ModelRef:
        return ast.ModelRef(self.pick(TEXTS), literal=True) if self.yes() else ast.ModelRef(self.name())

    def single_model(self) -> ast.SingleModel:
        adapters: list[Callable[[], ast.ModelRef | ast.RowModel]] = [self.model, lambda: ast.RowModel(self.expr())]
        return ast.SingleModel(self.model(), self.maybe(self.pick(adapters)), self.maybe(self.model))

    def using(self) -> ast.Using:
        makers: list[Callable[[], ast.SingleModel | ast.RowModel | ast.AnyModel | ast.CascadeModel]] = [
            self.single_model,
            lambda: ast.RowModel(self.expr()),
            lambda: ast.AnyModel(self.some(self.single_model, 1, 2)),
            lambda: ast.CascadeModel(self.some(self.single_model, 1, 2)),
        ]
        return ast.Using(self.pick(makers)())

    def word(self) -> ast.Word:
        return ast.Word(self.name())

    def quantity(self) -> ast.Quantity:
        unit = self.pick([None, "ms", "s", "%", "GiB", "rows/s", "USD", "tokens", "odd unit"])
        return ast.Quantity(self.pick(["1", "-2", "0.95"]), ast.Word(unit) if unit else None)

    def setting_value(self) -> ast.SettingValue:
        makers: list[Callable[[], ast.SettingValue]] = [
            self.quantity,
            self.string,
            self.word,
            lambda: ast.Constant(self.pick(["TRUE", "FALSE", "NULL", "DEFAULT"])),
            lambda: ast.Param("p"),
            lambda: ast.SettingList(self.some(self.string, 0, 3)),
        ]
        return self.pick(makers)()

    def contract_item(self) -> ast.Bound | ast.Setting | ast.Objective:
        makers: list[Callable[[], ast.Bound | ast.Setting | ast.Objective]] = [
            lambda: ast.Bound(
                self.word(),
                self.pick(["<", "<=", ">", ">="]),
                self.setting_value(),
                self.maybe(self.word),
                self.maybe(self.model),
                self.maybe(self.quantity),
            ),
            lambda: ast.Setting(self.word(), self.setting_value()),
            lambda: ast.Objective(self.pick(["MINIMIZE", "MAXIMIZE"]), self.word()),
        ]
        return self.pick(makers)()

    def options(self) -> tuple[ast.Option, ...]:
        return self.some(lambda: ast.Option(self.word(), self.maybe(self.setting_value)))

    def into(self) -> ast.Into:
        if self.yes():
            return ast.Into(table=self.path())
        return ast.Into(self.string(), (), self.some(self.name), self.options())

    # ---------------------------------------------------------------- statements

    def full_query(self) -> ast.Query:
        query = self.inference_query()
        contract = self.maybe(lambda: ast.Contract(self.some(self.contract_item, 1, 3)))
        return ast.Query(
            query.body,
            query.ctes,
            order_by=query.order_by,
            limit=query.limit,
            offset=query.offset,
            using=query.using,
            contract=contract,
            into=self.maybe(self.into),
        )

    def statement(self) -> ast.Statement:
        makers: list[Callable[[], ast.Statement]] = [
            lambda: ast.QueryStatement(self.full_query()),
            lambda: ast.QueryStatement(self.full_query()),
            lambda: ast.Explain(
                self.full_query(),
                self.yes(),
                self.maybe(self.word),
                self.yes(),
                self.yes(),
                self.maybe(self.string),
                self.maybe(lambda: ast.Quantity(self.pick(["1", "100_000_000", "2.5e6"]))),
            ),
            lambda: ast.Evaluate(
                self.full_query(), ast.Column(self.path()) if self.yes() else self.query(), self.some(self.word)
            ),
            lambda: ast.CreateModel(self.name(), self.string(), self.options(), *self.flags(2)),
            lambda: ast.CreateAdapter(self.name(), self.model(), self.string(), *self.flags(2)),
            lambda: ast.CreateTable(self.path(), self.full_query(), self.some(self.name), *self.flags(3)),
            lambda: ast.CreateView(self.path(), self.full_query(), self.some(self.name), *self.flags(3)),
            lambda: ast.CreateFunction(
                self.path(),
                self.some(lambda: ast.Parameter(self.name(), self.maybe(self.expr))),
                ast.Call(("AI_FILTER",), (self.expr(),)),
                *self.flags(3),
            ),
            lambda: ast.Insert(self.path(), self.full_query(), self.some(self.name), self.yes()),
            lambda: ast.Copy(self.full_query(), self.string(), self.options()),
            lambda: ast.SetSetting(self.word(), self.setting_value()),
            lambda: ast.DescribeModel(self.model()),
            lambda: ast.SummarizeQuery(self.full_query()),
        ]
        return self.pick(makers)()


statements = st.randoms(use_true_random=False).map(lambda random: Maker(random).statement())
