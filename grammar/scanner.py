"""Text to raw tokens, in one pass of one regular expression, with what only the whole text can tell.

That is: which bracket closes which, which `(` opens a query, and how much inference stands before each token.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from dql.errors import ParseError
from dql.grammar.names import DOTTED, FUNCTION_WORDS, INFERENCE_NAMES, NEVER_ALIAS, QUERY_HEADS, RESERVED, VERBS, words

MAX_CHARACTERS = 1_000_000
MAX_BRACKETS = 1_000

# Possessive quantifiers: no input makes the scanner look back.
_TOKEN = re.compile(
    r"""(?P<SPACE>\s++|--[^\n]*+)
      |(?P<COMMENT>/\*)
      |(?P<STRING>[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'|'[^']*+(?:''[^']*+)*+')
      |(?P<OPEN>[eE]?')
      |(?P<QUOTED>"[^"]*+(?:""[^"]*+)*+")
      |(?P<DOLLAR>\$(?:[^\W\d]\w*)?\$)
      |(?P<PARAM>\$\w+|\?)
      |(?P<INDEX>\#\d++)
      |(?P<NUMBER>(?:\d[\d_]*+(?:\.\d[\d_]*+|\.(?![.\w]))?|\.\d[\d_]*+)(?:[eE][+-]?\d++)?)
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
_AFTER_QUERY = words("UNION INTERSECT EXCEPT ORDER LIMIT OFFSET USING")
_CONTINUES = RESERVED - words("CASE CAST NULL TRUE FALSE ARRAY LAMBDA") | NEVER_ALIAS | words("IS LIKE BETWEEN")
_BEFORE_VERB = words(
    "( ) ; AS AGAINST EXPLAIN ANALYZE EVALUATE DESCRIBE SUMMARIZE UNION INTERSECT EXCEPT ALL NAME DISTINCT"
)
_BEFORE_QUERY = words("AS MATERIALIZED COPY AGAINST EXISTS")
_DEFINES = words("FUNCTION MACRO TABLE VIEW EXISTS INTO")
_ENDS_FROM = words("SELECT WHERE GROUP HAVING WINDOW QUALIFY ORDER LIMIT OFFSET UNION EXCEPT INTERSECT ON")


@dataclass(slots=True)
class Tokens:
    """The tokens of a text as parallel lists; a token is known by its index. The last one is of kind EOF.

    functions, tables: the names with inference it was scanned with. upper: the word in upper case, the symbol, or ""
    for what is neither. match: index of the other bracket or -1. opens_query: whether this `(` opens a query.
    inference: number of inference marks before each token.
    """

    text: str
    functions: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    kind: list[str] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    upper: list[str] = field(default_factory=list)
    match: list[int] = field(default_factory=list)
    opens_query: list[bool] = field(default_factory=list)
    inference: list[int] = field(default_factory=list)

    def infers(self, lo: int, hi: int) -> bool:
        """Is there inference in tokens lo to hi?"""
        return self.inference[hi] > self.inference[lo]

    def name(self, i: int) -> str:
        """The token as a name in upper case, without quotes; "" if it is none."""
        return self.spelling(i)[1:-1].replace('""', '"').upper() if self.kind[i] == "QUOTED" else self.upper[i]

    def spelling(self, i: int) -> str:
        """The token as written."""
        return self.text[self.start[i] : self.end[i]]

    def is_name(self, i: int) -> bool:
        """A word or a quoted name."""
        return self.kind[i] in ("WORD", "QUOTED")

    def error(self, message: str, i: int, hint: str | None = None) -> ParseError:
        """A ParseError at token i."""
        return ParseError(message, text=self.text, span=(self.start[i], self.end[i]), hint=hint)


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
            tokens.opens_query[i] = _opens_query(tokens, i)
    marks = list(_marks(tokens, INFERENCE_NAMES | functions))
    if tables:
        marks = [a or b for a, b in zip(marks, _table_marks(tokens, tables), strict=True)]
    tokens.inference = [0, *accumulate(marks)]
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
    if character == '"':
        hint = 'close it with " — or write a string in single quotes'
        return ParseError("this quoted name is not closed", text=text, span=(position, position + 1), hint=hint)
    hints = {
        "`": 'names are quoted with "double quotes"',
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


def _opens_query(tokens: Tokens, i: int) -> bool:
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


def _marks(tokens: Tokens, functions: frozenset[str]) -> Iterator[bool]:
    """Whether a call of inference or a verb's query starts at each token."""
    upper = tokens.upper
    last = len(upper) - 1
    for i, word in enumerate(upper):
        if i < last and upper[i + 1] == "(" and (word or tokens.kind[i] == "QUOTED") and tokens.kind[i] != "SYMBOL":
            yield tokens.name(i) in functions and (i == 0 or upper[i - 1] not in _DEFINES)
        else:
            if word not in VERBS:
                yield False
                continue
            opens = i == 0 or upper[i - 1] in _BEFORE_VERB or _is_after_target(tokens, i)
            yield opens and is_verb(tokens, i)


def _is_after_target(tokens: Tokens, i: int) -> bool:
    """`INSERT INTO schema.t` stands before token i."""
    while i > 1 and tokens.is_name(i - 1) and tokens.upper[i - 2] == ".":
        i -= 2
    return i > 2 and tokens.is_name(i - 1) and tokens.upper[i - 2] == "INTO" and tokens.upper[i - 3] == "INSERT"


def _table_marks(tokens: Tokens, tables: frozenset[str]) -> Iterator[bool]:
    """Whether each token names a view with inference, in a FROM clause."""
    inside = [False]  # per open bracket: are we in a FROM clause?
    for i, word in enumerate(tokens.upper):
        if word in _OPENS:
            inside.append(inside[-1])
        elif word in _CLOSES and len(inside) > 1:
            inside.pop()
        elif word in ("FROM", "JOIN", "TABLE"):
            inside[-1] = True
        elif word in _ENDS_FROM:
            inside[-1] = False
        before = tokens.upper[i - 1] if i else ""
        starts = before in ("FROM", "JOIN", "TABLE", ",", "(", ".", "LATERAL")
        yield inside[-1] and starts and tokens.is_name(i) and tokens.upper[i + 1] != "(" and tokens.name(i) in tables
