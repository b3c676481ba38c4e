"""What was proven of a model on a user's rows, kept per user, so that a repeated query need not prove it again.

A certificate holds for the weights, precisions, template and rows that it was made with, and for the version of dql
that made it; any of them changed, it is not found. Rows are told apart by a sum of hashes that DuckDB computes over
the columns that a call reads.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

from dql import __version__
from dql.catalog import Catalog, quote_name
from dql.planner.physical import CallExec, InferExec
from dql.planner.sampling import source
from dql.planner.statistics import infer_nodes

Value = Mapping[str, object]

_FORMAT = 3  # of what is kept: another one where a certificate holds other fields, or these mean something else
_KEPT = 16  # newest certificates of one template
_LOG = logging.getLogger("dql")


class Certificates:
    """A folder of small JSON files, one a certificate; it is made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, subject: Callable[[], object], fingerprint: Callable[[], str]) -> Value | None:
        """What is known of `subject` on these rows; they are looked at only where something is known of others."""
        if not self._folder.exists():
            return None
        name = _name(subject())
        if not any(self._folder.glob(f"{name}-*.json")):
            return None
        try:
            value = json.loads((self._folder / f"{name}-{fingerprint()}.json").read_text())
        except (OSError, ValueError):  # nothing is known of these rows, or the file is torn: prove it again
            return None
        return value if isinstance(value, dict) else None

    def keep(self, subject: object, fingerprint: str, value: Value) -> None:
        """Remember a proof; a folder that cannot be written costs no query."""
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


def rows_digest(
    node: InferExec,
    call: CallExec,
    catalog: Catalog,
    params: Mapping[str, object],
    identify: Callable[[CallExec], object],
) -> str:
    """Names the rows that a call of a node reads, in whatever order they come.

    Where other inference decides which these are, the rows below it and the plan between name them with its parameters,
    and what `identify` says of each call in it.
    """
    below = source(node)
    assert below is not None, "rows that cannot be sampled have no name"
    direct = node.child == below
    read = dict.fromkeys((*call.holes, *((call.guard,) if call.guard else ())))
    hashed = ", ".join(map(quote_name, read)) if direct else "dql_rows"
    sums = f"count(*)::VARCHAR, coalesce(sum(hash({hashed})::HUGEINT), 0)::VARCHAR"
    batch = next(iter(catalog.stream(f"SELECT {sums} FROM ({below.sql}) AS dql_rows", 1, params)))
    calls = () if direct else (each for lower in infer_nodes(node.child) for each in lower.calls)
    between = "" if direct else repr((node.child, [identify(each) for each in calls], sorted(params.items())))
    return blake2b(repr((batch.to_pylist(), between)).encode(), digest_size=12).hexdigest()


def _name(subject: object) -> str:
    return blake2b(repr((__version__, _FORMAT, subject)).encode(), digest_size=12).hexdigest()
