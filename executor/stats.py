"""Counts of one run, as `Result.stats()` gives them; apart from the runtime, so that reading them loads no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dql.planner.explain_cost import Promise


@dataclass(frozen=True, slots=True)
class Stats:
    """What one run did. Tokens: `prefilled` were computed, `reused` shared with other rows, `decoded` generated,
    `forced` fed although no one drew them (those of labels); `proposed` were guessed ahead, and of these `accepted`.

    calls_saved: rows of cascades that their last models were not asked about, not to calibrate either. promises: each
    bound of the contract, with what was promised and what was measured. changes: what the run changed of its plan.
    notices: terms of the models that it fetched, and of drafts that did not fit into memory.
    """

    rows: int = 0
    nulls: int = 0
    failed: int = 0
    calls: int = 0
    calls_reused: int = 0
    calls_saved: int = 0
    truncated: int = 0
    cut_by_max_tokens: int = 0
    tokens_prefilled: int = 0
    tokens_reused: int = 0
    tokens_decoded: int = 0
    tokens_forced: int = 0
    tokens_proposed: int = 0
    tokens_accepted: int = 0
    seconds: float = 0.0
    messages: tuple[str, ...] = ()
    promises: "tuple[Promise, ...]" = ()
    changes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
