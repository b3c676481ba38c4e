"""Random syntax trees as the parser would build them: brackets where precedence asks for them, islands and inference
where the text would have them. A tree is made of a `random.Random`, which Hypothesis controls and shrinks."""

from collections.abc import Callable
from random import Random
from typing import TypeVar

from hypothesis import strategies as st

from dql.grammar import ast
from dql.grammar.unparse import expressions as levels

T = TypeVar("T")
NAMES = [
    "a",
    "body",
    "t1",
    "größe",
    "a b",
    'q"q',
    "select",
    "score",
    "generate",
    "model",
    "rows",
    "first",
    "left",
    "using",
]
TEXTS = ["", "x", "it's", "{a} {{b}}", 'q"', "\\n", "two\nlines", "<|im_end|>", "日本", "$$"]
ISLANDS = [
    "SELECT 1",
    "FROM t WHERE a = ')'",
    "SELECT (SELECT 1) /* ( */ UNION SELECT 2",
    "VALUES (1)",
    "FROM t LIMIT 1",
]
FUNCTIONS = [("f",), ("AI_FILTER",), ("AI.IF",), ("left",), ("select",), ("s", "f"), ("exists",), ("score",)]
PATTERNS = ["LIKE", "ILIKE", "GLOB", "SIMILAR TO"]
INFERENCE = ast.SelectItem(ast.Call(("AI_FILTER",), (ast.String("{a}?"),)))


