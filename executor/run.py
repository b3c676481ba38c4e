"""One run of a decoder over a stream of requests: pull a window, plan a step, run it, hand out what finished."""

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from dql.executor.backend import Backend, StepCancelled
from dql.executor.block_pool import BlockPool
from dql.executor.models.decoder import CausalModel
from dql.executor.options import Counters, EngineOptions, Pace
from dql.executor.recorder import Decode
from dql.executor.requests import Answer, Failure, Request
from dql.executor.rows import Row, plan_window
from dql.executor.runner import Runner
from dql.executor.scheduler import Plan, Scheduler
from dql.executor.speculate import Speculation
from dql.executor.transfer import working_on
from dql.executor.windows import out_of_memory, pull

_RUN_SHARE = 0.75  # of the free slots that one run may take, so that a run nested in its input finds some as well


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the runs of an engine share. `lock` is held for a step, so that runs of several threads take turns."""

    decoder: CausalModel
    backend: Backend
    pool: BlockPool
    counters: Counters
    lock: threading.Lock
    decode: Decode | None


class DecoderRun:
    """One call of Engine.run for a model that generates and scores."""

    def __init__(
        self,
        requests: Iterator[Request],
        loaded: Loaded,
        options: EngineOptions,
        pace: Pace,
        kv_slots: int | None,
        speculation: Speculation | None,
    ) -> None:
        """`options`: the engine's; pace: this run's sizes; kv_slots: most slots of the pool that it may take."""
        self.cancelled = threading.Event()
        self._requests = requests
        self._loaded = loaded
        self._options = options
        self._pace = pace
        self._bearable = sys.maxsize  # tokens of a step that memory allows, as far as steps have failed
        self._exhausted = False
        pool = loaded.pool
        quota = min(int(pool.available * _RUN_SHARE), kv_slots or pool.available)
        self._scheduler = Scheduler(
            pool,
            step_tokens=pace.step_tokens,
            max_rows=pace.max_rows,
            quota=quota,
            speculation=speculation,
            invariant=options.deterministic,
        )
        self._runner = Runner(
            loaded.backend,
            loaded.decoder,
            self._scheduler,
            loaded.counters,
            cancelled=self.cancelled.is_set,
            decode=loaded.decode,
            logprobs=options.logprobs,
        )

    def answers(self) -> Iterator[Answer]:
        """Every answer of the run."""
        while not self.cancelled.is_set():
            if not self._scheduler.waiting and not self._exhausted:
                yield from self._pull()
            elif self._scheduler.idle and not self._runner.under_way:
                return
            elif overdue := self._drop_overdue():
                yield from overdue
            else:
                yield from self._step()
        with self._loaded.lock:
            rows = [*self._runner.abandon(), *self._scheduler.give_up()]
        yield from self._failed(rows, Failure("cancelled", "the query was cancelled", retryable=True))

    def close(self) -> None:
        """Free everything that is still held."""
        with self._loaded.lock:
            self._runner.abandon()
            self._scheduler.give_up()
        if self._scheduler.speculation is not None:
            self._scheduler.speculation.close()

    def _pull(self) -> Sequence[Answer]:
        loaded, shape = self._loaded, self._loaded.decoder.shape
        requests, self._exhausted = pull(self._requests, self._options)
        with loaded.lock:
            context = self._options.context_of(shape)
            invariant = self._options.deterministic
            window = plan_window(
                requests,
                [resident for resident in loaded.pool.residents if resident.invariant == invariant],
                context,
                shape.vocab_size,
                prefix=self._options.prefix,
                reuse=self._options.reuse,
            )
            self._scheduler.add(window)
        loaded.counters.duplicates += sum(len(row.ids) - 1 for row in window.rows)
        loaded.counters.count(window.settled)
        return window.settled

    def _step(self) -> Sequence[Answer]:
        """Plan and launch a step, and collect one once as many are under way as the device takes."""
        scheduler, runner = self._scheduler, self._runner
        with self._loaded.lock, torch.inference_mode(), working_on(self._loaded.pool.device):
            scheduler.resize(self._pace.max_rows, min(self._pace.step_tokens, self._bearable))
            # guesses go on from tokens that are known, so that the step under way is waited for
            plan = None if scheduler.depth and runner.under_way else scheduler.plan()
            if plan is None and not runner.under_way:
                return [] if scheduler.make_room() else self._refuse_first("it needs more KV cache than there is")
            if plan is not None and (failed := self._launch(plan)) is not None:
                return failed
            answers = runner.collect() if plan is None or runner.full else []
        self._loaded.counters.count(answers)
        return answers

    def _launch(self, plan: Plan) -> Sequence[Answer] | None:
        """Start a step; None where it is under way, else answers of rows that cannot run."""
        try:
            self._runner.launch(plan)
        except StepCancelled:
            return []
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if self._loaded.pool.device.type == "cuda":
                torch.cuda.empty_cache()  # what torch keeps may be what a kernel's code or cuBLAS did not get
            if self._scheduler.step_tokens > 1:
                self._bearable = self._scheduler.step_tokens // 2
                return []
            return self._refuse_first(str(error).splitlines()[0])
        return None

    def _drop_overdue(self) -> Sequence[Answer]:
        """Give up on the rows that took too long, each for itself."""
        limit = self._options.row_timeout
        if limit is None:
            return []
        with self._loaded.lock:
            rows = self._scheduler.drop_overdue(perf_counter() - limit)
        message = f"no answer within {limit:g} s of its start (row_timeout)"
        return self._failed(rows, Failure("timeout", message, retryable=True)) if rows else []

    def _refuse_first(self, reason: str) -> Sequence[Answer]:
        """Give up on the one row that cannot run even alone, and go on with the others at full steps."""
        self._bearable = sys.maxsize
        row = self._scheduler.drop_first()
        return self._failed([row], Failure("oom", f"out of memory: {reason}", retryable=True))

    def _failed(self, rows: Sequence[Row], failure: Failure) -> Sequence[Answer]:
        answers = [answer for row in rows for answer in row.answers(failure=failure)]
        self._loaded.counters.count(answers)
        return answers
