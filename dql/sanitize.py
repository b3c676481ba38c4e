"""Text from data, files or models made safe to print. Imports nothing heavy: every face uses it."""

import re

from dql.errors import DqlError

# C0, DEL, C1, line separators, and the marks that reorder or hide text (bidi controls, byte-order mark).
CONTROL = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
_CONTROL = re.compile(CONTROL)
_NAMED = {"\0": "\\0", "\a": "\\a", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\v": "\\v", "\f": "\\f", "\r": "\\r"}
_NAMED["\x1b"] = "\\e"


def sanitize_cell(text: str, *, keep: str = "") -> str:
    """`text` with control, escape and bidi characters as visible escapes (`\\e`, `\\u202e`), but those in `keep`."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _visible(found[0]), text)


def error_text(error: BaseException) -> str:
    """`ParseError: message`, the caret and the hint, fit for a terminal."""
    if isinstance(error, DqlError):
        return sanitize_cell(f"{type(error).__name__}: {error}", keep="\n")
    text = f"{type(error).__name__}: {error}\nhint: this is a bug in dql; with DQL_DEBUG=1 it shows where"
    return sanitize_cell(text, keep="\n")


def _visible(char: str) -> str:
    code = ord(char)
    return _NAMED.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
