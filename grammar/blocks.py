"""Where queries begin and end in a row of tokens, and which of them hold inference."""

from collections.abc import Iterator

from dql.grammar.names import FUNCTION_WORDS, NEVER_ALIAS, QUERY_HEADS, RESERVED, VERBS, words
from dql.grammar.tokens import Tokens

_BRACKETS = frozenset("([{")
_AFTER_QUERY = words("UNION INTERSECT EXCEPT ORDER LIMIT OFFSET USING")
_CONTINUES = RESERVED - words("CASE CAST NULL TRUE FALSE ARRAY LAMBDA") | NEVER_ALIAS | words("IS LIKE BETWEEN")
_BEFORE_VERB = words(
    "( ) ; AS AGAINST EXPLAIN ANALYZE EVALUATE DESCRIBE SUMMARIZE UNION INTERSECT EXCEPT ALL NAME DISTINCT"
)
_BEFORE_QUERY = words("AS MATERIALIZED COPY AGAINST EXISTS")
_DEFINES = words("FUNCTION MACRO TABLE VIEW EXISTS INTO")
_ENDS_FROM = words("SELECT WHERE GROUP HAVING WINDOW QUALIFY ORDER LIMIT OFFSET UNION EXCEPT INTERSECT ON")


def is_verb(tokens: Tokens, i: int) -> bool:
    """Does a verb's query start here? `GENERATE 'x'` and `EMBED body` do, `score + 1` and `extract(…)` do not."""
    if tokens.upper[i] not in VERBS:
        return False
    kind, after = tokens.kind[i + 1], tokens.upper[i + 1]
    if i > 1 and tokens.upper[i - 1] == "(" and tokens.upper[i - 2] in _BEFORE_QUERY and kind in ("NUMBER", "SYMBOL"):
        return after not in (")", ",", ".")  # WITH x AS (CLASSIFY (a || b) IN …)
    if after in FUNCTION_WORDS and tokens.upper[i + 2] != "(":  # FROM (score JOIN …), but EMBED left(body, 80)
        return False
    return kind in ("STRING", "QUOTED", "PARAM") or (kind == "WORD" and after not in _CONTINUES)


def opens_query(tokens: Tokens, i: int) -> bool:
    """Does this `(` open a query? Inner brackets must have been asked before."""
    upper, head = tokens.upper, tokens.upper[i + 1]
    if head in QUERY_HEADS or is_verb(tokens, i + 1):
        return True
    if head == "VALUES":
        return upper[i + 2] == "("
    if head == "(" and tokens.opens_query[i + 1]:
        # f((SELECT 1)) is a call; ((SELECT 1) + 2) an expression; ((SELECT 1) UNION …) a query
        word = upper[i - 1] if i else ""
        if word == "CHECK" or (word == "ON" and upper[i - 2] == "DISTINCT"):
            return False
        calls = i > 0 and tokens.is_name(i - 1) and word not in RESERVED and word not in ("EXISTS", "MATERIALIZED")
        after = tokens.match[i + 1] + 1
        return not calls and (after == tokens.match[i] or upper[after] in _AFTER_QUERY)
    return False


def query_end(tokens: Tokens, lo: int, hi: int, *, evaluated: bool = False) -> int:
    """End of the query without brackets that starts at lo: its first clause that is only DQL's, or hi.

    With `evaluated`, AGAINST ends it too.
    """
    i = lo
    while i < hi:
        word = tokens.upper[i]
        if word in _BRACKETS:
            i = tokens.match[i] + 1
            continue
        if word == ")" or (i > lo and _ends_query(tokens, i, evaluated=evaluated)):
            return i
        i += 1
    return hi


def is_sample(tokens: Tokens, i: int) -> bool:
    """`USING SAMPLE 10%`, `USING SAMPLE reservoir(…)`; `USING sample` alone is a model."""
    return tokens.upper[i + 1] == "SAMPLE" and (tokens.kind[i + 2] == "NUMBER" or tokens.upper[i + 3 : i + 4] == ["("])


def inference_marks(tokens: Tokens, functions: frozenset[str]) -> Iterator[bool]:
    """Whether inference starts at each token: a call, a verb's query, a view that holds some, a subquery's USING.

    `functions` are all names of calls that count; the views are `tokens.tables`.
    """
    in_from = [False]  # for each open bracket: are we in a FROM clause?
    in_query = [False]  # and: does it hold a query?
    for i, word in enumerate(tokens.upper):
        if word in _BRACKETS:
            in_from.append(in_from[-1])
            in_query.append(tokens.opens_query[i])
        elif word in (")", "]", "}") and len(in_query) > 1:
            in_from.pop()
            in_query.pop()
        elif word in ("FROM", "JOIN", "TABLE"):
            in_from[-1] = True
        elif word in _ENDS_FROM:
            in_from[-1] = False
        if word == "USING":
            yield in_query[-1] and _ends_query(tokens, i, evaluated=False)
        elif tokens.is_name(i) and tokens.upper[i + 1] == "(":
            yield tokens.name(i) in functions and (i == 0 or tokens.upper[i - 1] not in _DEFINES)
        elif word in VERBS and _can_open(tokens, i) and is_verb(tokens, i):
            yield True
        else:
            yield bool(tokens.tables) and in_from[-1] and _is_view(tokens, i)


def _can_open(tokens: Tokens, i: int) -> bool:
    """Can a verb's query start at token i, after what stands before it?"""
    if i == 0 or tokens.upper[i - 1] in _BEFORE_VERB:
        return True
    while i > 1 and tokens.is_name(i - 1) and tokens.upper[i - 2] == ".":  # INSERT INTO schema.t
        i -= 2
    return i > 2 and tokens.is_name(i - 1) and tokens.upper[i - 2] == "INTO" and tokens.upper[i - 3] == "INSERT"


def _is_view(tokens: Tokens, i: int) -> bool:
    before = tokens.upper[i - 1] if i else ""
    starts = before in ("FROM", "JOIN", "TABLE", ",", "(", ".", "LATERAL")
    return starts and tokens.is_name(i) and tokens.name(i) in tokens.tables


def _ends_query(tokens: Tokens, i: int, *, evaluated: bool) -> bool:
    word, after = tokens.upper[i], tokens.upper[i + 1]
    if word not in ("USING", "WITH", "INTO", "AGAINST") or tokens.upper[i - 1] in (".", "AS"):
        return False
    if word == "USING":
        calls = tokens.upper[i + 2 : i + 3] == ["("] and after not in ("ANY", "CASCADE")  # PIVOT … USING sum(x)
        return after != "(" and not calls and not is_sample(tokens, i)
    if word == "WITH":
        return after not in ("ORDINALITY", "TIME")
    return word == "INTO" or evaluated
