"""Token ids in; token ids, label scores and vectors out, in the order they finish."""

import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import torch

from dql.errors import UnsupportedError
from dql.executor.backend import Backend
from dql.executor.backends import open_backend
from dql.executor.block_pool import BlockPool
from dql.executor.draft import DraftModel, LoadedDraft
from dql.executor.embed import EncoderRun
from dql.executor.memory import available_memory, give_back_freed_memory, keep_freed_memory, plan_memory
from dql.executor.models.decoder import CausalModel, Decoder
from dql.executor.models.encoder import Encoder
from dql.executor.models.linear import Layout
from dql.executor.models.tiles import TILE
from dql.executor.options import Counters, EngineOptions, Pace
from dql.executor.own_text import OwnText
from dql.executor.quantize import above, kv_type, layout, prepared
from dql.executor.recorder import Decode
from dql.executor.requests import Answer, Request
from dql.executor.run import DecoderRun, Loaded
from dql.executor.speculate import LONGEST_WAIT, Speculation
from dql.executor.warm_up import Told, warm_up
from dql.executor.weights import open_weights
from dql.models.model import Model
from dql.planner.speculation import FREE


class _Run(Protocol):
    """One call of Engine.run."""

    @property
    def cancelled(self) -> threading.Event: ...
    def answers(self) -> Iterator[Answer]: ...
    def close(self) -> None: ...


