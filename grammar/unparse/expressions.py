"""Printers of scalar expressions but for calls."""

from dql.grammar.ast import (
    And,
    ArraySubquery,
    AtTimeZone,
    Between,
    Case,
    Cast,
    Collate,
    Column,
    Comparison,
    Comprehension,
    Constant,
    Entry,
    Exists,
    FieldAccess,
    In,
    Interval,
    Is,
    IsDistinct,
    Lambda,
    Like,
    ListExpr,
    MethodCall,
    Node,
    Not,
    Number,
    Operation,
    Or,
    Param,
    Paren,
    Positional,
    Quantified,
    Row,
    Slice,
    String,
    StructExpr,
    Subquery,
    Subscript,
    TypedLiteral,
    Unary,
    When,
)
from dql.grammar.literals import quote_name, quote_string
from dql.grammar.unparse.core import clause, join, names, path, to_sql, words

# Precedence, loosest first, as the rules of dql.lark nest.
EXPR, OR, AND, NOT, IS, COMPARE, PREDICATE, OPERATOR, SUM, PRODUCT, POWER, SIGN, ZONE, CAST, POSTFIX, PRIMARY = range(
    16
)

_LEVELS: dict[type[Node], int] = {
    And: AND,
    AtTimeZone: ZONE,
    Between: PREDICATE,
    Collate: ZONE,
    Comparison: COMPARE,
    FieldAccess: POSTFIX,
    In: PREDICATE,
    Is: IS,
    IsDistinct: IS,
    Lambda: EXPR,
    Like: PREDICATE,
    MethodCall: POSTFIX,
    Not: NOT,
    Number: CAST,  # `1.a` would read as the number `1.`
    Or: OR,
    Slice: POSTFIX,
    Subscript: POSTFIX,
    Unary: SIGN,
}
_OPERATORS = {"->": EXPR} | dict.fromkeys("+-", SUM) | dict.fromkeys(("*", "/", "%", "//"), PRODUCT)
_OPERATORS |= dict.fromkeys(("^", "**"), POWER)


def level(node: Node) -> int:
    """How tightly an expression binds."""
    if isinstance(node, Operation):
        return _OPERATORS.get(node.operators[0], OPERATOR)
    if isinstance(node, Cast):
        return CAST if node.kind == "::" else PRIMARY
    if isinstance(node, Interval) and node.unit is None:
        return level(node.value)  # as a number
    return _LEVELS.get(type(node), PRIMARY)


def operand(node: Node, minimum: int) -> str:
    """The expression, in brackets if it binds looser than `minimum`."""
    return f"({to_sql(node)})" if level(node) < minimum else to_sql(node)


def negation(negated: bool) -> str:
    return "NOT" if negated else ""


@to_sql.register
def _(node: Column) -> str:
    return path(node.path)


@to_sql.register
def _(node: String) -> str:
    return quote_string(node.value)


@to_sql.register
def _(node: Number) -> str:
    return node.text


@to_sql.register
def _(node: Constant) -> str:
    return node.word


@to_sql.register
def _(node: Param) -> str:
    return "?" if node.name == "?" else f"${node.name}"


@to_sql.register
def _(node: Positional) -> str:
    return f"#{node.index}"


@to_sql.register
def _(node: TypedLiteral) -> str:
    space = "" if node.type.lower() in ("b", "n", "x") else " "  # x'FF' is a blob, x 'FF' a value of a type x
    return f"{quote_name(node.type)}{space}{to_sql(node.value)}"


@to_sql.register
def _(node: Interval) -> str:
    return words("INTERVAL", to_sql(node.value), node.unit)


@to_sql.register
def _(node: Paren) -> str:
    return f"({to_sql(node.expr)})"


@to_sql.register
def _(node: Row) -> str:
    return f"({to_sql(node.items[0])},)" if len(node.items) == 1 else f"({join(node.items)})"


@to_sql.register
def _(node: ListExpr) -> str:
    return f"[{join(node.items)}]"


@to_sql.register
def _(node: Entry) -> str:
    return f"{to_sql(node.key)}: {to_sql(node.value)}"


@to_sql.register
def _(node: StructExpr) -> str:
    return f"{'MAP ' if node.is_map else ''}{{{join(node.entries)}}}"


@to_sql.register
def _(node: Comprehension) -> str:
    condition = f" IF {to_sql(node.condition)}" if node.condition else ""
    return f"[{to_sql(node.item)} FOR {names(node.names)} IN {to_sql(node.source)}{condition}]"


