"""Watches a run against its plan, and changes what leaves the answers as they are: rows at once, tokens of a step.

Two things make it act. A bound on a row's seconds under pressure: sizes follow what is measured, within a few rows. And
figures that were off: the first rows of a long call run by themselves; where they took more than a fifth more or less
than predicted, or drew answers of other lengths, the rest is planned anew with what was measured.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dql.planner.candidates import STEP_TOKENS, PricedCall
from dql.planner.contract import Bound
from dql.planner.cost import Cost
from dql.planner.lengths import quantiles
from dql.planner.measured import Measured
from dql.planner.search import Choice, search
from dql.planner.simulate import PERCENTILES, simulate
from dql.planner.step_model import StepModel
from dql.planner.units import seconds_text
from dql.planner.windows import WINDOW_ROWS
from dql.planner.workload import Workload

ROW_BOUNDS = ("latency", "ttft", "tpot")
PILOT = 0.02  # share of the rows after which the plan is looked at again
_PILOT_ROWS = 16  # fewer say too little
_MOST_PILOT = 0.05  # of the rows: more by themselves would leave steps half empty
_LONG = 10.0  # predicted seconds from which a second look pays; a prediction is off by a factor where it matters most
_OFF = 0.2  # measured over predicted seconds, less one, from which the rest is planned anew
_SURE = 0.5  # measured seconds that tell of a rate
_SAMPLE, _RECENT = 16, 256  # rows that a change of sizes needs, and that are looked at
_EVERY = 8  # rows between two looks
_TIGHT, _AIM, _LOOSE = 0.97, 0.88, 0.6  # of a bound: shrink above, aim for, grow below
_GROWTH = 1.25


@dataclass(frozen=True, slots=True)
class _Row:
    """One answered row: its seconds by the bounds that speak of them."""

    latency: float
    ttft: float
    tpot: float


class Watch:
    """Calls of a run that an engine answers together: their sizes now. The engine reads them before every step."""

    def __init__(self, choice: Choice, calls: Sequence[PricedCall]) -> None:
        self._choice = choice
        self._calls = {call.out: call for call in calls}
        self._placement = choice.place(calls[0].out)
        self.max_rows, self.step_tokens = self._placement.max_rows, self._placement.step_tokens
        self._least = min(min(STEP_TOKENS[choice.hardware.kind]), self.step_tokens)
        self._ceiling: int | None = None
        self._decodes = any(call.work.decodes for call in calls)
        self._targets = {out: _targets(choice, out) for out in self._calls}
        self._recent: dict[str, deque[_Row]] = {out: deque(maxlen=_RECENT) for out in self._calls}
        self._since_look = 0
        self._changed_at = float("-inf")
        self._piloted = False

    def parts(self, prompts: int) -> Iterator[int]:
        """Cuts a window of so many distinct prompts: of long calls the first prompts of all run by themselves."""
        seconds = sum(c.seconds for out, c in _costs(self._choice).items() if out in self._calls)
        rows = sum(call.work.distinct for call in self._calls.values())
        pilot = max(round(max(PILOT, _SURE / max(seconds, _LONG)) * rows), _PILOT_ROWS)
        if not self._piloted and seconds >= _LONG and pilot <= round(_MOST_PILOT * rows) and prompts > 2 * pilot:
            yield pilot
            prompts -= pilot
        self._piloted = True
        yield prompts

    def arrive(self, lengths: Mapping[str, Sequence[int]], changes: list[str]) -> None:
        """The first prompts of calls that were only guessed are here, by their tokens: plan for these."""
        if self._piloted or not any(call.work.guessed for call in self._calls.values()):
            return
        for out, call in self._calls.items():
            work, found = call.work, np.array(lengths[out])
            if not len(found):
                continue
            rows = len(found) if len(found) < WINDOW_ROWS else max(len(found), work.distinct)
            own = quantiles(np.maximum(found - work.shared, 1))
            self._calls[out] = replace(
                call, work=replace(work, rows=rows, distinct=rows, own=own, own_mean=None, guessed=False)
            )
        prompts = sum(map(len, lengths.values()))
        changes.append(f"reached with {prompts:,} prompts: {self._replan({})}")

    def note(self, out: str, seconds: float, first: float, drawn: int, *, now: float, changes: list[str]) -> None:
        """One answered row of the call `out`, at the time `now`: its seconds to its last and its first token, and its
        tokens drawn. Changes are noted in `changes`.
        """
        if not self._targets.get(out) or now - seconds < self._changed_at:
            return  # nobody asks, or it was admitted under other sizes
        self._recent[out].append(_Row(seconds, first, (seconds - first) / (drawn - 1) if drawn > 1 else 0.0))
        self._since_look += 1
        if self._since_look >= _EVERY and len(self._recent[out]) >= _SAMPLE:
            self._since_look = 0
            self._follow(now, changes)

    def look(self, measured: Mapping[str, Measured]) -> None:
        """A part is done: plan the rest anew where the figures were off. `measured` is by the calls' columns."""
        came = {out: (c.work, measured[out]) for out, c in self._calls.items()}
        ran = {out: work.as_run(m.distinct, m.outputs, m.turns, m.guesses) for out, (work, m) in came.items()}
        left = {out: call.work.distinct - ran[out].distinct for out, call in self._calls.items()}
        rows, seconds = sum(m.distinct for m in measured.values()), sum(m.seconds for m in measured.values())
        if max(left.values()) <= 0 or seconds < _SURE or rows < _PILOT_ROWS:
            return
        off = seconds / max(sum(self._modelled(out, work) for out, work in ran.items()), 1e-9)
        news = [ran[out] for out, call in self._calls.items() if call.work.decodes and not call.work.sure]
        wrong = abs(off - 1) > _OFF
        if not wrong and not news:
            return
        for out, call in self._calls.items():
            work = replace(
                ran[out], rows=call.work.rows, distinct=call.work.distinct, turns=(), gains=measured[out].gains
            )
            weights = call.at(self._placement).weights
            factors = {**call.factors, weights: call.factor(weights) * off} if wrong else call.factors
            self._calls[out] = replace(call, work=work, factors=factors)
        said = [f"{off:.2g} × the predicted seconds"] if wrong else []
        said += [f"{work.mean_output:.0f} tokens an answer" for work in news]
        text = f"after {rows:,} rows: {', '.join(said)}; {self._replan(left)}"
        next(iter(measured.values())).changes.append(text)

    def _modelled(self, out: str, work: Workload) -> float:
        """Seconds that a call's rows should have taken at the present sizes."""
        call = self._calls[out]
        place = call.at(replace(self._placement, max_rows=self.max_rows, step_tokens=self.step_tokens))
        return simulate(StepModel(self._choice.hardware, call.shape, place), work).seconds * call.factor(place.weights)

    def _replan(self, left: Mapping[str, int]) -> str:
        """Take the best sizes for the rows that are left; says what changed."""
        calls = []
        for call in self._choice.calls:
            known = self._calls.get(call.out, call)
            rows = left.get(call.out, known.work.distinct)
            calls.append(replace(known, work=replace(known.work, rows=rows, distinct=rows)))
        found = search(calls, self._choice.hardware, self._choice.contract, sizes_of=self._placement)
        place = found.place(next(iter(self._calls)))
        to_go = sum(c.seconds for out, c in _costs(found).items() if out in self._calls)
        return f"{self._resize(place.max_rows, place.step_tokens)}; {seconds_text(to_go)} to go"

    def _follow(self, now: float, changes: list[str]) -> None:
        """Smaller sizes where rows come near a bound, larger ones where they stay far below all bounds."""
        worst, bound = max(self._ratios(), key=lambda pair: pair[0])
        rows, tokens = self.max_rows, self.step_tokens
        if worst > _TIGHT:
            shrink = _AIM / worst
            if self._by_rows(bound):
                rows = max(1, min(rows - 1, int(rows * shrink)))
            else:
                tokens = max(self._least, int(tokens * shrink))
        elif worst < _LOOSE and self._decodes and not self._choice.contract.is_pinned("batch_size"):
            rows = max(rows, min(self._most_rows(), max(rows + 1, int(rows * _GROWTH))))
        if (rows, tokens) == (self.max_rows, self.step_tokens):
            return
        why = f"{bound.name} {bound.qualifier or 'p95'} at {worst:.0%} of its bound"
        changes.append(f"{why}: {self._resize(rows, tokens)}")
        self._changed_at = now
        for recent in self._recent.values():
            recent.clear()

    def _ratios(self) -> Iterator[tuple[float, Bound]]:
        """The measured percentile over what is aimed at, for each bound."""
        for out, targets in self._targets.items():
            for bound, target in targets if self._recent[out] else ():
                values = [getattr(row, bound.name) for row in self._recent[out]]
                yield float(np.percentile(values, float((bound.qualifier or "p95")[1:]))) / target, bound

    def _by_rows(self, bound: Bound) -> bool:
        """Whether fewer rows at once help; otherwise shorter steps do."""
        pinned = self._choice.contract.is_pinned("batch_size")
        return self._decodes and bound.name != "ttft" and self.max_rows > 1 and not pinned

    def _most_rows(self) -> int:
        """Rows at once that the planner would choose if no row had to be quick."""
        if self._ceiling is None:
            contract = self._choice.contract
            free = replace(contract, bounds=tuple(b for b in contract.bounds if b.name not in ROW_BOUNDS))
            found = search(self._choice.calls, self._choice.hardware, free, sizes_of=self._placement)
            self._ceiling = found.place(next(iter(self._calls))).max_rows
        return self._ceiling

    def _resize(self, rows: int, tokens: int) -> str:
        """Take these sizes; says what changed."""
        before = self.max_rows, self.step_tokens
        self.max_rows, self.step_tokens = rows, tokens
        moved = [f"batch {before[0]} → {rows}"] if self._decodes and rows != before[0] else []
        moved += [f"chunk {before[1]:,} → {tokens:,}"] if tokens != before[1] else []
        return ", ".join(moved) or "sizes stay"


