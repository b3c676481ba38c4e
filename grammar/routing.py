"""Which statements the grammar reads and which are DuckDB's, and where a query without inference ends."""

from collections.abc import Iterator
from difflib import get_close_matches

from dql.grammar.blocks import query_end
from dql.grammar.names import DQL_HEADS, DUCKDB_HEADS, SHOWN, TRANSACTIONS, words
from dql.grammar.tokens import Tokens

_BRACKETS = frozenset("([{")
_QUERY = words("SELECT WITH FROM VALUES TABLE (")
_EXPLAINED = _QUERY | words("PIVOT UNPIVOT GENERATE CLASSIFY SCORE EXTRACT EMBED ANALYZE")
_HOLDS_INFERENCE = _QUERY | words("CREATE INSERT COPY DROP DESCRIBE DESC SUMMARIZE")
_RELATIONS = words("VIEW FUNCTION MACRO")
_CREATE_WORDS = words("OR REPLACE TEMP TEMPORARY IF NOT EXISTS")
_SCOPES = words("GLOBAL SESSION LOCAL PERSISTENT VARIABLE")


def statements(tokens: Tokens) -> Iterator[tuple[int, int]]:
    """The token range [lo, hi) of every statement; a `;` inside brackets does not end one."""
    lo, closed = 0, -1
    for i, symbol in enumerate(tokens.upper):
        if symbol in _BRACKETS and i > closed:
            closed = tokens.match[i]
        elif (symbol == ";" and i > closed) or tokens.kind[i] == "EOF":
            if i > lo:
                yield lo, i
            lo = i + 1


def is_structured(tokens: Tokens, lo: int, hi: int) -> bool:
    """Does the grammar read this statement, or does DuckDB get it whole? No parser runs for the latter.

    Raises ParseError for a first word that opens no statement, and for inference where no statement can hold it.
    """
    head = tokens.upper[lo]
    if head in TRANSACTIONS:
        hint = "every statement is atomic by itself; leave this one out"
        raise tokens.error(f"DQL has no transactions: {head}", lo, hint)
    if head == "EXPLAIN":
        return _is_explained(tokens, lo, hi)
    if head in ("SET", "RESET"):
        return tokens.upper[lo + 1] not in _SCOPES or tokens.upper[lo + 2] in ("=", "TO")
    if head in DQL_HEADS:
        return True
    if _is_of_catalog(tokens, lo, hi):
        return True
    if tokens.infers(lo, hi):
        _check_can_infer(tokens, lo)
        return True
    if head in _QUERY:
        return query_end(tokens, lo, hi) < hi
    if head not in DUCKDB_HEADS:
        raise tokens.error("a statement cannot start like this", lo, _head_hint(tokens, lo))
    return False


def _is_explained(tokens: Tokens, lo: int, hi: int) -> bool:
    first = lo + 2 if tokens.upper[lo + 1] == "ANALYZE" else lo + 1
    if tokens.upper[first] == "(" and not tokens.opens_query[first]:
        return True
    return tokens.upper[first] in _EXPLAINED or tokens.infers(lo, hi) or tokens.upper[first] not in DUCKDB_HEADS


def _is_of_catalog(tokens: Tokens, lo: int, hi: int) -> bool:
    """Statements about models and adapters, and about views and functions that hold inference."""
    head, after = tokens.upper[lo], tokens.upper[lo + 1]
    if head == "SHOW":
        return after in SHOWN
    if head in ("DESCRIBE", "DESC"):
        return (after == "MODEL" and hi > lo + 2) or (hi > lo + 1 and tokens.name(hi - 1) in tokens.tables)
    if head == "SUMMARIZE":
        return tokens.name(hi - 1) in tokens.tables
    if head == "COPY":
        return tokens.name(lo + 1) in tokens.tables
    if head == "CREATE":
        words = [tokens.name(i) for i in range(lo + 1, hi) if tokens.upper[i] not in _CREATE_WORDS][:2]
        kind, name = words if len(words) == 2 else ("", "")
        return kind in ("MODEL", "ADAPTER") or (kind in _RELATIONS and name in tokens.functions | tokens.tables)
    if head == "DROP":
        named = any(tokens.name(i) in tokens.functions | tokens.tables for i in range(lo + 2, hi))
        if after == "TABLE" and tokens.name(hi - 1) in tokens.tables:
            view = tokens.spelling(hi - 1)
            raise tokens.error(f"{view} is a view, not a table", hi - 1, f"write DROP VIEW {view}")
        return after in ("MODEL", "ADAPTER") or (after in _RELATIONS and named)
    return False


def _check_can_infer(tokens: Tokens, lo: int) -> None:
    head = tokens.upper[lo]
    if head in _HOLDS_INFERENCE:
        return
    if head in ("PIVOT", "UNPIVOT"):
        hint = f"compute it first: WITH t AS (SELECT … ) {head} t …"
    elif head in DUCKDB_HEADS:
        hint = "compute it with CREATE TABLE … AS SELECT … and use that table here"
    else:
        raise tokens.error("a statement cannot start like this", lo, _head_hint(tokens, lo))
    raise tokens.error(f"{head} cannot hold inference", lo, hint)


def _head_hint(tokens: Tokens, lo: int) -> str:
    near = get_close_matches(tokens.upper[lo], sorted(DQL_HEADS | DUCKDB_HEADS), 1, 0.6)
    if near:
        return f"did you mean {near[0]}?"
    return "statements start with SELECT, GENERATE, CLASSIFY, SCORE, EXTRACT, EMBED, EXPLAIN, CREATE, …"