@to_sql.register
def _(node: When) -> str:
    return f"WHEN {to_sql(node.condition)} THEN {to_sql(node.result)}"


@to_sql.register
def _(node: Case) -> str:
    subject = to_sql(node.operand) if node.operand else None
    return words("CASE", subject, join(node.whens, " "), clause("ELSE", node.otherwise), "END")


@to_sql.register
def _(node: Cast) -> str:
    if node.kind == "::":
        return f"{operand(node.expr, CAST)}::{to_sql(node.type)}"
    return f"{node.kind}({to_sql(node.expr)} AS {to_sql(node.type)})"


@to_sql.register
def _(node: And) -> str:
    return " AND ".join([operand(term, NOT) for term in node.terms])


@to_sql.register
def _(node: Or) -> str:
    return " OR ".join([operand(term, AND) for term in node.terms])


@to_sql.register
def _(node: Not) -> str:
    return f"NOT {operand(node.operand, NOT)}"


@to_sql.register
def _(node: Is) -> str:
    return words(operand(node.operand, IS), "IS", negation(node.negated), node.what)


@to_sql.register
def _(node: IsDistinct) -> str:
    left, right = operand(node.left, IS), operand(node.right, COMPARE)
    return words(left, "IS", negation(node.negated), "DISTINCT FROM", right)


@to_sql.register
def _(node: Comparison) -> str:
    return f"{operand(node.left, PREDICATE)} {node.operator} {operand(node.right, PREDICATE)}"


@to_sql.register
def _(node: Quantified) -> str:
    return f"{node.word} ({to_sql(node.operand)})"


@to_sql.register
def _(node: In) -> str:
    return words(operand(node.operand, OPERATOR), negation(node.negated), "IN", operand(node.container, OPERATOR))


@to_sql.register
def _(node: Between) -> str:
    low, high = operand(node.low, OPERATOR), operand(node.high, OPERATOR)
    return words(operand(node.operand, OPERATOR), negation(node.negated), "BETWEEN", low, "AND", high)


@to_sql.register
def _(node: Like) -> str:
    escape = f"ESCAPE {operand(node.escape, OPERATOR)}" if node.escape else None
    pattern = operand(node.pattern, OPERATOR)
    return words(operand(node.operand, OPERATOR), negation(node.negated), node.word, pattern, escape)


@to_sql.register
def _(node: Operation) -> str:
    tighter = level(node) + 1
    parts = [operand(node.operands[0], tighter)]
    for operator, right in zip(node.operators, node.operands[1:], strict=True):
        parts += [operator, operand(right, tighter)]
    return " ".join(parts)


@to_sql.register
def _(node: Unary) -> str:
    text = operand(node.operand, SIGN)
    space = "" if text[0].isalnum() or text[0] in "_'\"($[{" else " "  # `--` would be a comment
    return f"{node.operator}{space}{text}"


@to_sql.register
def _(node: AtTimeZone) -> str:
    return f"{operand(node.operand, ZONE)} AT TIME ZONE {operand(node.zone, CAST)}"


@to_sql.register
def _(node: Collate) -> str:
    return f"{operand(node.operand, ZONE)} COLLATE {path(node.collation)}"


@to_sql.register
def _(node: Subscript) -> str:
    return f"{operand(node.operand, POSTFIX)}[{to_sql(node.index)}]"


@to_sql.register
def _(node: Slice) -> str:
    start, stop, step = (to_sql(bound) if bound else "" for bound in (node.start, node.stop, node.step))
    inner = f"{start}:{stop or ' '}:{step}" if step else f"{start}:{stop}"  # `::` would be a cast
    return f"{operand(node.operand, POSTFIX)}[{inner}]"


@to_sql.register
def _(node: FieldAccess) -> str:
    return f"{operand(node.operand, POSTFIX)}.{quote_name(node.name)}"


@to_sql.register
def _(node: Lambda) -> str:
    return f"lambda {names(node.params)}: {to_sql(node.body)}"


@to_sql.register
def _(node: Subquery) -> str:
    return f"({to_sql(node.query)})"


@to_sql.register
def _(node: Exists) -> str:
    return f"EXISTS ({to_sql(node.query)})"


@to_sql.register
def _(node: ArraySubquery) -> str:
    return f"ARRAY({to_sql(node.query)})"
