"""What runs of a statement that stopped have answered: known before it is planned anew, taken over when it runs."""

from collections.abc import Mapping, Set
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from dql import __version__
from dql.planner.cascade import ALONE
from dql.planner.cascading import with_thresholds
from dql.planner.physical import Placement, QueryPlan, rewritten
from dql.planner.placing import as_chosen
from dql.planner.statistics import infer_nodes

if TYPE_CHECKING:
    from dql.estimate import Estimate, Surroundings


def as_run(found: "Estimate") -> QueryPlan:
    """The plan of a query as it runs, every choice made."""
    query = with_thresholds(found.planned.query, found.settled.thresholds, ALONE)
    return as_chosen(query, found.planned.contract, found.choice, found.kind)


def journal(query: QueryPlan, session: "Surroundings", params: Mapping[str, object]) -> Path:
    """Where the answers of a plan's runs that stopped are: named by all that decides them, and not by how they came."""
    calls = [call for node in infer_nodes(query.root) for call in node.calls]
    places = [replace(c.placement, max_rows=0, step_tokens=0, kv_slots=None, draft_slots=None) for c in calls]
    models = sorted({name for call in calls for name in (call.model, call.draft) if name is not None})
    digests = [session.registry.resolve(name).digest for name in models if session.registry.installed(name)]
    plain = rewritten(query, calls=lambda call: replace(call, placement=Placement()))
    named = repr((__version__, plain, places, digests, sorted(params.items())))
    return session.config.unfinished_dir / f"{blake2b(named.encode(), digest_size=12).hexdigest()}.journal"


def answered(found: "Estimate", session: "Surroundings", params: Mapping[str, object]) -> dict[str, Set[bytes]]:
    """Prompts that a run of the statement which stopped has answers to: their keys, by the column of the call."""
    if next(session.config.unfinished_dir.glob("*.journal"), None) is None:
        return {}
    query = as_run(found)
    path = journal(query, session, params)
    return session.runtime.answered(path, query) if path.exists() else {}  # without one, torch is not loaded
