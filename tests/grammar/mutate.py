"""Texts that are nearly statements."""

import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from dql.grammar.tables import load

_PIECE = re.compile(r"\s+|\w+|'[^']*'|.", re.DOTALL)
_SPLINTERS = [*"()[]{}'\";,.\\`é\x00", "$$", "--", "/*", "*/", "::", ".*"]


def mutants(random: Random, count: int) -> Iterator[str]:
    """Statements of the fixtures with one to three tokens dropped, doubled, swapped, replaced or cut through."""
    here = Path(__file__).parent
    lines = [
        line
        for name in ("valid.sql", "plain.sql")
        for line in (here / name).read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("--")
    ]
    inserted = [*_SPLINTERS, *sorted(load().words), "AI_FILTER('x')", "(SELECT", "USING m", "1e5", "a.b"]
    for _ in range(count):
        pieces = _PIECE.findall(random.choice(lines))
        for _ in range(random.randint(1, 3)):
            _mutate(random, pieces, inserted)
        yield "".join(pieces)


def _mutate(random: Random, pieces: list[str], inserted: list[str]) -> None:
    at = random.randrange(len(pieces)) if pieces else 0
    kind = random.randrange(6) if pieces else 2
    if kind == 0:
        del pieces[at]
    elif kind == 1:
        pieces.insert(at, pieces[at])
    elif kind == 2:
        pieces.insert(at, f" {random.choice(inserted)} ")
    elif kind == 3:
        other = random.randrange(len(pieces))
        pieces[at], pieces[other] = pieces[other], pieces[at]
    elif kind == 4:
        word = pieces[at]
        cut = random.randrange(len(word) + 1)
        pieces[at] = word[:cut] + word[cut + 1 :]
    else:
        del pieces[at:]
