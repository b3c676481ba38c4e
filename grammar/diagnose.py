"""Why a text does not parse, in the user's words."""

from dql.errors import ParseError
from dql.grammar.driver import Unexpected
from dql.grammar.scanner import Tokens
from dql.grammar.tables import Tables


def explain_unexpected(
    tables: Tables, tokens: Tokens, lo: int, hi: int, start: str, unexpected: Unexpected
) -> ParseError:
    """The error for a token that cannot stand where it does."""
    token = unexpected.token
    span = (token.start, token.end) if token else (tokens.end[hi - 1], tokens.end[hi - 1] + 1)
    hint = "expected " + ", ".join(sorted(tables.legal(unexpected.states)))
    return ParseError(
        f"unexpected {token.text!r}" if token else "the statement ends too early",
        text=tokens.text,
        span=span,
        hint=hint,
    )
