"""Every error dql raises on purpose.

DqlError
├── ParseError            the text is not DQL
├── BindError             a name, type or task that does not exist
├── PlanError             a valid query that no plan can run within its bounds
├── ExecutionError        a plan that failed while it ran
│   └── OutOfMemoryError
├── ConfigError           a setting, file or environment value (also a ValueError)
└── UnsupportedError      valid DQL that this version does not run
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_WINDOW = 100  # characters of the source line shown around the caret


class DqlError(Exception):
    """Base of all dql errors: what went wrong, where in the text, and how to mend it.

    `span` is the half-open range of characters in `text` that is to blame. Where only a line of it is known, as from
    another parser, `excerpt` holds that line (or a piece of it) and the place in it; `located` finds it in the text.
    """

    def __init__(
        self, message: str, *, text: str | None = None, span: tuple[int, int] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.text = text
        self.span = span
        self.hint = hint
        self.excerpt: tuple[str, int] | None = None

    def located(self, text: str, statement: tuple[int, int] | None = None) -> "DqlError":
        """Fill in the query text and the place, where the raiser did not know them; returns self.

        statement: the part of the text that was run, in which the place is looked for.
        """
        self.text = self.text if self.text is not None else text
        self.span = self.span or self._in_excerpt(self.text, *(statement or (0, len(self.text))))
        return self

    def _in_excerpt(self, text: str, lo: int, hi: int) -> tuple[int, int] | None:
        if self.excerpt is None:
            return None
        line, place = self.excerpt
        # The line may have been built around a piece of the user's text: look for less and less of it.
        for before, after in ((place, len(line)), (16, 16), (8, 4)):
            piece = line[max(0, place - before) : place + after]
            if (found := re.compile(rf"(?<!\w){re.escape(piece)}", re.IGNORECASE).search(text, lo, hi)) is not None:
                start = found.start() + min(place, before)
                word = re.match(r"\$?\w+|.", text[start:])
                return start, start + (word.end() if word else 1)
        return None

    @property
    def line(self) -> int | None:
        """1-based line of the error, if its place is known."""
        return None if self.text is None or self.span is None else self.text.count("\n", 0, self.span[0]) + 1

    @property
    def column(self) -> int | None:
        """1-based column of the error, in characters, if its place is known."""
        if self.text is None or self.span is None:
            return None
        return self.span[0] - (self.text.rfind("\n", 0, self.span[0]) + 1) + 1

    def __str__(self) -> str:
        parts = [self.message]
        if self.text is not None and self.span is not None:
            parts.append(_caret(self.text, self.span, self.line or 1, self.column or 1))
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class ParseError(DqlError):
    """The query text is not valid DQL."""


class BindError(DqlError):
    """A name, type or task in the query does not exist or does not fit."""


class PlanError(DqlError):
    """A valid query that no plan can run within its bounds."""


class ExecutionError(DqlError):
    """A plan failed while it ran."""


class OutOfMemoryError(ExecutionError):
    """Memory ran out, after batch sizes had been lowered as far as they go."""


class ConfigError(DqlError, ValueError):
    """A setting, file or environment value that dql cannot use."""


class UnsupportedError(DqlError):
    """Valid DQL that this version does not run."""


def nearest(word: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Known names closest to `word`, best first; case does not count."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[m] for m in get_close_matches(word.lower(), by_lower, n=limit, cutoff=0.6)]


def name_hint(word: str, known: Iterable[str]) -> str:
    """One sentence for an unknown name: the near names, or all that exist."""
    names = sorted(known)
    if close := nearest(word, names):
        return "did you mean " + " or ".join(close) + "?"
    shown = ", ".join(names[:12]) + (" …" if len(names) > 12 else "")
    return f"there is {shown}" if names else "there are none"


def _caret(text: str, span: tuple[int, int], line: int, column: int) -> str:
    start = text.rfind("\n", 0, span[0]) + 1
    end = text.find("\n", span[0])
    source = text[start : end if end >= 0 else len(text)]
    left = max(0, min(column - 1 - _WINDOW // 2, len(source) - _WINDOW))
    shown = source[left : left + _WINDOW].replace("\t", " ")
    prefix = f"line {line}: " + ("…" if left else "")
    width = max(1, min(span[1] - span[0], len(shown) - (column - 1 - left)))
    return f"{prefix}{shown}\n{' ' * (len(prefix) + column - 1 - left)}{'^' * width}"
