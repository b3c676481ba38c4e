"""What was proven of a model on a user's rows, kept per user, so that a repeated query need not prove it again.

A certificate holds for the weights, precisions, template and rows that it was made with, and for the version of dql
that made it; any of them changed, it is not found. Rows are told apart by sums of hashes that DuckDB computes over
the columns that a call reads.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import TypeVar

from dql import __version__
from dql.planner.physical import CallExec, InferExec
from dql.planner.sampling import source
from dql.planner.statistics import infer_nodes
from dql.row_sums import RowSums, Sums, hash_of

Value = Mapping[str, object]
T = TypeVar("T")

_FORMAT = 4  # of what is kept: another one where a certificate holds other fields, or these mean something else
_KEPT = 16  # newest certificates of one template
_LOG = logging.getLogger("dql")


class Unread(Enum):
    """That something was proven, of these rows or of others: nobody has had the time to compare them."""

    UNREAD = "whether on these rows, the run finds out"


class Certificates:
    """A folder of small JSON files, one a certificate; it is made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(
        self, subject: Callable[[], object], rows: Callable[[], str | None], read: Callable[[Value], T]
    ) -> T | Unread | None:
        """What is known of `subject` on these rows; they are looked at only where something is known of others.

        read: turns what was kept into what it means; raises ValueError where it means nothing.
        """
        if not self._folder.exists():
            return None
        name = _name(subject())
        if not any(self._folder.glob(f"{name}-*.json")):
            return None
        if (fingerprint := rows()) is None:
            return Unread.UNREAD
        try:
            value = json.loads((self._folder / f"{name}-{fingerprint}.json").read_text())
            return read(value) if isinstance(value, dict) else None
        except (OSError, ValueError):  # nothing is known of these rows, or the file is torn: prove it again
            return None

    def keep(self, subject: object, fingerprint: str | None, value: Value) -> None:
        """Remember a proof; a folder that cannot be written costs no query."""
        assert fingerprint is not None, "who proves something has all the time to name its rows"
        name = _name(subject)
        path = self._folder / f"{name}-{fingerprint}.json"
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(value))
            part.replace(path)
            known = sorted(self._folder.glob(f"{name}-*.json"), key=lambda file: file.stat().st_mtime_ns)
            for old in known[:-_KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("what was proven is not kept: %s", error)


@dataclass(slots=True)
class RowNames:
    """Names the rows that calls of one query read, in whatever order they come.

    identify: what decides what a call answers. seconds: that reading may take, all inputs together; None: as many as
    it takes.
    """

    sums: RowSums
    identify: Callable[[CallExec], object]
    seconds: float | None

    def of(self, node: InferExec, call: CallExec) -> str | None:
        """The name of the rows that a call of a node reads; None where the time does not do.

        Where other inference decides which these are, the rows below it and the plan between name them with its
        parameters, and what `identify` says of each call in it.
        """
        below = source(node)
        assert below is not None, "rows that cannot be sampled have no name"
        direct = node.child == below
        columns = (name for name in (*call.holes, call.guard) if name is not None)
        sums = self._read(hash_of(columns) if direct else "hash(dql_rows)", below.sql)
        if sums is None:
            return None
        calls = () if direct else (each for lower in infer_nodes(node.child) for each in lower.calls)
        parts = node.child, [self.identify(each) for each in calls], sorted(self.sums.params.items())
        between = "" if direct else repr(parts)
        return blake2b(repr((sums, between)).encode(), digest_size=12).hexdigest()

    def _read(self, number: str, sql: str) -> Sums | None:
        began = time.monotonic()
        sums = self.sums.of(number, sql, self.seconds)
        if self.seconds is not None:
            self.seconds = max(self.seconds - (time.monotonic() - began), 0.0)
        return sums


def numbers(kind: type[T], value: object) -> T:
    """A dataclass of numbers from what a certificate says of it. Raises ValueError where that is something else."""
    assert is_dataclass(kind)
    types = {each.name: each.type for each in fields(kind)}
    if not isinstance(value, dict) or value.keys() != types.keys():
        raise ValueError(f"no {kind.__name__}")
    for name, given in value.items():
        if type(given) not in (int, types[name]) or not isfinite(given):
            raise ValueError(f"{name} of a {kind.__name__} is a number, not {given!r}")
    return kind(**value)


def _name(subject: object) -> str:
    return blake2b(repr((__version__, _FORMAT, subject)).encode(), digest_size=12).hexdigest()
