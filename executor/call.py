"""One inference call over windows of rows: texts → prompts → distinct questions → answers → an Arrow column."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dql.errors import ExecutionError
from dql.executor.answers import Reader, answer
from dql.executor.context import FIRST_CALLS, Context
from dql.executor.inquiry import Inquiry, Question, ask
from dql.executor.prepare import Prepared, Preparer, Prompted
from dql.executor.rejected import Rejected
from dql.executor.requests import Answer, Failure, Generate, Sampling, Score, Task
from dql.models.drafts import check_draft
from dql.planner.measured import Measured
from dql.planner.physical import CallExec
from dql.planner.prompts import without_content
from dql.prompts import CompiledPrompt

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """A column of answers. A row is finished unless the run was cancelled before it; failed rows are NULL."""

    values: pa.Array
    finished: Mask
    failed: Mask


class CallRunner:
    """Runs one call of a plan. Equal calls of the query are answered once, across windows and calls.

    Of a window: `prepare` makes prompts, in any thread; `inquire` says what of them is to be asked, `ask` asks it
    together with what other calls want, and `read` makes the answers a column.
    """

    def __init__(self, call: CallExec, context: Context) -> None:
        self.call = call
        self._context = context
        model = context.models.model(call.model)
        if call.draft is not None:
            check_draft(model, context.models.model(call.draft))
        self._decode = model.tokenizer.decode_batch
        self.prepare = Preparer(call, model, truncates=context.policy.on_overflow == "truncate_middle")
        self._reader = Reader(call)
        self.measured = context.measured.setdefault(call.out, Measured())
        self._may_fail = call.stage is not None and not call.stage.last  # another model is asked then
        self._priors: list[NDArray[np.float32] | Failure] | None = None
        self._asked = 0
        self._first_failures = 0
        self._failed: set[int] = set()  # rows of the window

    @property
    def type(self) -> pa.DataType:
        """The type of the column of answers."""
        return self._reader.type

    def inquire(self, prepared: Prepared, numbers: NDArray[np.int64]) -> Inquiry:
        """What is left to ask about a prepared window; `numbers` are its rows' numbers in the whole input."""
        rows, members = prepared.rows, prepared.members
        inquiry = Inquiry(self.call, self.measured, rows, prepared.places, [])
        if self.call.op == "count_tokens":
            inquiry.answers.append([answer(i, prompt_tokens=n) for i, n in enumerate(prepared.counted)])
            return inquiry
        self._failed = set()
        if not len(rows) or self._context.cancelled.is_set() or not self._knows_priors():
            inquiry.answers.append([None] * len(members))
            return inquiry
        for prompt, prompted in zip(self.prepare.prompts, prepared.prompted, strict=True):
            self._ask(inquiry, prompt, prompted, prepared, numbers)
        self._context.counts["calls"] += len(rows)
        self._context.counts["reused"] += _reused(inquiry, members)
        self._asked += len(rows)
        self.measured.rows += len(rows)
        return inquiry

    def read(self, inquiry: Inquiry, size: int) -> Answers:
        """The answers to all `size` rows of the window."""
        rows, places = inquiry.rows, inquiry.places
        answered: list[tuple[Answer, ...] | None] = []
        for answers in zip(*inquiry.answers, strict=True):
            given = tuple(found for found in answers if found is not None)
            answered.append(self._calibrated(given) if len(given) == len(answers) else None)
        finished, failed = np.ones(size, dtype=bool), np.zeros(size, dtype=bool)
        is_finished = np.array([found is not None for found in answered], dtype=bool)
        is_failed = np.array([any(a.failure is not None for a in found or ()) for found in answered], dtype=bool)
        finished[rows], failed[rows] = is_finished[places], is_failed[places] & (not self._may_fail)
        source = np.full(size, -1, np.int64)
        source[rows] = places
        self._context.check_share(done=False)
        values = self._reader.column(answered).take(pa.array(source, mask=source < 0))
        if pa.types.is_boolean(values.type):
            self.measured.read += len(values) - values.null_count
            self.measured.yes += values.true_count
        return Answers(values, finished, failed)

    def _ask(
        self,
        inquiry: Inquiry,
        prompt: CompiledPrompt,
        prompted: Prompted,
        prepared: Prepared,
        numbers: NDArray[np.int64],
    ) -> None:
        """Add what one prompt asks of what no row before has been answered."""
        members, texts, batch = prepared.members, prepared.texts, prompted.batch
        answers: list[Answer | None] = [None] * len(members)
        inquiry.answers.append(answers)
        task = task_of(self.call, prompt)
        asks = self.call.model, self.call.placement, task
        memo, instead = self._context.memo(*asks), self._context.instead(self.call.out, *asks)
        asked, counts, kept = self._asked, self._context.counts, memo if self.prepare.reuses else None
        counts["truncated"] += prompted.truncated

        def give(i: int, found: Answer) -> None:
            answers[i] = found
            counts["length"] += len(members[i]) if found.finish == "length" else 0
            if found.failure is None:
                return
            for place in members[i].tolist():
                row = int(numbers[inquiry.rows[place]])
                self._reject(row, asked + place, found.failure, [column[i] for column in texts])

        for i, key in enumerate(prompted.keys):
            if (failure := batch.failures.get(i)) is not None:
                give(i, answer(i, failure=Failure(failure.kind, failure.message)))
            elif (known := instead.get(key) or memo.get(key)) is not None and self._suffices(known):
                self._context.came(self.call.out, *asks, key)
                give(i, self._spelt(known))
            else:
                row = int(inquiry.rows[members[i][0]])
                inquiry.questions.append(Question(row, batch.row(i), task, partial(give, i), kept, key))

    def _suffices(self, known: Answer) -> bool:
        """Whether an answer that was given before has all that this call reads."""
        return not self.call.details or not np.isnan(known.logprobs).any()

    def _spelt(self, known: Answer) -> Answer:
        """An answer with its text, which one of a run that stopped may lack."""
        if self.call.op != "generate" or known.text is not None:
            return known
        return replace(known, text=self._decode([known.tokens])[0])

    def _calibrated(self, answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
        """Scores as what the row adds to the answer to nothing: takes out a small model's liking for some labels.

        Zhao et al. 2021, "Calibrate Before Use", with the mean over several texts without content.
        """
        if not self.call.calibrate or any(answer.failure is not None for answer in answers):
            return answers
        assert self._priors is not None, "rows were asked about before their priors were known"
        found: list[Answer] = []
        for given, prior in zip(answers, self._priors, strict=True):
            if isinstance(prior, Failure):
                raise ExecutionError(
                    f"{self.call.label} cannot be calibrated: no text without content was answered: {prior.message}",
                    hint="leave calibrate out",
                )
            found.append(replace(given, logprobs=given.logprobs - prior))
        return tuple(found)

    def _knows_priors(self) -> bool:
        """Whether rows can be read once they are answered; False where the run stopped before that was known."""
        if not self.call.calibrate or self._priors is not None:
            return True
        priors = [self._prior(prompt) for prompt in self.prepare.prompts]
        known = [prior for prior in priors if prior is not None]
        self._priors = known if len(known) == len(priors) else None
        return self._priors is not None

    def _prior(self, prompt: CompiledPrompt) -> NDArray[np.float32] | Failure | None:
        """Mean log-probability of each label over texts without content, float32[labels].

        Why none of these has an answer, where that is so; None where the run stopped first.
        """
        batch = without_content(prompt)
        task = task_of(self.call, prompt)
        found: list[Answer] = []
        rows = np.arange(len(batch))
        asked = [Question(i, batch.row(i), task, found.append) for i in rows.tolist()]
        unplanned = replace(self.call, out=f"{self.call.out} prior")  # sizes follow the rows, which these are none of
        ask([Inquiry(unplanned, self.measured, rows, rows, [], asked)], self._context)
        if len(found) < len(asked):
            return None
        failed = [answer.failure for answer in found if answer.failure is not None]
        if len(failed) == len(found):
            return failed[0]
        scores = [answer.logprobs for answer in found if answer.failure is None]
        mean: NDArray[np.float32] = np.mean(scores, axis=0, dtype=np.float32)
        return mean

    def _reject(self, row: int, call: int, failure: Failure, inputs: Sequence[str]) -> None:
        """Note a failed row, once for all prompts about it; `call` is its number among the rows asked about."""
        if row in self._failed or self._may_fail:
            return
        self._failed.add(row)
        kept = tuple(inputs) if self._context.policy.rejects is not None else ()
        self._context.reject(Rejected(row, self.call.label, failure.kind, failure.message, failure.retryable, kept))
        self._first_failures += call < FIRST_CALLS
        if self._first_failures == FIRST_CALLS and call < FIRST_CALLS:
            raise ExecutionError(f"the first {FIRST_CALLS} calls all failed: {failure.message}")


def _reused(inquiry: Inquiry, members: Sequence[NDArray[np.int64]]) -> int:
    """Rows about which nothing is asked: another has the same input, or all their prompts were answered before."""
    opened = {question.row for question in inquiry.questions}
    count = 0
    for same, *answers in zip(members, *inquiry.answers, strict=True):
        if not any(found is not None and found.failure is not None for found in answers):
            count += len(same) - (int(inquiry.rows[same[0]]) in opened)
    return count


def task_of(call: CallExec, prompt: CompiledPrompt) -> Task:
    """What a call asks of the engine with one of its prompts."""
    precise = precise_tokens(call, prompt)
    if call.op != "generate":
        return Score(prompt.label_ids, precise)
    d = call.decoding
    sampling = Sampling(d.temperature, d.top_k, d.top_p, d.min_p, d.seed)
    return Generate(d.max_tokens, prompt.stop_ids, d.stop, sampling, precise)


def precise_tokens(call: CallExec, prompt: CompiledPrompt) -> int:
    """How many tokens a call's prompts begin with in a higher precision than its rows have: what the template puts
    before the first column, so that no answer depends on which rows stand together."""
    return prompt.constant_prefix_tokens if call.placement.splits else 0
