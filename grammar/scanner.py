"""Text to raw tokens, in one pass of one regular expression, with what only the whole text can tell.

That is: which bracket closes which, which `(` opens a query, and how much inference stands before each token.
"""

import re
from itertools import accumulate

from dql.errors import ParseError
from dql.grammar.blocks import inference_marks, opens_query
from dql.grammar.names import DOTTED, INFERENCE_NAMES
from dql.grammar.tokens import Tokens

MAX_CHARACTERS = 1_000_000
MAX_BRACKETS = 1_000

# Possessive quantifiers: no input makes the scanner look back.
_TOKEN = re.compile(
    r"""(?P<SPACE>\s++|--[^\n]*+)
      |(?P<COMMENT>/\*)
      |(?P<STRING>[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'|'[^']*+(?:''[^']*+)*+')
      |(?P<OPEN>[eE]?')
      |(?P<QUOTED>"[^"]*+(?:""[^"]*+)*+"|`[^`]*+(?:``[^`]*+)*+`)
      |(?P<DOLLAR>\$(?:(?:[A-Za-z_]|[^\x00-\x7f])(?:\w|[^\x00-\x7f])*+)?\$)
      |(?P<PARAM>\$\w+|\?)
      |(?P<INDEX>\#\d++)
      |(?P<NUMBER>(?:\d++(?:_\d++)*+(?:\.(?:\d++(?:_\d++)*+)?)?+|\.\d++(?:_\d++)*+)(?:[eE][+-]?\d++(?:_\d++)*+)?)
      |(?P<CURLY>[‘’“”])
      |(?P<WORD>(?:[A-Za-z_]|[^\x00-\x7f])(?:[\w$]|[^\x00-\x7f\s])*+)
      |(?P<SYMBOL>->>|<=>|<->|!~~\*|!~~|~~\*|~~~|!~\*|~~|~\*|!~|->|=>|:=|::|==|<=|>=|<>|!=|\|\||//|\*\*|<<|>>|@>|<@|&&
                 |\^@|[()\[\]{},;:.+\-*/%^<>=~!@&|])""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_CLOSES = {")": "(", "]": "[", "}": "{"}
_PAIRS = {"(": ")", "[": "]", "{": "}"}
_OPENS = frozenset(_PAIRS)


def scan(text: str, functions: frozenset[str] = frozenset(), tables: frozenset[str] = frozenset()) -> Tokens:
    """Tokens of a text. `functions` and `tables`, upper case, are names with inference beside the built-in ones.

    Raises ParseError on an unclosed string, comment or bracket, an unknown character, or a text beyond the caps.
    """
    if len(text) > MAX_CHARACTERS:
        raise ParseError(
            f"the text has {len(text):,} characters; the limit is {MAX_CHARACTERS:,}",
            text=text,
            span=(0, 1),
            hint="put data in a file or table and name it in FROM",
        )
    tokens = Tokens(text, functions, tables)
    _split(tokens)
    _match_brackets(tokens)
    tokens.opens_query = [False] * len(tokens.kind)
    for i in range(len(tokens.kind) - 1, -1, -1):  # inner brackets first
        if tokens.upper[i] == "(":
            tokens.opens_query[i] = opens_query(tokens, i)
    tokens.inference = [0, *accumulate(inference_marks(tokens, INFERENCE_NAMES | functions))]
    return tokens


def unclosed(text: str) -> str:
    """The brackets that would close those left open at the end of a text; raises ParseError where scan would."""
    tokens, opened = Tokens(text), list[str]()
    _split(tokens)
    for symbol in tokens.upper:
        if symbol in _OPENS:
            opened.append(_PAIRS[symbol])
        elif symbol in _CLOSES and opened and opened[-1] == symbol:
            opened.pop()
    return "".join(reversed(opened))


def hole_end(text: str, start: int) -> int:
    """Position of the `}` that closes a template's hole whose content begins at `start`; -1 if none does.

    Brackets and braces inside the hole, strings, quoted names and comments are stepped over.
    """
    depth, position = 0, start
    while (match := _TOKEN.match(text, position)) is not None and match.lastgroup != "OPEN":
        position = match.end()
        if match.lastgroup == "COMMENT":
            position = _comment_end(text, match.start())
        elif match.lastgroup == "DOLLAR":
            position = _dollar_end(text, match.start(), match[0])
        elif match[0] == "}" and depth == 0:
            return match.start()
        elif match.lastgroup == "SYMBOL":
            depth += (match[0] in _OPENS) - (match[0] in _CLOSES)
    return -1


def _split(tokens: Tokens) -> None:
    text, position, size = tokens.text, 0, len(tokens.text)
    kinds, starts, ends, uppers = tokens.kind, tokens.start, tokens.end, tokens.upper
    match_at = _TOKEN.match
    while position < size:
        match = match_at(text, position)
        kind = match.lastgroup if match else None
        if match is None or kind in (None, "OPEN", "CURLY"):
            raise _unreadable(text, position, match)
        end = match.end()
        if kind == "SPACE":
            position = end
            continue
        if kind == "COMMENT":
            position = _comment_end(text, position)
            continue
        if kind == "DOLLAR":
            kind, end = "STRING", _dollar_end(text, position, match[0])
        kinds.append(kind)
        starts.append(position)
        ends.append(end)
        uppers.append(_upper(match[0]) if kind == "WORD" else match[0] if kind == "SYMBOL" else "")
        if uppers[-1] == "(" and len(kinds) > 3 and uppers[-2] in DOTTED and uppers[-3] == "." and uppers[-4] == "AI":
            _fold_dotted(tokens)
        position = end
    kinds.append("EOF")
    starts.append(size)
    ends.append(size)
    uppers.append("")


def _upper(word: str) -> str:
    # Other alphabets have letters whose capital is an ASCII one: no keyword hides in them.
    return word.upper() if word.isascii() else word


def _fold_dotted(tokens: Tokens) -> None:
    """`AI . IF (` becomes the name AI.IF and its bracket."""
    tokens.kind[-4:-1] = ["WORD"]
    tokens.end[-4:-1] = [tokens.end[-2]]
    tokens.start[-4:-1] = [tokens.start[-4]]
    tokens.upper[-4:-1] = [f"AI.{tokens.upper[-2]}"]


def _unreadable(text: str, position: int, match: "re.Match[str] | None") -> ParseError:
    character = text[position]
    if match is not None and match.lastgroup == "OPEN":
        hint = "close it with ' — a quote inside is doubled: 'it''s'"
        return ParseError("this string is not closed", text=text, span=(position, match.end()), hint=hint)
    if character in '"`':
        hint = f"close it with {character} — or write a string in single quotes"
        return ParseError("this quoted name is not closed", text=text, span=(position, position + 1), hint=hint)
    hints = {
        **dict.fromkeys("‘’“”", "strings stand in plain single quotes: 'text'"),
        "\\": "DQL has no backslash commands; in the shell they start with a dot, as .help",
    }
    message = f"unexpected character {character!r}"
    return ParseError(message, text=text, span=(position, position + 1), hint=hints.get(character))


def _comment_end(text: str, start: int) -> int:
    depth, position = 1, start + 2
    while depth:
        edge = _COMMENT_EDGE.search(text, position)
        if edge is None:
            raise ParseError("this comment is not closed", text=text, span=(start, start + 2), hint="close it with */")
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position


def _dollar_end(text: str, start: int, tag: str) -> int:
    close = text.find(tag, start + len(tag))
    if close < 0:
        span = (start, start + len(tag))
        raise ParseError("this dollar-quoted string is not closed", text=text, span=span, hint=f"close it with {tag}")
    return close + len(tag)


def _match_brackets(tokens: Tokens) -> None:
    match = tokens.match = [-1] * len(tokens.kind)
    opened: list[int] = []
    for i, symbol in enumerate(tokens.upper):
        if symbol in _OPENS:
            opened.append(i)
            if len(opened) > MAX_BRACKETS:
                raise tokens.error(f"brackets nest deeper than {MAX_BRACKETS:,}", i, "split the query with CTEs")
        elif symbol in _CLOSES:
            if not opened or tokens.upper[opened[-1]] != _CLOSES[symbol]:
                raise tokens.error(f"unmatched {symbol!r}", i, _unmatched_hint(tokens, opened))
            match[i] = opened[-1]
            match[opened.pop()] = i
        elif symbol == ";" and opened:
            break
    if opened:
        symbol = tokens.upper[opened[-1]]
        raise tokens.error(f"this {symbol!r} is not closed", opened[-1], f"close it with {_PAIRS[symbol]!r}")


def _unmatched_hint(tokens: Tokens, opened: list[int]) -> str:
    if not opened:
        return "no bracket is open here"
    line = tokens.text.count("\n", 0, tokens.start[opened[-1]]) + 1
    return f"the bracket open here is the {tokens.upper[opened[-1]]!r} of line {line}"