class Engine:
    """A loaded model that answers requests. Several runs may be open at once; their steps take turns."""

    def __init__(self, model: CausalModel | Encoder, options: EngineOptions, decode: Decode | None = None) -> None:
        """Take over a loaded model; `load` is the usual way. `decode` turns ids to text, for stop texts."""
        self.options = options
        self.counters = Counters()
        self.model = model
        slots = plan_memory(model.shape, options, available_memory()).slots
        device = torch.device(options.device)
        if device.type == "cpu":
            give_back_freed_memory()
            keep_freed_memory()
        self.pool = BlockPool(model.shape, slots, kv_type(options.kv_cache, device), device)
        self._decode = decode
        self._backend: Backend | None = None
        self._lock = threading.Lock()
        self._open: set[_Run] = set()

    @classmethod
    def load(
        cls, model: Model, options: EngineOptions | None = None, told: Told = lambda done, known: None
    ) -> "Engine":
        """Load a model's weights and, for a GPU, compile its kernels; `told`: how many are, of how many.

        Raises ConfigError, ExecutionError or UnsupportedError naming what is wrong, OutOfMemoryError with the sum of
        what it would take.
        """
        options = options or EngineOptions()
        device = torch.device(options.device)
        free = available_memory() if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
        memory = plan_memory(model.shape, options, free)
        memory.check()
        held = layout(options.weights, device)
        if model.is_encoder:
            return cls(Encoder(model.shape, open_weights(model, options.load_format), held), options)
        decoder = _decoder(model, options, held)
        budgeted = replace(options, kv_bytes=memory.kv)
        engine = cls(decoder, budgeted, lambda ids: model.tokenizer.decode_batch([ids])[0])
        if isinstance(decoder, Decoder):
            warm_up(decoder, engine.pool.caches, options.context_of(model.shape), told)
        return engine

    def run(
        self,
        requests: Iterable[Request],
        *,
        pace: Pace | None = None,
        kv_slots: int | None = None,
        row_timeout: float | None = None,
        deterministic: bool = False,
        prefix: bool = True,
        reuse: bool = True,
        logprobs: bool = True,
        draft: "Engine | None" = None,
        draft_slots: int | None = None,
    ) -> Generator[Answer]:
        """Answer requests, pulled a window at a time, as they finish; closing the iterator frees all they hold.

        pace: sizes of this run instead of the engine's, read before every step. kv_slots: most token slots of the KV
        cache that the run takes. row_timeout: seconds from a row's admission, after which it fails before its next
        step. deterministic: results are the same to the bit whatever the batch, the order of the rows and the size of
        the steps, on one machine. prefix: what prompts begin with is computed once. reuse: equal requests are answered
        once. logprobs: whether generated tokens come with theirs; greedy decoding is cheaper without. draft: the engine
        of a small model with the same vocabulary, which guesses ahead where that pays, in at most draft_slots of its
        own KV cache. A request that cannot be answered has an answer with a Failure; nothing that a request holds
        raises; UnsupportedError where the model's family cannot be run deterministically.
        """
        options = replace(
            self.options,
            row_timeout=row_timeout or self.options.row_timeout,
            deterministic=deterministic or self.options.deterministic,
            prefix=prefix,
            reuse=reuse,
            logprobs=logprobs,
        )
        speculation = self._speculation(options, draft, draft_slots)
        run = self._start(iter(requests), options, pace or options, kv_slots, speculation)
        self._open.add(run)
        try:
            yield from run.answers()
        finally:
            self._open.discard(run)
            run.close()

    @property
    def idle(self) -> bool:
        """Whether no run is open."""
        return not self._open

    def cancel(self) -> None:
        """Stop all open runs within a step, from any thread: what they pulled and did not finish fails as cancelled."""
        for run in list(self._open):
            run.cancelled.set()

    @property
    def backend(self) -> Backend:
        """What runs the steps of a model that generates and scores, opened at the first run."""
        if isinstance(self.model, Encoder):
            raise UnsupportedError("a model that embeds has no steps")
        if self._backend is None:
            self._backend = open_backend(self.model, self.pool)
        return self._backend

    @property
    def free_slots(self) -> int:
        """Token slots of the KV cache that nothing holds, prefixes kept for later left out."""
        return self.pool.available

    def _start(
        self,
        requests: Iterator[Request],
        options: EngineOptions,
        pace: Pace,
        kv_slots: int | None,
        speculation: Speculation | None,
    ) -> _Run:
        if isinstance(self.model, Encoder):
            return EncoderRun(requests, self.model, options, pace, self.counters, self._lock)
        decoder = _tiled(self.model) if options.deterministic else self.model
        backend = open_backend(decoder, self.pool, invariant=True) if options.deterministic else self.backend
        loaded = Loaded(decoder, backend, self.pool, self.counters, self._lock, self._decode)
        return DecoderRun(requests, loaded, options, pace, kv_slots, speculation)

    def _speculation(
        self, options: EngineOptions, draft: "Engine | None", draft_slots: int | None
    ) -> Speculation | None:
        """What guesses ahead in one run of a model that generates."""
        if not options.speculate or isinstance(self.model, Encoder):
            return None
        kind = self.pool.device.type
        if draft is None:
            return Speculation(OwnText(), FREE[kind], LONGEST_WAIT[kind])
        shapes = draft.model.shape, self.model.shape
        costs = [shape.matmul_parameters + shape.embedding_parameters for shape in shapes]
        return Speculation(DraftModel(draft.as_draft(), costs[0] / costs[1], draft_slots), FREE[kind])

    def as_draft(self) -> LoadedDraft:
        """This model as one that guesses for another. Raises UnsupportedError for one that draws no tokens."""
        if isinstance(self.model, Encoder):
            raise UnsupportedError("a draft model generates text, and this one embeds it")
        return LoadedDraft(self.model, self.backend, self.pool, self._lock, self.options.context_of(self.model.shape))


def _decoder(model: Model, options: EngineOptions, held: Layout) -> CausalModel:
    """The model's weights in the module that runs its family."""
    if model.shape.generic:
        from dql.executor.models.generic_load import load_generic  # transformers, which fused families do without

        if options.weights != "fp32":
            raise UnsupportedError(
                f"quantization = {options.weights} does not run models of family {model.shape.architecture!r}",
                hint="leave it out: they run in fp32",
            )
        return load_generic(model, options.load_format, held)
    weights, context = open_weights(model, options.load_format), options.context_of(model.shape)
    ready, precise = prepared(weights, model, held), above(weights, held)
    return Decoder(model.shape, ready, context=context, layout=held, precise=precise)


def _tiled(model: CausalModel) -> Decoder:
    """The model as `deterministic = true` runs it."""
    if not isinstance(model, Decoder):
        raise UnsupportedError(
            f"deterministic = true does not run with models of family {model.shape.architecture!r}",
            hint="their modules are transformers' own; leave the setting out, or use a Llama, Qwen, Mistral or Gemma",
        )
    return model.tiled(TILE)
