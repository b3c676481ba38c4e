"""What can stand at a place, in the user's words."""

from collections.abc import Sequence

from dql.grammar.names import words
from dql.grammar.tables import END, Tables

AN_EXPRESSION = "an expression"
# What the parser waits for, by the rules it could build next. The first that fits speaks for all terminals that its
# rules, and those after it, can begin with.
_THINGS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (AN_EXPRESSION, ("expr", "hole", "negation", "comparison", "predicate", "operand", "sum", "power", "signed"), ()),
    ("a type", ("type",), ()),
    ("a table, a file or a subquery", ("table", "named_table"), ()),
    ("a query", ("full_query", "query", "query_term"), ()),
    ("a model", ("single_model", "model_ref"), ("row_model",)),
    ("a bound or setting, as latency < 1s", ("bound",), ()),
    ("a value", ("setting_word",), ("quantity", "setting_list", "string", "param")),
    ("a number", ("quantity",), ()),
    ("an option", ("option", "explain_option"), ()),
    ("a query in brackets", ("parenthesized",), ()),
    ("a name", ("name_path", "names", "word"), ()),
)
_TERMINALS = {
    "NAME": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "PARAM": "a parameter",
    "CMP": "a comparison",
    "OP": "an operator",
    "INTERVAL_UNIT": "a unit of time",
    "QOPEN": "a subquery",
    "SUBQUERY": "a subquery",
    "QUERY_ISLAND": "a query",
    "WITH_LA": "WITH",
    "USING_SAMPLE": "USING SAMPLE",
    END: "the end of the statement",
}
_OPERATORS = words(
    """OP CMP EQUAL ARROW PLUS MINUS STAR SLASH PERCENT INTDIV CIRCUMFLEX POWER AND OR IS ISNULL NOTNULL NOT IN BETWEEN
    LIKE ILIKE GLOB SIMILAR AT COLLATE CASTS LSQB DOT"""
)
# A word of two uses is a part of the construct here, and no operator, where its companion is not legal.
_COMPANIONS = {"AND": "OR", "IN": "LIKE", "BETWEEN": "LIKE"}
_AFTER_NAME = words("DOT COLON LPAR TABLESAMPLE STRING NAMED ASSIGN")
_CLAUSES = words(
    "FROM WHERE GROUP HAVING WINDOW QUALIFY ORDER LIMIT OFFSET USING USING_SAMPLE WITH INTO UNION EXCEPT INTERSECT"
)
_FIRST = (
    *("AGAINST", "ON", "AND", "IN", "BETWEEN", "COMMA", "RPAR", "RSQB", "RBRACE", "AS", "RETURNING", "THEN", "WHEN"),
    *("ELSE", "END", "BY", "JOIN", "FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "USING", "WITH", "INTO"),
)
_MANY = 8


def expected_words(tables: Tables, stack: Sequence[int]) -> list[str]:
    """What the parser could take with these states on its stack, the likeliest first."""
    stack = tables.settled(stack)
    legal = set(tables.legal(stack))
    found: list[str] = []
    for phrase, rules, others in _THINGS:
        waiting = [rule for rule in rules if rule in tables.gotos[stack[-1]]]
        covered = {terminal for rule in (*waiting, *others) for terminal in tables.firsts[rule]} & legal
        if waiting and covered:
            found.append(phrase)
            legal -= covered
    if len(legal & _OPERATORS) > 5:
        needed = {word for word, other in _COMPANIONS.items() if word in legal and other not in legal}
        found += sorted(needed) or ["an operator"]
        legal -= _OPERATORS | {"LPAR", "STRING"}
    if AN_EXPRESSION in found:
        legal -= _CLAUSES | {END}  # `SELECT a, FROM t`: a comma may end the list
    if "AS" in legal:
        legal -= {"NAME", "STRING"}  # a bare alias
    if not legal <= _AFTER_NAME:
        legal -= _AFTER_NAME
    return list(dict.fromkeys(found + _spelled(tables, legal)))


def one_of(things: Sequence[str]) -> str:
    """`a, b or c`; of many, the first few."""
    shown = list(things[:_MANY])
    if len(things) > _MANY:
        return ", ".join(shown) + ", …"
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _spelled(tables: Tables, terminals: set[str]) -> list[str]:
    text = {terminal: word for word, terminal in tables.words.items()}
    text |= {terminal: repr(symbol) for symbol, terminal in tables.symbols.items()}
    ranked = sorted(terminals, key=lambda t: (_FIRST.index(t) if t in _FIRST else len(_FIRST), t in _TERMINALS, t))
    return [_TERMINALS.get(terminal) or text.get(terminal, terminal) for terminal in ranked]
