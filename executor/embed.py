"""One run of an encoder over a stream of requests: texts of similar length together, equal texts once."""

import sys
import threading
from collections.abc import Iterator, Sequence
from time import perf_counter

import numpy as np
import torch

from dql.executor.models.encoder import Encoder
from dql.executor.options import Counters, EngineOptions, Pace
from dql.executor.requests import Answer, Failure, Request
from dql.executor.rows import Row, refusal
from dql.executor.windows import out_of_memory, pull

_NO_TOKENS, _NO_SCORES = np.empty(0, np.int32), np.empty(0, np.float32)


class EncoderRun:
    """One call of Engine.run for a model that embeds."""

    def __init__(
        self,
        requests: Iterator[Request],
        encoder: Encoder,
        options: EngineOptions,
        pace: Pace,
        counters: Counters,
        lock: threading.Lock,
    ) -> None:
        self.cancelled = threading.Event()
        self._requests = requests
        self._encoder = encoder
        self._options = options
        self._pace = pace
        self._counters = counters
        self._lock = lock
        self._bearable = sys.maxsize  # tokens of a step that memory allows, as far as steps have failed

    def answers(self) -> Iterator[Answer]:
        """Every answer of the run."""
        last = False
        while not last and not self.cancelled.is_set():
            requests, last = pull(self._requests, self._options)
            rows, refused = self._rows(requests)
            yield from self._counted(refused)
            began = perf_counter()
            while rows and not self.cancelled.is_set():
                yield from self._counted(self._step(rows, began))
            failure = Failure("cancelled", "the query was cancelled", retryable=True)
            yield from self._counted([answer for row in rows for answer in row.answers(failure=failure)])

    def close(self) -> None:
        """Nothing is held between steps."""

    def _rows(self, requests: Sequence[Request]) -> tuple[list[Row], list[Answer]]:
        """Distinct texts, the longest last, and answers to what is no text to embed."""
        shape = self._encoder.shape
        context = self._options.context_of(shape)
        by_text: dict[bytes, Row] = {}
        refused = []
        for request in requests:
            tokens = np.ascontiguousarray(request.tokens, dtype=np.int32)
            failure = refusal(tokens, request.task, context, shape.vocab_size, encoder=True)
            if failure is not None:
                refused.append(Answer(request.id, _NO_TOKENS, _NO_SCORES, prompt_tokens=len(tokens), failure=failure))
            elif (row := by_text.get(tokens.tobytes())) is not None:
                row.ids.append(request.id)
                self._counters.duplicates += 1
            else:
                by_text[tokens.tobytes()] = Row([request.id], tokens, request.task, computed=len(tokens))
        return sorted(by_text.values(), key=lambda row: len(row.tokens)), refused

    def _step(self, rows: list[Row], began: float) -> list[Answer]:
        """Embed as many of the longest rows as a step takes, and take them out of `rows`."""
        first, total = len(rows) - 1, len(rows[-1].tokens)
        # batches of another size round otherwise, so that where no bit may change each text goes alone
        room = 0 if self._options.deterministic else min(self._pace.step_tokens, self._bearable)
        while first and total + len(rows[first - 1].tokens) <= room:
            first -= 1
            total += len(rows[first].tokens)
        batch = rows[first:]
        ids = torch.from_numpy(np.concatenate([row.tokens for row in batch]).astype(np.int64))
        lengths = torch.tensor([len(row.tokens) for row in batch])
        device = torch.device(self._options.device)
        try:
            with self._lock, torch.inference_mode():
                vectors = self._encoder.embed(ids.to(device), lengths.to(device)).cpu().numpy()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return self._less(rows, batch, error)
        self._counters.steps += 1
        self._counters.prefilled += total
        del rows[first:]
        seconds = perf_counter() - began
        pairs = zip(batch, vectors, strict=True)
        return [
            answer
            for row, vector in pairs
            for answer in row.answers(vector=vector.copy(), seconds=seconds, first=seconds)
        ]

    def _less(self, rows: list[Row], batch: list[Row], error: RuntimeError) -> list[Answer]:
        """Memory ran out: half as much next time, or without the one row that does not fit alone."""
        if len(batch) > 1:
            self._bearable = max(1, sum(len(row.tokens) for row in batch) // 2)
            return []
        self._bearable = sys.maxsize
        failure = Failure("oom", f"out of memory: {str(error).splitlines()[0]}", retryable=True)
        return rows.pop().answers(failure=failure)

    def _counted(self, answers: list[Answer]) -> list[Answer]:
        self._counters.count(answers)
        return answers
