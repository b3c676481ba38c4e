"""Token ids in; token ids and label scores out, in the order they finish.

One run is the loop: pull a window of requests, plan a step, run the decoder, draw tokens and score labels, finish rows.
"""

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from dql.executor.block_pool import BlockPool
from dql.executor.memory import available_memory, plan_memory
from dql.executor.models.decoder import Decoder
from dql.executor.models.linear import packing_works
from dql.executor.options import Counters, EngineOptions
from dql.executor.requests import Answer, Failure, Request
from dql.executor.rows import Row, plan_window
from dql.executor.runner import Decode, Runner, StepCancelled
from dql.executor.scheduler import Scheduler
from dql.executor.weights import open_weights
from dql.models.model import Model

_RUN_SHARE = 0.75  # of the free slots that one run may take, so that a run nested in its input finds some as well


class Engine:
    """A loaded model that answers requests. Several runs may be open at once; their steps take turns."""

    def __init__(self, decoder: Decoder, options: EngineOptions, decode: Decode | None = None) -> None:
        """Take over a loaded decoder; `load` is the usual way. `decode` turns ids to text, for stop texts."""
        self.options = options
        self.counters = Counters()
        self.context = options.context_of(decoder.shape)
        self.decoder = decoder
        self.decode = decode
        slots = plan_memory(decoder.shape, options, available_memory()).slots
        self.pool = BlockPool(decoder.shape, slots, torch.float32, torch.device(options.device))
        self.lock = threading.Lock()  # held for a step, so that runs of several threads take turns
        self._open: set[_Run] = set()

    @classmethod
    def load(cls, model: Model, options: EngineOptions | None = None) -> "Engine":
        """Load a model's weights.

        Raises ConfigError, ExecutionError or UnsupportedError naming what is wrong, OutOfMemoryError with the sum of
        what it would take.
        """
        options = options or EngineOptions()
        device = torch.device(options.device)
        free = available_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
        memory = plan_memory(model.shape, options, free)
        memory.check()
        decoder = Decoder(
            model.shape,
            open_weights(model),
            context=options.context_of(model.shape),
            device=device,
            dtype=torch.float32,
            packed=device.type == "cpu" and packing_works(),
        )
        budgeted = replace(options, kv_bytes=memory.kv)
        return cls(decoder, budgeted, lambda ids: model.tokenizer.decode_batch([ids])[0])

    def run(
        self,
        requests: Iterable[Request],
        *,
        max_rows: int | None = None,
        step_tokens: int | None = None,
        kv_slots: int | None = None,
    ) -> Generator[Answer]:
        """Answer requests, pulled a window at a time, as they finish; closing the iterator frees all they hold.

        max_rows: most rows decoding at once in this run, and step_tokens: most tokens of a step, instead of the
        engine's. kv_slots: most token slots of the KV cache that the run takes. A request that cannot be answered has
        an answer with a Failure; nothing that a request holds raises.
        """
        sizes = max_rows or self.options.max_rows, step_tokens or self.options.step_tokens
        run = _Run(self, iter(requests), *sizes, kv_slots)
        self._open.add(run)
        try:
            yield from run.answers()
        finally:
            self._open.discard(run)
            run.close()

    def cancel(self) -> None:
        """Stop all open runs within a step, from any thread: what they pulled and did not finish fails as cancelled."""
        for run in list(self._open):
            run.cancelled.set()

    @property
    def free_slots(self) -> int:
        """Token slots of the KV cache that nothing holds, prefixes kept for later left out."""
        return self.pool.available


class _Run:
    """One call of Engine.run."""

    def __init__(
        self, engine: Engine, requests: Iterator[Request], max_rows: int, step_tokens: int, kv_slots: int | None
    ) -> None:
        self.cancelled = threading.Event()
        self._engine = engine
        self._requests = requests
        self._exhausted = False
        self._budget = step_tokens
        shape, pool = engine.decoder.shape, engine.pool
        quota = min(int(pool.available * _RUN_SHARE), kv_slots or pool.available)
        self._scheduler = Scheduler(shape, pool, step_tokens=self._budget, max_rows=max_rows, quota=quota)
        self._runner = Runner(
            engine.decoder,
            pool,
            self._scheduler,
            engine.counters,
            cancelled=self.cancelled.is_set,
            decode=engine.decode,
        )

    def answers(self) -> Iterator[Answer]:
        """Every answer of the run."""
        while not self.cancelled.is_set():
            if not self._scheduler.waiting and not self._exhausted:
                yield from self._pull()
            elif self._scheduler.idle:
                return
            else:
                yield from self._step()
        with self._engine.lock:
            rows = self._scheduler.give_up()
        yield from self._failed(rows, Failure("cancelled", "the query was cancelled", retryable=True))

    def close(self) -> None:
        """Free everything that is still held."""
        with self._engine.lock:
            self._scheduler.give_up()

    def _pull(self) -> Sequence[Answer]:
        engine = self._engine
        requests: list[Request] = []
        tokens = 0
        while len(requests) < engine.options.window and tokens < engine.options.window_tokens:
            if (request := next(self._requests, None)) is None:
                self._exhausted = True
                break
            requests.append(request)
            tokens += len(request.tokens)
        with engine.lock:
            window = plan_window(requests, engine.pool.residents, engine.context, engine.decoder.shape.vocab_size)
            self._scheduler.add(window)
        engine.counters.duplicates += sum(len(row.ids) - 1 for row in window.rows)
        engine.counters.count(window.settled)
        return window.settled

    def _step(self) -> Sequence[Answer]:
        scheduler = self._scheduler
        with self._engine.lock, torch.inference_mode():
            plan = scheduler.plan()
            if plan is None and scheduler.make_room():
                return []
            if plan is None:
                return self._refuse_first("it needs more KV cache than there is")
            try:
                answers = self._runner.run(plan)
            except StepCancelled:
                return []
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if scheduler.step_tokens > 1:
                    scheduler.step_tokens //= 2
                    return []
                return self._refuse_first(str(error).splitlines()[0])
        self._engine.counters.count(answers)
        return answers

    def _refuse_first(self, reason: str) -> Sequence[Answer]:
        """Give up on the one row that cannot run even alone, and go on with the others at full steps."""
        self._scheduler.step_tokens = self._budget
        row = self._scheduler.drop_first()
        return self._failed([row], Failure("oom", f"out of memory: {reason}", retryable=True))

    def _failed(self, rows: Sequence[Row], failure: Failure) -> Sequence[Answer]:
        answers = [answer for row in rows for answer in row.answers(failure=failure)]
        self._engine.counters.count(answers)
        return answers


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that an allocation failed, on either kind of device."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
