"""Runs physical plans: keeps models loaded between queries, and turns a plan into the user's columns."""

import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from dql.catalog import Catalog
from dql.errors import OutOfMemoryError
from dql.executor import calibrate, calibrate_gpu
from dql.executor.call import task_of
from dql.executor.context import Context, asked_as
from dql.executor.engine import Engine
from dql.executor.evidence import EngineEvidence
from dql.executor.operators import execute
from dql.executor.options import EngineOptions
from dql.executor.placed import free_memory, options_for, roomy
from dql.executor.progress import Progress, Tracker
from dql.executor.rejected import Rejected, batches
from dql.executor.sink import AtomicFile, check_columns, checked_options, file_format
from dql.executor.stats import Stats
from dql.executor.unfinished import Keeper, Memo, Unfinished, name_of, prompts_in
from dql.executor.warm_up import Told
from dql.executor.windows import out_of_memory
from dql.models import Model
from dql.models.fetch import PullProgress
from dql.models.registry import Registry
from dql.models.shape import ModelShape
from dql.planner.explain_cost import Promise
from dql.planner.hardware import Hardware
from dql.planner.hardware import Progress as Measuring
from dql.planner.physical import ErrorPolicy, Placement, QueryPlan
from dql.planner.prompts import prompts
from dql.planner.statistics import infer_nodes

_LOADED = 2  # engines kept where a run needs no more; another takes the place of the one unused longest


