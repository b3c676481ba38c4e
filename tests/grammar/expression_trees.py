"""Random expressions as the parser would build them: brackets where precedence asks for them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random
from typing import TypeVar

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
FUNCTIONS = [("f",), ("AI_FILTER",), ("AI.IF",), ("left",), ("select",), ("s", "f"), ("exists",), ("score",)]
PATTERNS = ["LIKE", "ILIKE", "GLOB", "SIMILAR TO"]


class ExpressionMaker(ABC):
    """Makes trees; `size` is how many more nodes may branch, so that every tree ends."""

    def __init__(self, random: Random, size: int = 40) -> None:
        self.random, self.size = random, size

    @abstractmethod
    def query(self) -> ast.Query:
        """A query in brackets: verbatim, or with inference."""

    # ---------------------------------------------------------------- choices

    def pick(self, items: list[T]) -> T:
        return items[self.random.randrange(len(items))]

    def yes(self) -> bool:
        return self.random.randrange(2) == 1

    def flags(self, count: int) -> list[bool]:
        return [self.yes() for _ in range(count)]

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