class Adviser:
    """The watches of one run."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._watches: dict[tuple[str, ...], Watch] = {}

    def watch(self, outs: Sequence[str]) -> Watch | None:
        """The watch over calls that run together, named by the columns of their answers, from one window to the next.

        None where nobody could price them.
        """
        known = {call.out: call for call in self._choice.calls}
        if not all(out in known for out in outs):
            return None
        key = tuple(outs)
        if key not in self._watches:
            self._watches[key] = Watch(self._choice, [known[out] for out in outs])
        return self._watches[key]


def _costs(choice: Choice) -> dict[str, Cost]:
    return dict(zip((call.out for call in choice.calls), choice.best.calls, strict=True))


def _targets(choice: Choice, out: str) -> list[tuple[Bound, float]]:
    """For each bound on a row's seconds, the part of them that is this call's: as much as is predicted of it."""
    found = []
    for bound in (b for b in choice.contract.bounds if b.name in ROW_BOUNDS):
        share = 1.0
        if bound.name == "latency":
            place = PERCENTILES.index(bound.qualifier or "p95")
            parts = {name: cost.latency[place] for name, cost in _costs(choice).items()}
            share = parts[out] / max(sum(parts.values()), 1e-12)
        if bound.value * share > 0:
            found.append((bound, bound.value * share))
    return found
