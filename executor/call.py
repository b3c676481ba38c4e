"""One inference call over windows of rows: texts → prompts → distinct requests → answers → an Arrow column."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dql.executor.answers import Reader, answer
from dql.executor.context import Context, Rejected
from dql.executor.requests import Answer, Failure, Generate, Request, Sampling, Score, Task, Tokens
from dql.planner.physical import CallExec
from dql.planner.prompts import prompts
from dql.prompts import CompiledPrompt, TokenBatch

MEMO_ROWS = 1_000_000  # answers remembered across windows; later distinct calls run again

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Answers:
    """A column of answers. A row is finished unless the run was cancelled before it; failed rows are NULL."""

    values: pa.Array
    finished: Mask
    failed: Mask


class CallRunner:
    """Runs one call of a plan. Equal calls of the query are answered once, across windows too."""

    def __init__(self, call: CallExec, context: Context) -> None:
        self.call = call
        self._context = context
        model = context.models.model(call.model)
        self._tokenizer = model.tokenizer
        self._prompts = prompts(call, model)
        self._memos: list[dict[bytes, Answer]] = [{} for _ in self._prompts]
        self._reader = Reader(call, model)
        self._context_length = model.shape.context_length

    def run(self, window: pa.RecordBatch, first_row: int) -> Answers:
        """The answers to all rows of a window; `first_row` is its first row's number in the whole input."""
        rows = self._wanted(window)
        texts = [window.column(hole).take(pa.array(rows)).to_pylist() for hole in self.call.holes]
        if self.call.op == "count_tokens":
            by_prompt = [self._count(texts, len(rows))]
        else:
            by_prompt = [self._ask(number, texts, len(rows), first_row) for number in range(len(self._prompts))]
        finished = np.ones(window.num_rows, dtype=bool)
        failed = np.zeros(window.num_rows, dtype=bool)
        answered: list[tuple[Answer, ...] | None] = [None] * window.num_rows
        for row, answers in zip(rows.tolist(), zip(*by_prompt, strict=True), strict=True):
            if any(answer is None for answer in answers):
                finished[row] = False
                continue
            answered[row] = answers
            failure = next((answer.failure for answer in answers if answer.failure is not None), None)
            failed[row] = failure is not None
            if failure is not None:
                self._reject(first_row + row, failure)
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

    def _ask(self, number: int, texts: Sequence[Sequence[str]], rows: int, first_row: int) -> list[Answer | None]:
        """One answer per row to prompt `number`, None where the run was cancelled before it."""
        if not rows or self._context.cancelled.is_set():
            return [None] * rows
        prompt, memo = self._prompts[number], self._memos[number]
        batch = self._fit(prompt, prompt.encode(texts) if texts else repeat(prompt.encode(()), rows))
        self._context.counts["calls"] += rows
        keys = [b""] * rows
        answers: list[Answer | None] = [None] * rows
        waiting: dict[bytes, list[int]] = {}
        for i in range(rows):
            if (failure := batch.failures.get(i)) is not None:
                answers[i] = answer(i, failure=Failure(failure.kind, failure.message))
                continue
            keys[i] = self._key(batch.row(i), first_row + i)
            if (known := memo.get(keys[i])) is not None:
                answers[i] = known
            else:
                waiting.setdefault(keys[i], []).append(i)
        first = [same[0] for same in waiting.values()]
        self._context.counts["reused"] += rows - len(first)
        task = self._task(prompt)
        for found in self._run([Request(i, batch.row(i), task) for i in first]):
            for i in waiting[keys[found.id]]:
                answers[i] = found
            if found.failure is None and self.call.decoding.is_function and len(memo) < MEMO_ROWS:
                memo[keys[found.id]] = found
        return answers

    def _count(self, texts: Sequence[Sequence[str]], rows: int) -> list[Answer | None]:
        """Tokens of the rendered text of each row; no model runs."""
        parts = [[part] * rows if isinstance(part, str) else texts[part] for part in self.call.template]
        _, offsets = self._tokenizer.encode_data(["".join(row) for row in zip(*parts, strict=True)])
        return [answer(i, prompt_tokens=int(n)) for i, n in enumerate(np.diff(offsets))]

    def _run(self, requests: list[Request]) -> Iterator[Answer]:
        """Answers as they finish; ends early when the run is cancelled, by Ctrl-C or from another thread."""
        if not requests:
            return
        context = self._context
        engine = context.models.engine(self.call.model)
        context.tracker.phase("running", self.call.label)
        before = replace(engine.counters)
        running = engine.run(requests, max_rows=context.batch_size)
        try:
            for done, found in enumerate(running, 1):
                if found.failure is not None and found.failure.kind == "cancelled":
                    continue
                yield found
                context.show(done, engine.counters, before)
                if context.cancelled.is_set():
                    break
        except KeyboardInterrupt:
            context.cancelled.set()
        finally:
            running.close()
            context.add(engine.counters, before)

    def _fit(self, prompt: CompiledPrompt, batch: TokenBatch) -> TokenBatch:
        """The batch with over-long rows cut in the middle of their data, where the query asks for that."""
        if self._context.policy.on_overflow != "truncate_middle":
            return batch
        output = self.call.decoding.max_tokens if self.call.op == "generate" else max(map(len, prompt.label_ids))
        fitting, cut = prompt.truncate(batch, self._context_length - output)
        self._context.counts["truncated"] += int(cut.sum())
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

    def _reject(self, row: int, failure: Failure) -> None:
        rejected = Rejected(row, self.call.label, failure.kind, failure.message, failure.retryable)
        self._context.reject(rejected)


def repeat(batch: TokenBatch, rows: int) -> TokenBatch:
    """A batch of one row, `rows` times: the prompt of a call that reads no column."""
    lengths = np.full(rows, len(batch.ids), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return TokenBatch(np.tile(batch.ids, rows), offsets, np.zeros((rows, 0, 2), np.int64))
