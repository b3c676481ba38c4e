"""String literals and quoted names: from their spelling to their content and back."""

import re
from collections.abc import Iterator

from dql.grammar.names import FUNCTION_WORDS, RESERVED
from dql.grammar.tables import load

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CODE = re.compile(r"x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3})")


def string_value(raw: str) -> str:
    """The content of `'…'`, `E'…'` or `$tag$…$tag$`."""
    if raw[0] == "'" and "''" not in raw[1:-1]:
        return raw[1:-1]
    return "".join(character for character, _ in characters(raw))


def characters(raw: str) -> Iterator[tuple[str, int]]:
    """Each character of a literal's content with the offset in `raw` where its spelling starts."""
    if raw[0] == "$":
        tag = raw.index("$", 1) + 1
        yield from ((raw[i], i) for i in range(tag, len(raw) - tag))
        return
    escapes = raw[0] in "eE"
    i = raw.index("'") + 1
    while i < len(raw) - 1:
        if raw[i] == "'":
            yield "'", i
            i += 2
        elif raw[i] == "\\" and escapes:
            character, size = _escape(raw, i + 1)
            yield character, i
            i += size + 1
        else:
            yield raw[i], i
            i += 1


def name_value(raw: str) -> str:
    """The content of a name, quoted or not."""
    return raw[1:-1].replace(raw[0] * 2, raw[0]) if raw[0] in '"`' else raw


def quote_string(value: str) -> str:
    """`it's` as `'it''s'`."""
    return "'" + value.replace("'", "''") + "'"


def quote_name(name: str) -> str:
    """The name in double quotes where a bare word would be read as a keyword or not as a name at all."""
    word = name.upper()
    taken = word in RESERVED or word in FUNCTION_WORDS or word in load().ambiguous
    return quoted(name) if taken or not is_plain(name) else name


def quoted(name: str) -> str:
    """`a"b` as `"a""b"`."""
    return '"' + name.replace('"', '""') + '"'


def is_plain(name: str) -> bool:
    """Letters, digits and underscores: what may stand without quotes where no keyword can."""
    return _PLAIN_NAME.fullmatch(name) is not None


def _escape(raw: str, i: int) -> tuple[str, int]:
    code = _CODE.match(raw, i, len(raw) - 1)
    if code is None:
        return _ESCAPES.get(raw[i], raw[i]), 1
    digits = next(group for group in code.groups() if group)
    value = int(digits, 8 if code[4] else 16)
    return (chr(value) if value <= 0x10FFFF else "\ufffd"), len(code[0])