class Maker:
    """Makes trees; `size` is how many more nodes may branch, so that every tree ends."""

    def __init__(self, random: Random, size: int = 40) -> None:
        self.random, self.size = random, size

    # ---------------------------------------------------------------- choices

    def pick(self, items: list[T]) -> T:
        return items[self.random.randrange(len(items))]

    def yes(self) -> bool:
        return self.random.randrange(2) == 1

    def maybe(self, make: Callable[[], T]) -> T | None:
        return make() if self.size > 0 and self.random.randrange(3) == 2 else None

    def some(self, make: Callable[[], T], least: int = 0, most: int = 2) -> tuple[T, ...]:
        most = most if self.size > 0 else least
        return tuple(make() for _ in range(self.random.randrange(least, max(least, most) + 1)))

    def name(self) -> str:
        return self.pick(NAMES)

    def path(self) -> tuple[str, ...]:
        return self.some(self.name, 1, 2)

    def string(self) -> ast.String:
        return ast.String(self.pick(TEXTS))

    def number(self) -> ast.Number:
        return ast.Number(self.pick(["0", "1", "1_000", ".5", "1.", "1e3", "2.5E-7"]))

    # ---------------------------------------------------------------- expressions

    def expr(self, level: int = levels.EXPR) -> ast.Expr:
        """An expression that binds at least as tightly as `level`."""
        self.size -= 1
        makers = [self.atom] if self.size <= 0 else [self.atom, self.operator, self.operator, self.structure, self.call]
        node = self.pick(makers)()
        return ast.Paren(node) if levels.level(node) < level else node

    def inner(self) -> ast.Expr:
        """What may stand in brackets of its own: a subquery there is one query with two pairs of brackets."""
        node = self.expr()
        return ast.ListExpr((node,)) if isinstance(node, ast.Subquery) else node

    def operand(self) -> ast.Expr:
        return self.expr(levels.OPERATOR)

    def target(self) -> ast.Expr:
        """What a field or method can be taken of without being a longer name."""
        node = self.expr(levels.POSTFIX)
        return ast.Paren(node) if isinstance(node, ast.Column) else node

    def atom(self) -> ast.Expr:
        makers: list[Callable[[], ast.Expr]] = [
            lambda: ast.Column(self.path()),
            self.string,
            self.number,
            lambda: ast.Constant(self.pick(["TRUE", "FALSE", "NULL", "DEFAULT"])),
            lambda: ast.Param(self.pick(["name", "1", "?"])),
            lambda: ast.Positional(1),
            lambda: ast.TypedLiteral(self.pick(["DATE", "my type"]), self.string()),
        ]
        return self.pick(makers)()

    def operator(self) -> ast.Expr:
        return self.pick([self.logic, self.predicate, self.arithmetic, self.postfix])()

    def logic(self) -> ast.Expr:
        makers: list[Callable[[], ast.Expr]] = [
            lambda: ast.Or(self.some(lambda: self.expr(levels.AND), 2, 3)),
            lambda: ast.And(self.some(lambda: self.expr(levels.NOT), 2, 3)),
            lambda: ast.Not(self.expr(levels.NOT)),
            lambda: ast.Is(self.expr(levels.IS), self.pick(["NULL", "TRUE", "FALSE", "UNKNOWN"]), self.yes()),
            lambda: ast.IsDistinct(self.expr(levels.IS), self.expr(levels.COMPARE), self.yes()),
        ]
        return self.pick(makers)()

    def predicate(self) -> ast.Expr:
        makers: list[Callable[[], ast.Expr]] = [
            lambda: ast.Comparison(
                self.expr(levels.PREDICATE),
                self.pick(["=", "==", "<>", "!=", "<", "<=", ">", ">="]),
                self.quantified() if self.yes() else self.expr(levels.PREDICATE),
            ),
            lambda: ast.In(self.operand(), self.operand(), self.yes()),
            lambda: ast.Between(self.operand(), self.operand(), self.operand(), self.yes()),
            lambda: ast.Like(self.operand(), self.pick(PATTERNS), self.operand(), self.maybe(self.operand), self.yes()),
        ]
        return self.pick(makers)()

    def quantified(self) -> ast.Quantified:
        return ast.Quantified(self.pick(["ANY", "ALL"]), self.inner() if self.yes() else self.query())

    def arithmetic(self) -> ast.Expr:
        symbols, level = self.pick(
            [
                (["->"], levels.EXPR),
                (["||", "&", "<<", "~", "->>", "@>"], levels.OPERATOR),
                (["+", "-"], levels.SUM),
                (["*", "/", "%", "//"], levels.PRODUCT),
                (["^", "**"], levels.POWER),
            ]
        )
        operands = self.some(lambda: self.expr(level + 1), 2, 3)
        return ast.Operation(operands, tuple(self.pick(symbols) for _ in operands[1:]))

    def postfix(self) -> ast.Expr:
        makers: list[Callable[[], ast.Expr]] = [
            lambda: ast.Unary(self.pick(["-", "+", "~", "@"]), self.expr(levels.SIGN)),
            lambda: ast.AtTimeZone(self.expr(levels.ZONE), self.expr(levels.CAST)),
            lambda: ast.Collate(self.expr(levels.ZONE), self.path()),
            lambda: ast.Cast(self.expr(levels.CAST), self.type(), "::"),
            lambda: ast.Subscript(self.expr(levels.POSTFIX), self.expr()),
            lambda: ast.Slice(
                self.expr(levels.POSTFIX), self.maybe(self.expr), self.maybe(self.expr), self.maybe(self.expr)
            ),
            lambda: ast.FieldAccess(self.target(), self.name()),
            lambda: ast.MethodCall(self.target(), self.plain_call(("f",))),
        ]
        return self.pick(makers)()

    def structure(self) -> ast.Expr:
        makers: list[Callable[[], ast.Expr]] = [
            lambda: ast.Paren(self.inner()),
            lambda: ast.Row(self.some(self.expr, 0, 3)),
            lambda: ast.ListExpr(self.some(self.expr, 0, 3)),
            lambda: ast.StructExpr(self.some(lambda: ast.Entry(self.expr(), self.expr())), self.yes()),
            lambda: ast.Comprehension(self.expr(), self.some(self.name, 1, 2), self.expr(), self.maybe(self.expr)),
            lambda: ast.Case(
                self.maybe(self.expr),
                self.some(lambda: ast.When(self.expr(), self.expr()), 1, 2),
                self.maybe(self.expr),
            ),
            lambda: ast.Cast(self.expr(), self.type(), self.pick(["CAST", "TRY_CAST"])),
            lambda: ast.Lambda(self.some(self.name, 1, 2), self.expr()),
            lambda: ast.Interval(
                ast.Paren(self.inner()) if self.yes() else self.string(),
                self.pick([None, "DAY", "HOURS"]),
            ),
            lambda: ast.Subquery(self.query()),
            lambda: ast.Exists(self.query()),
            lambda: ast.ArraySubquery(self.query()),
        ]
        return self.pick(makers)()

    # ---------------------------------------------------------------- calls and types

    def call(self) -> ast.Call:
        if self.random.randrange(6) == 5:
            return ast.Call(("AI_EXTRACT",), (self.expr(), ast.TypeArg(self.type()), *self.some(self.argument)))
        return self.plain_call(self.pick(FUNCTIONS))

    def plain_call(self, name: tuple[str, ...]) -> ast.Call:
        args = self.some(self.argument, 0, 3)
        return ast.Call(
            name,
            args,
            distinct=bool(args) and self.yes(),
            order_by=self.some(self.order_item, 0, 1),
            nulls=self.pick([None, "IGNORE", "RESPECT"]) if args else None,
            within_group=self.some(self.order_item, 0, 1),
            filter=self.maybe(self.expr),
            over=self.maybe(self.name) if self.yes() else self.maybe(self.window),
        )

    def argument(self) -> ast.Argument:
        makers: list[Callable[[], ast.Argument]] = [
            self.expr,
            self.expr,
            self.star,
            lambda: ast.NamedArg(self.name(), self.expr()),
            lambda: ast.ReturningArg(self.expr(), self.type()),
            lambda: ast.FromArg(self.expr(), self.expr(), length=self.maybe(self.expr)),
            lambda: ast.FromArg(self.expr(), self.expr(), placing=self.expr(), length=self.maybe(self.expr)),
            lambda: ast.FromArg(self.maybe(self.expr), self.expr(), side=self.pick(["BOTH", "LEADING", "TRAILING"])),
        ]
        return self.pick(makers)()

    def star(self) -> ast.Star:
        return ast.Star(
            self.maybe(self.path) or (),
            self.some(self.path),
            self.some(lambda: ast.SelectItem(self.expr(), self.name())),
            self.some(lambda: ast.StarRename(self.path(), self.name())),
            self.maybe(lambda: ast.StarPattern(self.pick(PATTERNS), self.pick(TEXTS), self.yes())),
        )

    def order_item(self) -> ast.OrderItem:
        return ast.OrderItem(self.maybe(self.expr), self.pick([None, True, False]), self.pick([None, "FIRST", "LAST"]))

    def window(self) -> ast.WindowSpec:
        return ast.WindowSpec(
            self.maybe(self.name), self.some(self.expr), self.some(self.order_item), self.maybe(self.frame)
        )

    def frame(self) -> ast.Frame:
        return ast.Frame(
            self.pick(["ROWS", "RANGE", "GROUPS"]),
            self.frame_bound(),
            self.maybe(self.frame_bound),
            self.pick([None, "CURRENT ROW", "GROUP", "TIES", "NO OTHERS"]),
        )

    def frame_bound(self) -> ast.FrameBound:
        kind = self.pick(["UNBOUNDED PRECEDING", "UNBOUNDED FOLLOWING", "CURRENT ROW", "PRECEDING", "FOLLOWING"])
        return ast.FrameBound(kind, self.operand() if kind in ("PRECEDING", "FOLLOWING") else None)

    def type(self) -> ast.TypeName:
        makers: list[Callable[[], ast.TypeName]] = [
            lambda: ast.TypeName(self.pick([("INTEGER",), ("varchar",), ("my type",), ("s", "t")])),
            lambda: ast.TypeName(("DECIMAL",), (ast.Number("10"), ast.Number("2"))),
            lambda: ast.TypeName(("ENUM",), self.some(self.string, 1, 3)),
            lambda: ast.TypeName(("INT",), (), self.some(lambda: self.pick([None, 3]), 1, 3)),
        ]
        if self.size > 0:
            makers.append(lambda: ast.TypeName(("MAP",), (self.type(), self.type())))
            makers.append(lambda: ast.TypeName(("STRUCT",), self.some(self.struct_field, 1, 3)))
        self.size -= 1
        return self.pick(makers)()

    def struct_field(self) -> ast.StructField:
        description = self.maybe(lambda: self.pick(TEXTS))
        return ast.StructField(self.name(), self.type(), self.maybe(self.expr), self.yes(), description)

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
            ),
            lambda: ast.Evaluate(
                self.full_query(), ast.Column(self.path()) if self.yes() else self.query(), self.some(self.word)
            ),
            lambda: ast.CreateModel(self.name(), self.string(), self.options(), self.yes(), self.yes()),
            lambda: ast.CreateAdapter(self.name(), self.model(), self.string(), self.yes(), self.yes()),
            lambda: ast.CreateTable(
                self.path(), self.full_query(), self.some(self.name), self.yes(), self.yes(), self.yes()
            ),
            lambda: ast.CreateView(
                self.path(), self.full_query(), self.some(self.name), self.yes(), self.yes(), self.yes()
            ),
            lambda: ast.CreateFunction(
                self.path(),
                self.some(lambda: ast.Parameter(self.name(), self.maybe(self.expr))),
                ast.Call(("AI_FILTER",), (self.expr(),)),
                self.yes(),
                self.yes(),
                self.yes(),
            ),
            lambda: ast.Insert(self.path(), self.full_query(), self.some(self.name), self.yes()),
            lambda: ast.Copy(self.full_query(), self.string(), self.options()),
            lambda: ast.SetSetting(self.word(), self.setting_value()),
            lambda: ast.DescribeModel(self.model()),
            lambda: ast.SummarizeQuery(self.full_query()),
        ]
        return self.pick(makers)()


statements = st.randoms(use_true_random=False).map(lambda random: Maker(random).statement())
expressions = st.randoms(use_true_random=False).map(lambda random: Maker(random).expr())
