"""One inference call over windows of rows: texts → prompts → distinct questions → answers → an Arrow column."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dql.errors import ExecutionError, UnsupportedError
from dql.executor.answers import Reader, answer
from dql.executor.context import FIRST_CALLS, Context, prompt_key
from dql.executor.inquiry import Inquiry, Question, ask, distinct
from dql.executor.rejected import Rejected
from dql.executor.requests import Answer, Failure, Generate, Sampling, Score, Task
from dql.models import Model
from dql.planner.measured import Measured
from dql.planner.physical import CallExec
from dql.planner.prompts import prompts
from dql.planner.statistics import read_texts
from dql.prompts import CompiledPrompt, TokenBatch

CONTENT_FREE = ("N/A", "[MASK]", "")  # what Zhao et al. 2021 ask instead of a row's text

Mask = NDArray[np.bool_]
Texts = Sequence[Sequence[str]]  # one sequence per hole


@dataclass(frozen=True, slots=True)
class Answers:
    """A column of answers. A row is finished unless the run was cancelled before it; failed rows are NULL."""

    values: pa.Array
    finished: Mask
    failed: Mask


class CallRunner:
    """Runs one call of a plan. Equal calls of the query are answered once, across windows and calls.

    Of a window: `inquire` says what is to be asked, `ask` asks it together with what other calls want, and `read`
    makes the answers a column.
    """

    def __init__(self, call: CallExec, context: Context) -> None:
        self.call = call
        self._context = context
        model = context.models.model(call.model)
        if call.draft is not None:
            check_draft(model, context.models.model(call.draft))
        self._tokenizer = model.tokenizer
        self._prompts = prompts(call, model)
        self._reader = Reader(call, model)
        self._context_length = model.shape.context_length
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

    def tokens(self, window: pa.RecordBatch) -> float:
        """Tokens that asking about a row of the window takes, on average: those of its prompts and of their answers."""
        rows = pa.array(wanted(window, self.call))
        if not len(rows) or self.call.op == "count_tokens":
            return 0.0
        texts = [read_texts(window.column(hole).take(rows)) for hole in self.call.holes]
        tokens = 0
        for prompt in self._prompts:
            prompted = prompt.encode(texts) if texts else repeat(prompt.encode(()), len(rows))
            tokens += int(prompted.lengths.sum()) + len(rows) * self._new_tokens(prompt)
        return float(tokens / window.num_rows)

    def inquire(self, window: pa.RecordBatch, numbers: NDArray[np.int64]) -> Inquiry:
        """What the call asks about a window; `numbers` are its rows' numbers in the whole input."""
        rows = wanted(window, self.call)
        holes = [window.column(hole).take(pa.array(rows)) for hole in self.call.holes]
        if self._reuses:
            first, places = distinct(holes, len(rows))
        else:
            first = places = np.arange(len(rows))
        texts = [read_texts(hole.take(pa.array(first))) for hole in holes]
        inquiry = Inquiry(self.call, self.measured, rows, places, [])
        if self.call.op == "count_tokens":
            inquiry.answers.append(self._count(texts, len(first)))
            return inquiry
        self._failed = set()
        if not len(rows) or self._context.cancelled.is_set() or not self._knows_priors():
            inquiry.answers.append([None] * len(first))
            return inquiry
        members = np.split(np.argsort(places, kind="stable"), np.cumsum(np.bincount(places))[:-1])
        for prompt in self._prompts:
            self._ask(inquiry, prompt, texts, members, numbers)
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

    @property
    def _reuses(self) -> bool:
        """Whether equal inputs are asked about once."""
        return self.call.decoding.is_function and self.call.placement.reuse

    def _ask(
        self,
        inquiry: Inquiry,
        prompt: CompiledPrompt,
        texts: Texts,
        members: Sequence[NDArray[np.int64]],
        numbers: NDArray[np.int64],
    ) -> None:
        """Add what one prompt asks; `members` are the places among the inquiry's rows of each distinct input."""
        answers: list[Answer | None] = [None] * len(members)
        inquiry.answers.append(answers)
        task = task_of(self.call, prompt)
        asks = self.call.model, self.call.placement, task
        memo, instead = self._context.memo(*asks), self._context.instead(self.call.out, *asks)
        reuses, asked, counts = self._reuses, self._asked, self._context.counts
        sizes = [len(same) for same in members]
        batch = self._fit(prompt, prompt.encode(texts) if texts else repeat(prompt.encode(()), len(members)), sizes)

        def give(i: int, found: Answer) -> None:
            answers[i] = found
            counts["length"] += sizes[i] if found.finish == "length" else 0
            if found.failure is None:
                return
            for place in members[i].tolist():
                row = int(numbers[inquiry.rows[place]])
                self._reject(row, asked + place, found.failure, [column[i] for column in texts])

        for i in range(len(members)):
            key = prompt_key(batch.row(i)) if reuses else b""
            if (failure := batch.failures.get(i)) is not None:
                give(i, answer(i, failure=Failure(failure.kind, failure.message)))
            elif (known := instead.get(key) or memo.get(key)) is not None:
                give(i, known)
            else:
                row, kept = int(inquiry.rows[members[i][0]]), memo if reuses else None
                inquiry.questions.append(Question(row, batch.row(i), task, partial(give, i), kept, key))

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
        priors = [self._prior(prompt) for prompt in self._prompts]
        known = [prior for prior in priors if prior is not None]
        self._priors = known if len(known) == len(priors) else None
        return self._priors is not None

    def _prior(self, prompt: CompiledPrompt) -> NDArray[np.float32] | Failure | None:
        """Mean log-probability of each label over texts without content, float32[labels].

        Why none of these has an answer, where that is so; None where the run stopped first.
        """
        batch = prompt.encode([CONTENT_FREE] * len(self.call.holes))
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

    def _count(self, texts: Sequence[Sequence[str]], rows: int) -> list[Answer | None]:
        """Tokens of the rendered text of each row; no model runs."""
        parts = [[part] * rows if isinstance(part, str) else texts[part] for part in self.call.template]
        _, offsets = self._tokenizer.encode_data(
            ["".join(row) for row in zip(*parts, strict=True)] if parts else [""] * rows
        )
        return [answer(i, prompt_tokens=int(n)) for i, n in enumerate(np.diff(offsets))]

    def _fit(self, prompt: CompiledPrompt, batch: TokenBatch, sizes: Sequence[int]) -> TokenBatch:
        """The batch with over-long rows cut in the middle of their data, where the query asks for that.

        `sizes` are how many rows each of them stands for.
        """
        if self._context.policy.on_overflow != "truncate_middle":
            return batch
        limit = self._context_length - self._new_tokens(prompt)
        fitting, cut = prompt.truncate(batch, limit)
        self._context.counts["truncated"] += int(np.array(sizes)[cut & (fitting.lengths <= limit)].sum())
        return fitting

    def _new_tokens(self, prompt: CompiledPrompt) -> int:
        """Most tokens after a prompt: those drawn, or of a label."""
        return self.call.decoding.max_tokens if self.call.op == "generate" else max(map(len, prompt.label_ids))


