"""Text under the cursor as tokens. Unlike the grammar's scanner it takes text that is not finished yet."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      |(?P<comment>--[^\n]*)
      |(?P<block>/\*)
      |(?P<string>(?:[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+|'[^']*+(?:''[^']*+)*+)(?P<close>'?))
      |(?P<quoted>"[^"]*+(?:""[^"]*+)*+(?P<close_name>"?))
      |(?P<dollar>\$(?:[^\W\d]\w*)?\$)
      |(?P<param>\$\w+)
      |(?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
      |(?P<word>[^\W\d][\w$]*)
      |(?P<symbol>.)""",
    re.VERBOSE | re.DOTALL,
)
_KINDS = ("space", "word", "symbol", "string", "number", "comment", "quoted", "dollar", "param", "block")
_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text: kind is comment, string, quoted, param, number, word or symbol. `closed` is False for a
    string, quoted name or comment that the text ends within.
    """

    kind: str
    text: str
    start: int
    closed: bool = True

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind in ("word", "symbol") else ""


def pieces(text: str) -> Iterator[Piece]:
    """The pieces of `text`, white space left out."""
    position = 0
    while match := _TOKEN.match(text, position):
        kind, end, closed = next(name for name in _KINDS if match[name] is not None), match.end(), True
        if kind == "block":
            kind, (end, closed) = "comment", _comment_end(text, position)
        elif kind == "dollar":
            kind, (end, closed) = "string", _dollar_end(text, position, match[0])
        elif kind in ("string", "quoted"):
            closed = bool(match["close"] or match["close_name"])
        elif kind == "comment":
            closed = text[end : end + 1] == "\n"
        if kind != "space":
            yield Piece(kind, text[position:end], position, closed)
        position = end


def is_complete(text: str) -> bool:
    """Whether Enter runs `text`: its last piece, comments aside, is the `;` that ends a statement."""
    last = last_piece(text)
    return last is not None and last.text == ";"


def last_piece(text: str) -> Piece | None:
    """The last piece that is no comment, or the block comment that the text ends within; None where there is none."""
    last = None
    for piece in pieces(text):
        if piece.kind != "comment" or not (piece.closed or piece.text.startswith("--")):
            last = piece
    return last


def _comment_end(text: str, start: int) -> tuple[int, bool]:
    depth, position = 1, start + 2
    while depth:
        edge = _EDGE.search(text, position)
        if edge is None:
            return len(text), False
        depth += 1 if edge[0] == "/*" else -1
        position = edge.end()
    return position, True


def _dollar_end(text: str, start: int, tag: str) -> tuple[int, bool]:
    close = text.find(tag, start + len(tag))
    return (len(text), False) if close < 0 else (close + len(tag), True)
