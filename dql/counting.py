"""Counts of what calls ask, kept for a session: counted again only where the input holds other rows than before."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

from dql.catalog import quote_name
from dql.planner.physical import CallExec, InferExec
from dql.planner.statistics import Asked, Counted, count_calls, countable
from dql.row_sums import NOTHING, RowSums, Sums, hash_of

_KEPT = 64  # counted inputs
_FINGERPRINTED = 1_000_000  # rows of an input that is read again to see whether it changed
_CHEAP = 0.2  # seconds within which an input was read that may be read once more
_PROMPT = 0.5  # seconds to the first rows of an input whose rows may be numbered


@dataclass(frozen=True, slots=True)
class _Known:
    fingerprint: Sums
    counted: Counted
    budget: float


class Counts:
    """What was counted. An entry holds for one question and for the very rows it was counted on: their number, and two
    sums over the hashes of what the prompts read. That is right for tables, files, views and frames alike, and takes
    milliseconds where counting takes a tokenizer.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def clear(self) -> None:
        """Forget all: a model's name has come to mean something else."""
        self._known.clear()

    def of(
        self,
        node: InferExec,
        ask: Callable[[], Sequence[Asked]],
        sums: RowSums,
        budget: float,
        *,
        truncate: bool = False,
        answered: Mapping[str, Set[bytes]] = MappingProxyType({}),
    ) -> Counted:
        """Statistics of a node whose input is countable, in a few times `budget` seconds if its rows come steadily;
        `ask` says what its calls ask, which of their prompts are `answered`, and whether prompts over the context are
        cut, as `truncate` does; `sums` those of the query's rows."""
        sql = countable(node)
        assert sql is not None, "what earlier inference decides cannot be counted"
        done = sorted((out, blake2b(b"".join(sorted(keys))).digest()) for out, keys in answered.items())
        asked = repr((node.calls, sql, sorted(sums.params.items()), truncate, done))
        key = blake2b(asked.encode(), digest_size=16).digest()
        known = self._known.get(key)
        enough = known is not None and (known.counted.exact or known.budget >= budget)
        if known is not None and enough and _fingerprint(node, sums, sql, budget) == known.fingerprint:
            self._known.move_to_end(key)
            return known.counted
        counted = count_calls(node, ask(), lambda text, rows: sums.catalog.stream(text, rows, sums.params), budget)
        fingerprint: Sums | None = None
        if counted.exact and counted.seconds < _CHEAP:
            fingerprint = _fingerprint(node, sums, sql, budget)
        elif not counted.exact and counted.first < _PROMPT:
            numbered = sums.of(NOTHING, sql, budget)
            if numbered is not None:
                total = numbered[0]
                counted = counted.scaled(total, sums.different([_asked_of(call) for call in node.calls], sql, budget))
                fingerprint = _fingerprint(node, sums, sql, budget) if total <= _FINGERPRINTED else None
        if fingerprint is not None:
            self._known[key] = _Known(fingerprint, counted, budget)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return counted


def _fingerprint(node: InferExec, sums: RowSums, sql: str, budget: float) -> Sums | None:
    columns = (name for call in node.calls for name in (*call.holes, call.guard) if name is not None)
    return sums.of(hash_of(columns), sql, budget)


def _asked_of(call: CallExec) -> str:
    """A number that tells apart what rows ask of a call, NULL where they ask nothing."""
    names = [quote_name(hole) for hole in call.holes]
    conditions = [f"{name} IS NOT NULL" for name in names]
    if call.guard is not None:
        conditions.append(quote_name(call.guard))
    return f"CASE WHEN {' AND '.join(conditions) or 'TRUE'} THEN {hash_of(call.holes)} END"
