"""Searches that a session has made: what is explained again, or explained and then run, is not searched twice."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from dql.planner.candidates import PricedCall
from dql.planner.contract import Contract
from dql.planner.hardware import Hardware
from dql.planner.search import Choice, search

_KEPT = 32


class Choices:
    """`search` is a function of what it is given, all of it plain data: equal questions have one answer."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Choice] = OrderedDict()

    def of(
        self,
        calls: Sequence[PricedCall],
        hardware: Hardware,
        contract: Contract,
        agreement: Mapping[str, float] | None = None,
        *,
        what_if: bool = False,
    ) -> Choice:
        """The choice for these calls. Raises what `search` raises."""
        key = blake2b(repr((calls, hardware, contract, agreement, what_if)).encode(), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = search(calls, hardware, contract, agreement, what_if=what_if)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]
