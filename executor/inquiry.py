"""What one call asks about a window of rows, and the engine runs that answer the calls of a node together.

Requests of all calls go into one run, row by row: prompts about the same text, whatever their questions, stand beside
each other in the engine's prefix tree, and what they begin with is computed once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain, compress, islice
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from dql.executor.ahead import ahead
from dql.executor.context import Context
from dql.executor.interrupts import held_back
from dql.executor.options import Counters
from dql.executor.requests import Answer, Generate, Request, Task, Tokens
from dql.planner.measured import Measured
from dql.planner.physical import CallExec, Placement
from dql.planner.prefix import sort_prompts
from dql.planner.windows import PLANNED

TOGETHER_READ = 256  # answers whose text is read at once, beside the engine's work on others
MEMO_ROWS = 1_000_000  # answers remembered across windows; later distinct calls run again

Give = Callable[[Answer], None]


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt without an answer yet. `row` is the first of the window's rows that it is about, `memo` where its answer
    is kept under `key`; a sampled one has neither. `give` takes the answer."""

    row: int
    tokens: Tokens
    task: Task
    give: Give
    memo: dict[bytes, Answer] | None = None
    key: bytes = b""


@dataclass(slots=True)
class Inquiry:
    """One call over a window: `rows` are those it runs for, `places` the distinct inputs of each of them.

    answers: per prompt of the call, one per distinct input, None where there is none yet.
    """

    call: CallExec
    measured: Measured
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    answers: list[list[Answer | None]]
    questions: list[Question] = field(default_factory=list)


def ask(inquiries: Sequence[Inquiry], context: Context, rows: int = 0) -> None:
    """Answer what the inquiries have open; ends early when the run is cancelled or its token budget spent.

    rows: how many rows of the query are finished with these answers, for the progress shown.
    """
    by_engine: dict[tuple[str, str | None, Placement], list[Inquiry]] = {}
    for inquiry in inquiries:
        if inquiry.questions:
            call = inquiry.call
            by_engine.setdefault((call.model, call.draft, call.placement), []).append(inquiry)
    for together in by_engine.values():
        _Asking(together, context, rows).run()