def wanted(batch: pa.RecordBatch, call: CallExec) -> NDArray[np.int64]:
    """Rows for which the call runs: the guard is TRUE and no hole is NULL."""
    mask = np.ones(batch.num_rows, dtype=bool)
    for hole in call.holes:
        mask &= np.asarray(pc.is_valid(batch.column(hole)).to_numpy(zero_copy_only=False))
    if call.guard is not None:
        guard = pc.fill_null(batch.column(call.guard), False)
        mask &= np.asarray(guard.to_numpy(zero_copy_only=False))
    return np.flatnonzero(mask)


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
    if call.op != "generate":
        return Score(prompt.label_ids)
    d = call.decoding
    sampling = Sampling(d.temperature, d.top_k, d.top_p, d.min_p, d.seed)
    return Generate(d.max_tokens, prompt.stop_ids, d.stop, sampling)


def repeat(batch: TokenBatch, rows: int) -> TokenBatch:
    """A batch of one row, `rows` times: the prompt of a call that reads no column."""
    lengths = np.full(rows, len(batch.ids), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return TokenBatch(np.tile(batch.ids, rows), offsets, np.zeros((rows, 0, 2), np.int64))


def check_draft(model: Model, draft: Model) -> None:
    """Raises UnsupportedError where the draft's tokens are not the model's."""
    if draft.shape.causal and _written(draft) == _written(model):
        return
    raise UnsupportedError(
        f"{draft.name} cannot draft for {model.name}: their vocabularies differ",
        hint="a draft is a smaller model of the same family, such as Qwen3 0.6B for Qwen3 8B; or leave DRAFT out",
    )


def _written(model: Model) -> list[str]:
    """Tokens by id as they are written, without the gaps that vocabularies are filled up with."""
    pieces = model.tokenizer.vocabulary.pieces
    end = next((count for count in range(len(pieces), 0, -1) if pieces[count - 1]), 0)
    return pieces[:end]
