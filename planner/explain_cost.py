"""A plan's figures in words: what a call is expected to take, what it took, and what became of each bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dql.planner.contract import Bound, Contract
from dql.planner.cost import Cost
from dql.planner.hardware import Kind
from dql.planner.measured import Measured, row_seconds
from dql.planner.option import Option
from dql.planner.placing import placement
from dql.planner.search import Choice
from dql.planner.shortlist import undecided
from dql.planner.units import bytes_text, interval_text, rate_text, seconds_text, usd_text


@dataclass(frozen=True, slots=True)
class Promise:
    """One bound: the predicted figure with its half-width (None where nothing could be predicted), the measured one."""

    bound: Bound
    predicted: float | None = None
    give: float = 0.0
    measured: float | None = None
    note: str = ""

    @property
    def kept(self) -> bool | None:
        """Whether the run kept it; None where it was not measured."""
        if self.measured is None:
            return None
        if self.bound.op in ("<", "<="):
            return self.measured <= self.bound.value
        return self.measured >= self.bound.value

    def __str__(self) -> str:
        said = self.note
        if self.predicted is not None:
            said = f"predicted {_interval(self.bound, self.predicted, self.give)}" + (f"; {said}" if said else "")
        if self.measured is None:
            return said
        verdict = "kept" if self.kept else "missed"
        return f"{said}; measured {_figure(self.bound, self.measured)}: {verdict}"


def promises_of(
    contract: Contract,
    choice: Choice | None,
    measured: Mapping[str, Measured],
    seconds: float | None,
    quality: Sequence[str] = (),
) -> list[Promise]:
    """One promise per bound. `seconds` of the whole run, None before it; `quality`: by what that bound is met."""
    return [_promise(bound, choice, measured, seconds, quality) for bound in contract.bounds]


def _promise(
    bound: Bound,
    choice: Choice | None,
    measured: Mapping[str, Measured],
    seconds: float | None,
    quality: Sequence[str],
) -> Promise:
    taken = None if seconds is None else _measured(bound, choice, measured, seconds)
    if bound.name == "quality":
        return Promise(bound, note="; ".join(quality) or "met: only answer-preserving choices are made")
    if bound.name == "budget":
        return Promise(
            bound, None if choice is None else choice.best.cost.of(bound), 0.0, taken, _budget(bound, choice)
        )
    if choice is None:
        return Promise(bound, None, 0.0, taken, "not predicted: the rows are not known before the run")
    cost = choice.best.cost
    value = cost.of(bound)
    certain = bound.name == "memory" or not cost.slack_of(bound)
    middle = value if certain else bound.spent + (value - bound.spent) / (1 + cost.slack_of(bound))
    if bound.name == "throughput":
        middle = value * (1 + cost.slack_of(bound))
    note = _how(bound, choice) + spent_text(bound)
    return Promise(bound, middle, 0.0 if certain else abs(value - middle), taken, note)


def _how(bound: Bound, choice: Choice) -> str:
    """By what the plan meets a bound, or that it does not."""
    place, missed = choice.best.placement, choice.best.misses.get(str(bound))
    if missed is not None:
        return f"not met, by a factor of {missed:.2g} (best effort)"
    if bound.name in ("latency", "ttft", "tpot"):
        return f"met with {', then '.join(sizes_text(choice, ' and '))}"
    if bound.name == "memory":
        return f"met with {place.kv_slots:,} KV slots" if place.kv_slots else "met"
    if undecided(bound, choice.calls) and bound.name != "throughput":
        return "met if as many rows pass the filters below LIMIT as guessed"
    if any(call.work.at_least for call in choice.calls):
        return "met by the rows that were counted; how many more there are is not known"
    return "met"


def spent_text(bound: Bound) -> str:
    """How much of a deadline is gone before the run."""
    return f", {seconds_text(bound.spent)} of it for what was measured before the run" if bound.spent else ""


def _budget(bound: Bound, choice: Choice | None) -> str:
    if choice is None or choice.best.cost.of(bound) <= bound.value:
        return "the run stops there"
    share = bound.value / choice.best.cost.of(bound)
    return f"the run stops there, after about {share:.0%} of the rows"


def _measured(bound: Bound, choice: Choice | None, measured: Mapping[str, Measured], seconds: float) -> float | None:
    calls = list(measured.values())
    match bound.name:
        case "latency" | "ttft" | "tpot":
            return row_seconds(calls, bound.name, bound.qualifier or "p95") if calls else None
        case "deadline":
            return bound.spent + seconds
        case "throughput" if seconds and calls:
            if bound.unit.lower() == "rows/s":
                return max(call.rows for call in calls) / seconds
            return sum(call.prefilled + call.reused + call.decoded for call in calls) / seconds
        case "cost" if choice is not None and choice.hardware.price is not None:
            return seconds / 3600 * choice.hardware.price * choice.hardware.devices
        case "budget":
            return float(sum(call.prefilled + call.decoded for call in calls))
    return None


def _figure(bound: Bound, value: float) -> str:
    match bound.name:
        case "latency" | "ttft" | "tpot" | "deadline":
            return seconds_text(value)
        case "memory":
            return bytes_text(value)
        case "cost":
            return usd_text(value)
        case "budget":
            return f"{value:,.0f} tokens"
        case "throughput":
            return f"{rate_text(value)} {bound.unit}"
    return f"{value:.3g}"


def _interval(bound: Bound, value: float, give: float) -> str:
    if bound.name in ("latency", "ttft", "tpot", "deadline"):
        return interval_text(value, give)
    return _figure(bound, value) + (f" ± {_figure(bound, give)}" if give else "")


def call_lines(
    out: str, choice: Choice | None, measured: Mapping[str, Measured], contract: Contract, *, cascades: bool = False
) -> list[str]:
    """What EXPLAIN says below a call: how it runs, what is predicted, what was measured. cascades: it is a stage."""
    shares = {
        "prefix_cache": ("prefix once", "no prefix shared"),
        "result_cache": ("equal prompts once", "every row runs"),
    }
    how = " · ".join(texts[0] if contract.setting(name) else f"{texts[1]} (pinned)" for name, texts in shares.items())
    if not (cascades or contract.may_lose):
        pinned = contract.is_pinned("quantization") or contract.is_pinned("kv_cache")
        how += f" · no {'other ' if pinned else ''}lossy choice (no quality bound)"
    place = None if choice is None else placement_line(choice, out)
    lines = [how if place is None else f"{place} · {how}"]
    if choice is not None:
        lines += [
            f"predicted {_predicted(c)}"
            for call, c in zip(choice.calls, choice.best.calls, strict=True)
            if call.out == out
        ]
    if (found := measured.get(out)) is not None:
        lines.append(f"measured  {_taken(found)}")
        lines += [f"order     {found.order}"] if found.order else []
        lines += [f"changed   {change}" for change in found.changes]
    return lines


def placement_line(choice: Choice, out: str) -> str:
    """Where a call runs: 'batch 128 · chunk 1,024', sharding before it where there is any, pinned sizes marked."""
    place = choice.place(out)
    shards = {
        "tensor parallel": place.tensor_parallel,
        "pipeline parallel": place.pipeline_parallel,
        "replicas": place.data_parallel,
    }
    parts = [f"{name} {count}" for name, count in shards.items() if count > 1]
    if any(call.work.decodes for call in choice.calls if call.out == out):
        parts.append(f"batch {place.max_rows}" + (" (pinned)" if choice.contract.is_pinned("batch_size") else ""))
    return " · ".join([*parts, f"chunk {place.step_tokens:,}"])


def sizes_text(choice: Choice, between: str) -> list[str]:
    """Sizes of each run where these differ, else those of all: 'batch 16, 256 tokens a step'."""
    decoding = {call.run for call in choice.calls if call.work.decodes}
    alike = len({(place.max_rows, place.step_tokens) for place in choice.best.places}) == 1
    found: list[str] = []
    for call, place in zip(choice.calls, choice.best.places, strict=True):
        batch = f"batch {place.max_rows}{between}" if call.run in decoding or (alike and decoding) else ""
        text = f"{batch}{place.step_tokens:,} tokens a step"
        if text not in found[-1:]:
            found.append(text)
    return found


def precisions(contract: Contract, choice: Choice | None, kind: Kind) -> tuple[str, str]:
    """Precision of weights and KV cache, marked where pinned."""
    place = placement(contract, choice, kind)
    return (
        place.weights + (" (pinned)" if contract.is_pinned("quantization") else ""),
        place.kv_cache + (" (pinned)" if contract.is_pinned("kv_cache") else ""),
    )


def choice_lines(choice: Choice) -> list[str]:
    """How many plans were weighed, what came next, and what the figures rest on."""
    line = f"considered {choice.considered:,} plans, {choice.feasible:,} feasible"
    if (other := choice.next_best) is not None:
        line += f"; next best: {_headline(other, choice)}"
    hardware = choice.hardware
    basis = "datasheet figures" if hardware.shipped and hardware.kind != "cpu" else hardware.notes
    price = "" if choice.best.cost.usd is None else f" · {usd_text(choice.best.cost.usd)}"
    lines = [line, f"hardware: {hardware} · {basis}{price}"]
    if choice.best.placement.deterministic and hardware.kind == "cpu":
        lines.append(f"deterministic = true: {choice.slower:.1f} × the seconds of the same plan without it")
    return lines


def _headline(option: Option, choice: Choice) -> str:
    place, best = option.placement, choice.best.placement
    parts = [place.weights] if place.weights != best.weights else []
    if place.devices != best.devices:
        parts.append(f"{place.devices} device{'s' if place.devices > 1 else ''}")
    return f"{', '.join([*parts, f'batch {place.max_rows}'])} → {seconds_text(option.cost.seconds)}"


def _predicted(cost: Cost) -> str:
    return " · ".join(
        (
            interval_text(cost.seconds, cost.give),
            f"{rate_text(cost.rows_per_second)} rows/s",
            f"latency p95 {seconds_text(cost.latency[2])}",
            bytes_text(cost.memory),
        )
    )


def _taken(found: Measured) -> str:
    rate = found.rows / found.seconds if found.seconds else 0.0
    tokens = f"{found.prefilled:,} tokens prefilled, {found.reused:,} reused, {found.decoded:,} decoded"
    return " · ".join(
        (
            seconds_text(found.seconds),
            f"{rate_text(rate)} rows/s",
            f"latency p95 {seconds_text(found.latency())}",
            f"rows {found.rows:,} → {found.distinct:,} distinct",
            tokens,
        )
    )