class _Asking:
    """The questions of calls that run on one engine."""

    def __init__(self, inquiries: Sequence[Inquiry], context: Context, rows: int) -> None:
        self._call = inquiries[0].call
        self._inquiries = inquiries
        self._context = context
        self._rows = rows
        self._waiting = _merged(inquiries)
        if len(self._waiting) > PLANNED and context.token_budget is None:
            # What begins alike is planned together; but where tokens may run out, the first rows come first.
            order = sort_prompts([same[0][1].tokens for same in self._waiting])
            self._waiting = [self._waiting[place] for place in order.tolist()]
        self._decode = context.models.model(self._call.model).tokenizer.decode_batch
        self._work = np.zeros(len(inquiries))  # tokens computed for each
        self._watch = None if context.adviser is None else context.adviser.watch([i.call.out for i in inquiries])
        context.counts["reused"] += sum(len(same) - 1 for same in self._waiting)

    def run(self) -> None:
        """Run all of them, as far as the token budget goes."""
        requests = [Request(i, same[0][1].tokens, same[0][1].task) for i, same in enumerate(self._waiting)]
        if self._watch is None:
            self._run_affordable(requests)
            return
        lengths = {i.call.out: [len(question.tokens) for question in i.questions] for i in self._inquiries}
        self._watch.arrive(lengths, self._inquiries[0].measured.changes)
        start = 0
        for size in self._watch.parts(len(requests)):
            self._run_affordable(requests[start : start + size])
            self._watch.look({inquiry.call.out: inquiry.measured for inquiry in self._inquiries})
            start += size

    def _run_affordable(self, requests: list[Request]) -> None:
        """Run these requests, as far as the token budget goes."""
        context = self._context
        while requests and not context.cancelled.is_set():
            part = _affordable(requests, context.tokens_left())
            if not part:
                context.stop_spent()
                return
            self._run(part)
            requests = requests[len(part) :]

    def _run(self, requests: list[Request]) -> None:
        context, place, draft = self._context, self._call.placement, self._call.draft
        engine = context.models.engine(self._call.model, place)
        guessing = None
        if draft is not None and place.draft_slots != 0:
            guessing = context.models.draft(draft, place, engine)
        context.tracker.phase("running", ", ".join(inquiry.call.label for inquiry in self._inquiries))
        before, began = replace(engine.counters), perf_counter()
        timeout = context.policy.row_timeout

        def cancel() -> None:
            context.cancelled.set()
            engine.cancel()

        answers = engine.run(
            requests,
            pace=self._watch or place,
            kv_slots=place.kv_slots,
            row_timeout=timeout,
            deterministic=place.deterministic,
            prefix=place.prefix != "none",
            reuse=place.reuse,
            logprobs=any(inquiry.call.details for inquiry in self._inquiries),
            draft=guessing,
            draft_slots=place.draft_slots,
        )
        self._work[:] = 0
        writes = any(isinstance(request.task, Generate) for request in requests)
        answered = self._answered(answers, requests[0].id + 1, lambda done: context.show(done, engine.counters, before))
        try:
            parts = ahead(self._spelt, _parts(answered), depth=int(writes))
            with held_back(cancel), closing(answers), closing(parts):
                for found in chain.from_iterable(parts):
                    self._give(found)
        except KeyboardInterrupt:
            context.cancelled.set()
        finally:
            context.add(engine.counters, before)
            self._share(perf_counter() - began)
            self._share_guesses(engine.counters, before)

    def _answered(self, running: Iterator[Answer], first: int, show: Callable[[int], None]) -> Iterator[Answer]:
        """Answers as the engine finishes them, until the run is cancelled; failures go to who asked at once."""
        try:
            for number, found in enumerate(running, first):
                if found.failure is not None and found.failure.kind == "cancelled":
                    continue
                self._note(found)
                if found.failure is None:
                    self._remember(found)  # before others come, so that it is kept whatever ends the run
                    yield found
                else:
                    self._give(found)
                show(self._rows * number // len(self._waiting))
                if self._context.cancelled.is_set():
                    return
        except KeyboardInterrupt:
            self._context.cancelled.set()

    def _spelt(self, answers: Sequence[Answer]) -> Sequence[Answer]:
        """The answers with what was generated as text; called in another thread."""
        written = [isinstance(self._waiting[found.id][0][1].task, Generate) for found in answers]
        texts = iter(self._decode([found.tokens for found in compress(answers, written)]))
        return [replace(f, text=next(texts)) if w else f for f, w in zip(answers, written, strict=True)]

    def _give(self, found: Answer) -> None:
        for _, question in self._waiting[found.id]:
            question.give(found)
        if found.text is not None:
            self._remember(found)

    def _remember(self, found: Answer) -> None:
        memo, key = (question := self._waiting[found.id][0][1]).memo, question.key
        if memo is not None and (len(memo) < MEMO_ROWS or key in memo):
            memo[key] = found

    def _note(self, found: Answer) -> None:
        """Count an answer for the call that asked first."""
        number, question = self._waiting[found.id][0]
        measured = self._inquiries[number].measured
        drawn = len(found.tokens) + (found.finish == "stop") if isinstance(question.task, Generate) else 0
        if found.failure is None:
            took = found.seconds, found.first_seconds, drawn
            measured.note(*took, passes=found.passes)
            if self._watch is not None:
                self._watch.note(self._inquiries[number].call.out, *took, now=perf_counter(), changes=measured.changes)
        computed = found.prompt_tokens - found.cached_tokens
        measured.count(computed, found.cached_tokens, drawn)
        self._work[number] += computed + drawn

    def _share(self, seconds: float) -> None:
        """The run's seconds, by the tokens that each call had computed: steps mix the rows of all calls."""
        total = self._work.sum()
        for inquiry, work in zip(self._inquiries, self._work, strict=True):
            inquiry.measured.seconds += seconds * (work / total if total else 1 / len(self._inquiries))

    def _share_guesses(self, now: Counters, before: Counters) -> None:
        """The tokens that the run guessed ahead, by the tokens that each call has drawn."""
        drawn = [inquiry.measured.decoded for inquiry in self._inquiries]
        for inquiry, count in zip(self._inquiries, drawn, strict=True):
            part = count / max(sum(drawn), 1)
            inquiry.measured.proposed += part * (now.proposed - before.proposed)


def _merged(inquiries: Sequence[Inquiry]) -> list[list[tuple[int, Question]]]:
    """The questions by row, equal ones together, each with the number of its inquiry."""
    asked = [(number, question) for number, inquiry in enumerate(inquiries) for question in inquiry.questions]
    asked.sort(key=lambda pair: pair[1].row)
    merged: list[list[tuple[int, Question]]] = []
    known: dict[tuple[int, bytes], list[tuple[int, Question]]] = {}
    for pair in asked:
        memo, key = pair[1].memo, pair[1].key
        if memo is not None and (same := known.get((id(memo), key))) is not None:
            same.append(pair)
            continue
        merged.append([pair])
        if memo is not None:
            known[id(memo), key] = merged[-1]
    return merged


def _parts(answers: Iterator[Answer]) -> Iterator[list[Answer]]:
    """The answers in their order, some together: a thread takes as long to wake as an answer to read."""
    while part := list(islice(answers, TOGETHER_READ)):
        yield part


def _affordable(requests: list[Request], left: float | None) -> list[Request]:
    """The first requests that a token budget allows whatever they share and however long their answers are."""
    if left is None:
        return requests
    most = [len(r.tokens) + (r.task.max_tokens if isinstance(r.task, Generate) else 0) for r in requests]
    return requests[: int(np.searchsorted(np.cumsum(most), left, side="right"))]
