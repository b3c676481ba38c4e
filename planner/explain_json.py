"""A plan and its figures as JSON: the same facts as the text, for programs."""

from collections.abc import Mapping
from dataclasses import asdict

from dql.planner.cost import Cost
from dql.planner.explain import Explanation, not_applied, promises, tree_nodes
from dql.planner.logical import user_names
from dql.planner.measured import Measured
from dql.planner.simulate import PERCENTILES

Json = dict[str, object]


def as_json(found: Explanation) -> Json:
    """The plan's nodes from the top, its calls by the column of their answers, bounds, and what was weighed."""
    choice = found.choice
    names = user_names([found.logical, *found.tables.values()])
    return {
        "nodes": [
            {"depth": depth, "node": title, "note": note, "details": details}
            for depth, title, note, details in tree_nodes(found)
        ],
        "calls": {out: _call(found, out, names) for out in {**found.statistics, **found.notes, **found.measured}},
        "applied": list(dict.fromkeys(step.rule for step in found.applied)),
        "not_applied": list(not_applied(found)),
        "pinned": dict(found.contract.pinned),
        "set": dict(found.contract.of_session),
        "objective": " ".join(found.contract.objective),
        "bounds": [
            {"bound": str(p.bound), "predicted": p.predicted, "give": p.give, "measured": p.measured, "kept": p.kept}
            for p in promises(found)
        ],
        "quality": list(found.quality),
        "hardware": None if choice is None else {"name": str(choice.hardware), "source": choice.hardware.source},
        "considered": None if choice is None else choice.considered,
        "feasible": None if choice is None else choice.feasible,
        "predicted": None if choice is None else _cost(choice.best.cost),
        "answered": found.answered,
        "seconds": found.seconds,
    }


def _call(found: Explanation, out: str, names: Mapping[str, str]) -> Json:
    choice = found.choice
    costs = {} if choice is None else {c.out: cost for c, cost in zip(choice.calls, choice.best.calls, strict=True)}
    statistics, measured = found.statistics.get(out), found.measured.get(out)
    return {
        "name": names.get(out),
        "statistics": None if statistics is None else asdict(statistics),
        "note": found.notes.get(out),
        "placement": asdict(choice.place(out)) if choice is not None and out in costs else None,
        "predicted": _cost(costs[out]) if out in costs else None,
        "measured": None if measured is None else _measured(measured),
    }


def _cost(cost: Cost) -> Json:
    return {
        **{name: dict(zip(PERCENTILES, getattr(cost, name), strict=True)) for name in ("latency", "ttft", "tpot")},
        "seconds": cost.seconds,
        "give": cost.give,
        "rows_per_second": cost.rows_per_second,
        "memory_bytes": cost.memory,
        "usd": cost.usd,
        "tokens": {name: round(getattr(cost, name)) for name in ("prefilled", "reused", "decoded", "forced")},
    }


def _measured(measured: Measured) -> Json:
    return {
        "rows": measured.rows,
        "distinct": measured.distinct,
        "seconds": measured.seconds,
        "latency": {name: measured.latency(name) for name in PERCENTILES},
        "ttft": {name: measured.ttft(name) for name in PERCENTILES},
        "tpot": {name: measured.tpot(name) for name in PERCENTILES},
        "changes": measured.changes,
        "order": measured.order or None,
        "tokens": {"prefilled": measured.prefilled, "reused": measured.reused, "decoded": measured.decoded},
    }
