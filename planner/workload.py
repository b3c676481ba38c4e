"""What one call asks of a model, as the cost model sees it: how many rows, how long, how much of it shared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dql.planner.hardware import Drawing, Floats, Kind
from dql.planner.lengths import Lengths, draws, expected_outputs, mean
from dql.planner.physical import CallExec
from dql.planner.prefix import DENSE_ROWS, DENSE_TOKENS
from dql.planner.speculation import pays
from dql.planner.statistics import CallStatistics

LONG_ROW = 256  # tokens of a prompt from which its attention is a call of its own
_ALIKE = 1.25  # longest over shortest prompt of a call


@dataclass(frozen=True, slots=True)
class Workload:
    """One call. Lengths are quantiles from shortest to longest, `QUANTILES` of them or one where all are equal.

    rows: asked about; distinct: prompts that run. shared: tokens of the run that all of them attend to together.
    own: tokens of a prompt below it, and their mean where it is known better than by the quantiles; fresh: the share of
    those that no other prompt computes, above 1 where the shared run is computed more than once. tail: label tokens fed
    per row. labels: label rows of the head. outputs: tokens drawn per row, () for scoring. sure: the outputs are known,
    by their bound or from earlier runs. exact: the rows were all counted; guessed: they depend on other inference;
    at_least: there may be any number of rows more. unsure: by what share rows may be more or fewer, since a LIMIT ends
    the run; 1 where that is a guess. turns: passes in which rows draw, known of a run that is over: each
    row's own where there are as many as rows, else quantiles. gains: tokens that a pass drew in an earlier run of the
    template that guessed ahead, by row; guesses: tokens guessed in a pass. drawing: what the LM head is asked for.
    """

    rows: int
    distinct: int
    shared: int
    own: Lengths
    fresh: float = 1.0
    tail: int = 0
    labels: int = 0
    outputs: Lengths = ()
    longest_output: int = 0
    sure: bool = True
    exact: bool = True
    guessed: bool = False
    at_least: bool = False
    unsure: float = 0.0
    turns: Lengths = ()
    gains: Lengths = ()
    guesses: float = 0.0
    own_mean: float | None = None
    drawing: Drawing = "best"

    @property
    def decodes(self) -> bool:
        return bool(self.outputs)

    @property
    def mean_own(self) -> float:
        return mean(self.own) if self.own_mean is None else self.own_mean

    @property
    def mean_output(self) -> float:
        return mean(self.outputs) if self.outputs else 0.0

    def passes(self, rows: int, lanes: float, kind: Kind) -> Floats:
        """Passes in which each of so many rows draws where `lanes` decode at once."""
        if not self.decodes:
            return np.zeros(rows)
        if len(self.turns) == rows:
            return np.array(self.turns)
        found = draws(self.turns or self.outputs, rows)
        if not self.turns and self.gains and pays(lanes, kind):
            found = 1 + (found - 1) / draws(self.gains, rows)
        return np.maximum(np.round(found), 1)

    def guessed_tokens(self, decoding: Floats, lanes: Floats | float, kind: Kind) -> Floats:
        """Tokens guessed in steps with so many decoding rows, of a run where `lanes` decode at once."""
        found: Floats = decoding * self.guesses * (bool(self.turns) | pays(lanes, kind))
        return found

    def attention_calls(self, prompt: Floats, started: Floats) -> Floats:
        """Calls of attention in steps that read `prompt` prompt tokens and end `started` prompts: one for rows of about
        the same length, and one for each long row.
        """
        own, groups, shortest = sorted(self.own), 0, 0.0
        for length in own:
            if length > _ALIKE * shortest and length <= LONG_ROW:
                groups, shortest = groups + 1, length
        long = sum(length > LONG_ROW for length in own) / len(own)
        found = np.minimum(started, groups) + started * long
        return np.where(prompt > 0, np.maximum(found, 1.0), 0.0)

    @property
    def prefilled(self) -> float:
        """Prompt tokens that are computed."""
        return self.shared + self.distinct * self.mean_own * self.fresh

    @property
    def lane(self) -> int:
        """Most KV slots that a row takes beside the shared run."""
        new = max(self.longest_output - 1, 0) if self.decodes else self.tail
        return int(np.ceil(self.own[-1])) + new

    def as_run(self, distinct: int, outputs: Lengths, turns: Lengths = (), guesses: float = 0.0) -> "Workload":
        """The same with the rows that ran, the tokens that they drew, in how many passes, with what guesses a pass."""
        rows = self.rows * distinct // self.distinct if self.distinct else distinct
        drawn = (outputs or self.outputs) if self.decodes else ()
        passes = turns if self.decodes else ()
        return replace(self, rows=rows, distinct=distinct, outputs=drawn, sure=True, turns=passes, guesses=guesses)

    def with_max_tokens(self, count: int) -> "Workload":
        """The same with answers cut at `count` tokens."""
        if not self.outputs:
            return self
        cut = tuple(min(length, float(count)) for length in self.outputs)
        return replace(self, outputs=cut, turns=(), longest_output=min(count, self.longest_output))


def scored(call: CallExec) -> bool:
    """Whether a call's answer is read off the scores of labels, without decoding."""
    return call.op != "generate"


def workload(
    call: CallExec,
    counted: CallStatistics,
    label_ids: Sequence[tuple[int, ...]] = (),
    outputs: Lengths | None = None,
    *,
    prefix: bool = True,
    reuse: bool = True,
) -> Workload:
    """The workload of a counted call. `outputs` are answer lengths known from earlier runs of the same template.

    prefix: what prompts begin with is computed once. reuse: equal prompts are answered once.
    """
    lengths = counted.lengths or (float(counted.longest),)
    dense = prefix and counted.shared >= DENSE_TOKENS and counted.distinct >= DENSE_ROWS
    shared = min(counted.shared, int(lengths[0]) - 1) if dense else 0
    once = reuse and (scored(call) or call.decoding.is_function)
    distinct = counted.distinct if once else counted.asked
    own = tuple(max(1.0, length - shared) for length in lengths)
    tokens = (counted.distinct_tokens if once else counted.prompt_tokens) - shared * distinct
    # of a prompt that is asked again no more is computed than its last token
    computed = counted.computed + distinct - counted.distinct - shared
    fresh = max(computed, 0) / tokens if prefix and tokens > 0 else 1.0
    inner = {label[:end] for label in label_ids for end in range(1, len(label))}
    edges = {label[:end] for label in label_ids for end in range(1, len(label) + 1)}
    drawn = () if scored(call) else outputs or expected_outputs(call.decoding.max_tokens)
    return Workload(
        rows=counted.rows,
        distinct=distinct,
        shared=shared,
        own=own,
        fresh=fresh,
        tail=len(inner) if scored(call) else 0,
        labels=len({edge[-1] for edge in edges}) if scored(call) else 0,
        outputs=tuple(min(length, float(call.decoding.max_tokens)) for length in drawn),
        longest_output=0 if scored(call) else call.decoding.max_tokens,
        sure=scored(call) or outputs is not None,
        exact=counted.exact,
        guessed=counted.guessed,
        at_least=counted.at_least,
        unsure=counted.unsure,
        own_mean=max(1.0, tokens / distinct) if distinct else None,
        drawing=_drawing(call),
    )


def _drawing(call: CallExec) -> Drawing:
    """What a call asks of the LM head: labels are scored by how probable they are."""
    if not scored(call) and call.decoding.temperature > 0:
        return "drawn"
    return "told" if scored(call) or call.details else "best"