@dataclass
class Run:
    """One run of a plan, perhaps not begun. `context` tells how it went; `rejects` takes the failed rows."""

    plan: QueryPlan
    context: Context
    rejects: AtomicFile | None = None
    started: float = field(default_factory=time.monotonic)
    rows: int = 0
    seconds: float = 0.0
    judge: "Callable[[Run], Sequence[Promise]] | None" = None  # what became of each bound
    finished: "Callable[[Run], None] | None" = None  # called once, when the last batch was read or the run stopped
    unfinished: Unfinished | None = None
    recalled: Mapping[bytes, Memo] = field(default_factory=dict)  # answers of an earlier run that stopped
    delivers: bool = True  # whether the rows are safe once read; else `settle` says when they are
    _whole: bool = False  # the plan came to its end

    def batches(self) -> Generator[pa.RecordBatch]:
        """The rows, in order, under the user's column names; at least one batch.

        Ctrl-C between two batches, while rows are read or mapped, ends a run as it does within one: what was yielded
        stays. Before the first it is raised.
        """
        self.started, self._whole = time.monotonic(), False
        with ExitStack() as ends:  # what is to be done at the end is done whatever becomes of the rest
            ends.callback(self._write_rejects)
            ends.callback(self._finish)
            ends.callback(self.context.close)
            ends.enter_context(self._kept())
            yield from self._named(ends.enter_context(closing(execute(self.plan.root, self.context))))

    def _named(self, below: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        names, begun = unique(self.plan.names), False
        try:
            for batch in below:
                self.rows += batch.num_rows
                yield pa.RecordBatch.from_arrays(batch.columns, names=names)
                begun = True
            self._whole = not self.context.cancelled.is_set()
        except KeyboardInterrupt:
            self.context.cancelled.set()
            if not begun:
                raise

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Keep what is answered, until the rows are safe."""
        if self.unfinished is None:
            yield
            return
        keeper = Keeper(self.unfinished, self.context.memos, self.recalled)
        try:
            keeper.start()
            yield
        finally:
            safe = self._whole and self.delivers
            keeper.end(stopped=not safe)
            if safe:
                self.settle()

    def _finish(self) -> None:
        self.seconds = time.monotonic() - self.started
        if self.finished is not None:
            self.finished(self)

    def _write_rejects(self) -> None:
        if self.rejects is not None:
            with self.rejects as file:
                file.write(iter(batches(self.rejected)))
                file.commit()

    def resume(self, folder: Path, journal: Callable[[], Path]) -> None:
        """Take the answers of an earlier run of the statement that stopped; where this one stops, its are kept too.

        `journal`, in `folder`, is the statement's; it is asked for where it is needed, since to name one takes a while.
        """
        self.unfinished = Unfinished(folder, journal)
        self.recalled = self.unfinished.load()
        context = self.context
        context.recall = lambda asked: self.recalled.get(name_of(asked), {})
        for asked, memo in context.memos.items():
            memo.update({key: found for key, found in context.recall(asked).items() if key not in memo})

    def settle(self) -> None:
        """Forget the answers: the rows are where they belong. No-op where the run stopped before its end."""
        if self.unfinished is not None and self._whole:
            self.unfinished.drop()

    def _told(self) -> list[str]:
        """What the run took from an earlier one, what it changed of its plan, and that its budget stopped it."""
        count = sum(map(len, self.recalled.values()))
        said = [f"{count:,} answers are those of an earlier run that stopped"] if count else []
        said += [change for found in self.context.measured.values() for change in found.changes]
        if self.context.spent:
            said.append("the budget is spent: the same statement run again goes on from here")
        return said

    @property
    def interrupted(self) -> bool:
        """Whether the run was cancelled; one whose token budget is spent was not."""
        return self.context.cancelled.is_set() and not self.context.spent

    @property
    def rejected(self) -> list[Rejected]:
        return self.context.rejected

    def _saved(self) -> int:
        """Rows of cascades about which the last model was not asked, neither in the run nor to calibrate."""
        saved = 0
        for call in (call for node in infer_nodes(self.plan.root) for call in node.calls):
            if call.stage is not None and call.out in self.context.measured:
                sign = 1 if not call.stage.number else -1 if call.stage.last else 0
                saved += sign * self.context.measured[call.out].rows
            if call.stage is not None and call.stage.last:
                saved -= self.context.asked_ahead(call.out)
        return max(0, saved)

    def stats(self) -> Stats:
        """Counts so far."""
        counts = self.context.counts
        return Stats(
            rows=self.rows,
            nulls=counts["nulls"],
            failed=counts["failed"],
            calls=counts["calls"],
            calls_reused=counts["reused"],
            calls_saved=self._saved(),
            truncated=counts["truncated"],
            cut_by_max_tokens=counts["length"],
            tokens_prefilled=counts["prefilled"],
            tokens_reused=counts["shared"],
            tokens_decoded=counts["decoded"],
            tokens_forced=counts["forced"],
            tokens_proposed=counts["proposed"],
            tokens_accepted=counts["accepted"],
            seconds=self.seconds,
            messages=tuple(self.context.messages()),
            notices=tuple(self.context.tracker.notices),
            promises=() if self.judge is None else tuple(self.judge(self)),
            changes=tuple(self._told()),
        )


def unique(names: Sequence[str]) -> list[str]:
    """Column names of a frame: a repeated one gets a number, as in DuckDB's own frames."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        number = seen.get(name.lower(), 0)
        seen[name.lower()] = number + 1
        found.append(f"{name}_{number}" if number else name)
    return found


class Runtime:
    """The engines of a session. Loads a model on its first call and pulls it first where it is not here."""

    def __init__(self, registry: Registry, catalog: Catalog, threads: int) -> None:
        self._registry = registry
        self._catalog = catalog
        self._threads = threads
        self._models: dict[str, Model] = {}
        self._engines: OrderedDict[tuple[str, str, str, str], Engine] = OrderedDict()

    @property
    def loaded(self) -> Sequence[Engine]:
        """The engines that are kept, the one unused longest first."""
        return tuple(self._engines.values())

    def start(
        self,
        plan: QueryPlan,
        policy: ErrorPolicy,
        params: Mapping[str, object],
        listen: Callable[[Progress], None] | None,
    ) -> Run:
        """A run that begins when its batches are read."""
        tracker = Tracker(listen)
        models = _Models(self, tracker, max(1, len(_engines_of(plan))))
        rejects = AtomicFile(policy.rejects, file_format(policy.rejects), {}) if policy.rejects is not None else None
        context = Context(self._catalog, models, dict(params), policy, tracker, threading.Event())
        return Run(plan, context, rejects)

    def answered(self, journal: Path, plan: QueryPlan) -> dict[str, Set[bytes]]:
        """Prompts that have answers in a journal of this plan, by the columns of its calls."""
        kept, found = prompts_in(journal), {}
        calls = (call for node in infer_nodes(plan.root) for call in node.calls if call.op != "count_tokens")
        for call in calls if kept else ():
            if self._registry.installed(call.model):
                asks = (task_of(call, prompt) for prompt in prompts(call, self._registry.resolve(call.model)))
                names = {name_of(asked_as(call.model, call.placement, task)) for task in asks}
                found[call.out] = frozenset().union(*(kept.get(name, ()) for name in names))
        return {out: keys for out, keys in found.items() if keys}

    def evidence(
        self,
        policy: ErrorPolicy,
        params: Mapping[str, object],
        listen: Callable[[Progress], None] | None,
        cancelled: threading.Event,
    ) -> EngineEvidence:
        """Answers to samples of rows, for planning; `cancelled` stops it from any thread."""
        tracker = Tracker(listen)
        models = _Models(self, tracker, _LOADED)  # the reference and what is compared with it
        return EngineEvidence(Context(self._catalog, models, dict(params), policy, tracker, cancelled))

    def measure(self, base: Hardware, shape: ModelShape, *, thorough: bool, progress: Measuring | None) -> Hardware:
        """`base` with what this machine does with models of this shape; takes seconds, a minute where `thorough`."""
        if base.kind != "cpu":
            return self._measure_gpu(base, shape, thorough, progress or (lambda label, share: None))
        grid = calibrate.THOROUGH if thorough else calibrate.QUICK
        return calibrate.measure(base, shape, grid, progress or (lambda label, share: None))

    def _measure_gpu(self, base: Hardware, shape: ModelShape, thorough: bool, progress: Measuring) -> Hardware:
        """The same on a GPU, in the memory of idle engines; `base` as it is where others leave too little of it."""
        for key in [key for key, engine in self._engines.items() if engine.idle and engine.options.device != "cpu"]:
            del self._engines[key]
        free_memory(base.kind)
        grid = calibrate_gpu.THOROUGH if thorough else calibrate_gpu.QUICK
        try:
            return calibrate_gpu.measure(base, shape, grid, progress)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return base

    def file(self, path: str, options: Mapping[str, object], plan: QueryPlan) -> AtomicFile:
        """A file for the rows of a plan, to be written in one step.

        Raises BindError for a format that dql does not write or that cannot hold them, and for unknown options.
        """
        options = dict(options)
        asked = options.pop("format", None)
        file_type = file_format(path, str(asked) if asked is not None else None)
        check_columns(file_type, plan.names, plan.types)
        return AtomicFile(path, file_type, checked_options(file_type, options))

    def model(self, name: str, tracker: Tracker) -> Model:
        """The model, pulled if need be."""
        if name not in self._models:
            if not self._registry.installed(name):
                self._registry.pull(name, lambda state: _show_pull(tracker, name, state))
            self._models[name] = self._registry.resolve(name)
            if (notice := self._models[name].notice) is not None:
                tracker.notices.append(notice)
        return self._models[name]

    def engine(
        self, name: str, placement: Placement, tracker: Tracker, sharing: int = 1, beside: Engine | None = None
    ) -> Engine:
        """The model's engine in this placement, loaded if need be, one of `sharing` that a run needs.

        As many are kept, as far as memory goes, and `beside` in any case. Raises UnsupportedError where there is none.
        """
        key = name, placement.device, placement.weights, placement.kv_cache
        if key not in self._engines:
            model = self.model(name, tracker)
            label = name if placement.weights == "fp32" else f"{name} in {placement.weights}"
            tracker.phase("loading", label)

            def compiled(done: int, known: int) -> None:
                tracker.phase("loading", f"{label}, compiling kernels {done}/{known}")

            while len(self._engines) >= max(_LOADED, sharing):
                self._engines.popitem(last=False)
            self._engines[key] = self._load(model, options_for(model.shape, placement, sharing), beside, compiled)
        self._engines.move_to_end(key)
        return self._engines[key]

    def _load(self, model: Model, options: EngineOptions, beside: Engine | None, told: Told) -> Engine:
        """The model, in the place of idle ones beside which the device has too little memory, oldest first."""
        device, loaded = options.device, self._engines.items()
        idle = [key for key, o in loaded if o.idle and o is not beside and o.options.device == device]
        while not roomy(model.shape, options, free_memory(device)) and idle:
            del self._engines[idle.pop(0)]
            gc.collect()  # what an engine holds may refer to itself
        return Engine.load(model, options, told)

    def cancel(self) -> None:
        """Stop every engine's open runs within a step, from any thread."""
        for engine in list(self._engines.values()):
            engine.cancel()

    def forget(self, name: str) -> None:
        """Drop what is loaded under a name that now means something else."""
        self._models.pop(name, None)
        for key in [key for key in self._engines if key[0] == name]:
            del self._engines[key]


@dataclass(frozen=True, slots=True)
class _Models:
    """The runtime's models for one run, with its progress."""

    runtime: Runtime
    tracker: Tracker
    engines: int  # that the run needs

    def model(self, name: str) -> Model:
        return self.runtime.model(name, self.tracker)

    def engine(self, name: str, placement: Placement) -> Engine:
        return self.runtime.engine(name, placement, self.tracker, self.engines)

    def draft(self, name: str, placement: Placement, engine: Engine) -> Engine | None:
        """The engine of a model that guesses ahead for `engine`; None, with a notice, where it does not fit beside."""
        try:
            return self.runtime.engine(name, placement, self.tracker, self.engines, beside=engine)
        except OutOfMemoryError as error:
            notice = f"nothing was guessed ahead by {name}: {error.message}"
            if notice not in self.tracker.notices:
                self.tracker.notices.append(notice)
            return None


def _engines_of(plan: QueryPlan) -> set[tuple[str, str]]:
    """Models and their precisions that a plan asks."""
    calls = (call for node in infer_nodes(plan.root) for call in node.calls if call.op != "count_tokens")
    names = ((call, (call.model, None if call.placement.draft_slots == 0 else call.draft)) for call in calls)
    return {(name, call.placement.weights) for call, both in names for name in both if name is not None}


def _show_pull(tracker: Tracker, name: str, state: PullProgress) -> None:
    if state.notice and state.notice not in tracker.notices:
        tracker.notices.append(state.notice)
    share = f" {state.done / 1e6:.0f} of {state.total / 1e6:.0f} MB" if state.total else ""
    tracker.phase("loading", f"{name}{share}")
