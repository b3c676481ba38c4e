"""One inference call over windows of rows: texts → prompts → distinct requests → answers → an Arrow column."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dql.errors import ExecutionError
from dql.executor.answers import Reader, answer
from dql.executor.context import FIRST_CALLS, Context
from dql.executor.rejected import Rejected
from dql.executor.requests import Answer, Failure, Generate, Request, Sampling, Score, Task, Tokens
from dql.planner.measured import Measured
from dql.planner.physical import CallExec
from dql.planner.prompts import prompts
from dql.planner.statistics import read_texts
from dql.prompts import CompiledPrompt, TokenBatch

MEMO_ROWS = 1_000_000  # answers remembered across windows; later distinct calls run again

CONTENT_FREE = ("N/A", "[MASK]", "")  # what Zhao et al. 2021 ask instead of a row's text

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """A column of answers. A row is finished unless the run was cancelled before it; failed rows are NULL."""

    values: pa.Array
    finished: Mask
    failed: Mask


class CallRunner:
    """Runs one call of a plan. Equal calls of the query are answered once, across windows and calls."""

    def __init__(self, call: CallExec, context: Context) -> None:
        self.call = call
        self._context = context
        model = context.models.model(call.model)
        self._tokenizer = model.tokenizer
        self._prompts = prompts(call, model)
        self._reader = Reader(call, model)
        self._context_length = model.shape.context_length
        self._measured = context.measured.setdefault(call.out, Measured())
        self._priors: list[NDArray[np.float32]] | None = None
        self._asked = 0
        self._first_failures = 0
        self._failed: set[int] = set()  # rows of the window

    def run(self, window: pa.RecordBatch, first_row: int) -> Answers:
        """The answers to all rows of a window; `first_row` is its first row's number in the whole input."""
        rows = self._wanted(window)
        texts = [read_texts(window.column(hole).take(pa.array(rows))) for hole in self.call.holes]
        if self.call.op == "count_tokens":
            by_prompt = [self._count(texts, len(rows))]
        else:
            self._failed = set()
            by_prompt = [self._ask(number, texts, rows + first_row) for number in range(len(self._prompts))]
            self._asked += len(rows)
        finished = np.ones(window.num_rows, dtype=bool)
        failed = np.zeros(window.num_rows, dtype=bool)
        answered: list[tuple[Answer, ...] | None] = [None] * window.num_rows
        for row, answers in zip(rows.tolist(), zip(*by_prompt, strict=True), strict=True):
            if any(answer is None for answer in answers):
                finished[row] = False
                continue
            answered[row] = self._calibrated(answers)
            failed[row] = any(answer.failure is not None for answer in answers)
        self._context.check_share(done=False)
        return Answers(self._reader.column(answered), finished, failed)

    def _wanted(self, window: pa.RecordBatch) -> NDArray[np.int64]:
        """Rows for which the call runs: the guard is TRUE and no hole is NULL."""
        mask = np.ones(window.num_rows, dtype=bool)
        for hole in self.call.holes:
            mask &= np.asarray(pc.is_valid(window.column(hole)).to_numpy(zero_copy_only=False))
        if self.call.guard is not None:
            guard = pc.fill_null(window.column(self.call.guard), False)
            mask &= np.asarray(guard.to_numpy(zero_copy_only=False))
        return np.flatnonzero(mask)

    def _ask(self, number: int, texts: Sequence[Sequence[str]], rows: NDArray[np.int64]) -> list[Answer | None]:
        """One answer per row to prompt `number`, None where the run was cancelled before it; `rows` are row numbers."""
        answers: list[Answer | None] = [None] * len(rows)
        if not len(rows) or self._context.cancelled.is_set():
            return answers
        prompt = self._prompts[number]
        task = self._task(prompt)
        memo = self._context.memo(self.call.model, self.call.placement, task)
        batch = self._fit(prompt, prompt.encode(texts) if texts else repeat(prompt.encode(()), len(rows)))
        counts = self._context.counts
        counts["calls"] += len(rows) if number == 0 else 0
        self._measured.rows += len(rows)
        keys = [self._key(batch.row(i), row) for i, row in enumerate(rows.tolist())]
        waiting: dict[bytes, list[int]] = {}

        def give(found: Answer, places: list[int]) -> None:
            counts["length"] += len(places) if found.finish == "length" else 0
            for i in places:
                answers[i] = found
                if found.failure is not None:
                    self._reject(int(rows[i]), self._asked + i, found.failure, [column[i] for column in texts])

        for i, key in enumerate(keys):
            if (failure := batch.failures.get(i)) is not None:
                give(answer(i, failure=Failure(failure.kind, failure.message)), [i])
            elif (known := memo.get(key)) is not None:
                counts["reused"] += 1
                give(known, [i])
            else:
                waiting.setdefault(key, []).append(i)
        counts["reused"] += sum(len(same) - 1 for same in waiting.values())
        for found in self._run([Request(same[0], batch.row(same[0]), task) for same in waiting.values()]):
            give(found, waiting[keys[found.id]])
            if found.failure is None and self.call.decoding.is_function and len(memo) < MEMO_ROWS:
                memo[keys[found.id]] = found
        return answers

    def _calibrated(self, answers: tuple[Answer, ...]) -> tuple[Answer, ...]:
        """Scores as what the row adds to the answer to nothing: takes out a small model's liking for some labels.

        Zhao et al. 2021, "Calibrate Before Use", with the mean over several texts without content.
        """
        if not self.call.calibrate or any(answer.failure is not None for answer in answers):
            return answers
        if self._priors is None:
            self._priors = [self._prior(prompt) for prompt in self._prompts]
        return tuple(replace(a, logprobs=a.logprobs - p) for a, p in zip(answers, self._priors, strict=True))

    def _prior(self, prompt: CompiledPrompt) -> NDArray[np.float32]:
        """Mean log-probability of each label over texts without content, float32[labels]."""
        batch = prompt.encode([CONTENT_FREE] * len(self.call.holes))
        task = self._task(prompt)
        found = list(self._run_all([Request(i, batch.row(i), task) for i in range(len(batch))]))
        scores = [a.logprobs for a in found if a.failure is None]
        return np.mean(scores, axis=0, dtype=np.float32) if scores else np.zeros(len(prompt.label_ids), np.float32)

    def _reject(self, row: int, call: int, failure: Failure, inputs: Sequence[str]) -> None:
        """Note a failed row, once for all prompts about it; `call` is its number among the rows asked about."""
        if row in self._failed:
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

    def _run(self, requests: list[Request]) -> Iterator[Answer]:
        """Answers as they finish; ends early when the run is cancelled, or no row more fits into its token budget."""
        context = self._context
        while requests and not context.cancelled.is_set():
            part = _affordable(requests, context.tokens_left())
            if not part:
                context.stop_spent()
                return
            yield from self._run_all(part)
            requests = requests[len(part) :]

    def _run_all(self, requests: list[Request]) -> Iterator[Answer]:
        """Answers as they finish; ends early when the run is cancelled, by Ctrl-C or from another thread."""
        context, place, measured = self._context, self.call.placement, self._measured
        engine = context.models.engine(self.call.model)
        context.tracker.phase("running", self.call.label)
        before, began = replace(engine.counters), perf_counter()
        sizes = {"max_rows": place.max_rows, "step_tokens": place.step_tokens, "kv_slots": place.kv_slots}
        running = engine.run(requests, **sizes, row_timeout=context.policy.row_timeout)
        try:
            for done, found in enumerate(running, 1):
                if found.failure is not None and found.failure.kind == "cancelled":
                    continue
                if found.failure is None:
                    measured.note(found.seconds, len(found.tokens) + (found.finish == "stop"))
                yield found
                context.show(done, engine.counters, before)
                if context.cancelled.is_set():
                    break
        except KeyboardInterrupt:
            context.cancelled.set()
        finally:
            running.close()
            context.add(engine.counters, before)
            measured.add(perf_counter() - began, engine.counters, before)

    def _fit(self, prompt: CompiledPrompt, batch: TokenBatch) -> TokenBatch:
        """The batch with over-long rows cut in the middle of their data, where the query asks for that."""
        if self._context.policy.on_overflow != "truncate_middle":
            return batch
        output = self.call.decoding.max_tokens if self.call.op == "generate" else max(map(len, prompt.label_ids))
        limit = self._context_length - output
        fitting, cut = prompt.truncate(batch, limit)
        self._context.counts["truncated"] += int((cut & (fitting.lengths <= limit)).sum())
        return fitting

    def _key(self, tokens: Tokens, row: int) -> bytes:
        """Equal keys, equal answers. Unseeded sampling draws for each row."""
        if not self.call.decoding.is_function:
            return row.to_bytes(8, "little")
        return blake2b(tokens.tobytes(), digest_size=16).digest()

    def _task(self, prompt: CompiledPrompt) -> Task:
        if self.call.op != "generate":
            return Score(prompt.label_ids)
        d = self.call.decoding
        sampling = Sampling(d.temperature, d.top_k, d.top_p, d.min_p, d.seed)
        return Generate(d.max_tokens, prompt.stop_ids, d.stop, sampling)


def _affordable(requests: list[Request], left: float | None) -> list[Request]:
    """The first requests that a token budget allows whatever they share and however long their answers are."""
    if left is None:
        return requests
    most = [len(r.tokens) + (r.task.max_tokens if isinstance(r.task, Generate) else 0) for r in requests]
    return requests[: int(np.searchsorted(np.cumsum(most), left, side="right"))]


def repeat(batch: TokenBatch, rows: int) -> TokenBatch:
    """A batch of one row, `rows` times: the prompt of a call that reads no column."""
    lengths = np.full(rows, len(batch.ids), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return TokenBatch(np.tile(batch.ids, rows), offsets, np.zeros((rows, 0, 2), np.int64))
