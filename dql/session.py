"""A session: one database, one set of settings, the models it has loaded. The one place that knows every stage."""

import re
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dql.catalog import Catalog, TableInfo, is_frame, read_arrow
from dql.certificates import Certificates
from dql.choosing import Choices
from dql.config import Config
from dql.counting import Counts
from dql.errors import BindError, DqlError
from dql.grammar import ast
from dql.grammar.parser import parse
from dql.history import History
from dql.machine import Machine
from dql.models.drafts import check_draft
from dql.models.registry import Registry
from dql.names import Names
from dql.planner.calls import SIGNATURES
from dql.planner.contract import SETTING_KINDS, Value
from dql.result import Result

if TYPE_CHECKING:
    from dql.executor.progress import Progress
    from dql.executor.runtime import Run, Runtime

_SOURCES = re.compile(
    r"(?:\b(?:from|join|copy|summarize|describe)\b|,|\A\s*table\b)\s*\(?\s*\"?([A-Za-z_]\w*)", re.IGNORECASE
)


_ARROW_FILES = re.compile(r"(?:\b(?:from|join)\b|,)\s*\(?\s*'((?:[^']|'')+\.(?:arrow|feather|ipc))'", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as SHOW SETTINGS lists it."""

    name: str
    value: str
    default: str
    unit: str
    description: str


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """An inference function: how it is called, what it does."""

    name: str
    signature: str
    description: str


class Session:
    """Runs DQL. `path` is a DuckDB file for tables and views that last; without one all is in memory.

    Not for several threads at once, but for `cancel`.
    """

    def __init__(self, path: str | None = None, *, config: Config | None = None) -> None:
        self.config = config or Config.load()
        self.catalog = Catalog(path, self.config)
        self.registry = Registry(self.config.models_dir, offline=self.config.offline)
        self.machine = Machine(self.config)
        self.history = History(self.config.runs_file)
        self.certificates = Certificates(self.config.certificates_dir)
        self.counts = Counts()
        self.choices = Choices()
        self.settings_in_force: dict[str, Value] = {}
        self.model = self.config.model
        self.names = Names(self.catalog, lasting=path is not None and path != ":memory:")
        self.names.load()
        self._runtime: Runtime | None = None
        self._running: Run | None = None
        self.cancelled = threading.Event()  # asked for since the running statement began
        self._from_caller: set[str] = set()

    def query(
        self,
        text: str,
        params: Mapping[str, object] | None = None,
        tables: Mapping[str, object] | None = None,
        *,
        progress: "Callable[[Progress], None] | None" = None,
    ) -> Result:
        """The result of the last statement of `text`; earlier ones run. It is lazy unless it has effects.

        `params` fill `$name`; `tables` are frames by name, and frames of the caller are found by their variable's
        name. Raises ParseError, BindError, PlanError or UnsupportedError before anything runs; what only answers about
        some rows can tell (whether they keep a bound on quality) is told when the result's rows are asked for.
        """
        frame = sys._getframe(1)
        return self.query_from(text, params, tables, ChainMap(frame.f_locals, frame.f_globals), progress)

    def query_from(
        self,
        text: str,
        params: Mapping[str, object] | None,
        tables: Mapping[str, object] | None,
        variables: Mapping[str, object],
        progress: "Callable[[Progress], None] | None" = None,
    ) -> Result:
        """`query` for wrappers: `variables` are where frames are looked up."""
        last: Result | None = None
        for result in self.run(text, params, tables, variables=variables, progress=progress):
            if last is not None:
                last.arrow()
            last = result
        if last is None:
            raise BindError("there is no statement in the text")
        return last

    def run(
        self,
        text: str,
        params: Mapping[str, object] | None = None,
        tables: Mapping[str, object] | None = None,
        *,
        variables: Mapping[str, object] | None = None,
        progress: "Callable[[Progress], None] | None" = None,
    ) -> Iterator[Result]:
        """One result per statement, in order; a statement starts when its result is asked for.

        `cancel` reaches them from now on, also before the first has started.
        """
        self.cancelled.clear()
        return self._results(text, params or {}, tables or {}, variables or {}, progress)

    def _results(
        self,
        text: str,
        params: Mapping[str, object],
        tables: Mapping[str, object],
        variables: Mapping[str, object],
        progress: "Callable[[Progress], None] | None",
    ) -> Iterator[Result]:
        from dql.statements import execute

        for name, frame in tables.items():
            self.catalog.register(name, frame)
            self._from_caller.discard(name)
        running: ast.Span | None = None
        try:
            names = frozenset(self.names.macros), frozenset(self.names.views)
            statements = parse(text, *names)
            for number in range(len(statements)):
                now = frozenset(self.names.macros), frozenset(self.names.views)
                if now != names:  # an earlier statement has changed which names hold inference
                    names, statements = now, parse(text, *now)
                statement = statements[number]
                running = statement.span
                if self.cancelled.is_set():
                    raise KeyboardInterrupt
                self._find_frames(text[slice(*running)], variables)
                yield execute(statement, self, text, params, progress)
        except DqlError as error:
            raise error.located(text, running) from error.__cause__

    def cancel(self) -> None:
        """Stop the running query, from any thread; its finished rows are kept."""
        self.cancelled.set()
        if self._running is not None:
            self._running.context.cancelled.set()
        if self._runtime is not None:
            self._runtime.cancel()
        self.catalog.interrupt()

    def close(self) -> None:
        """Let go of the database and the models."""
        self._runtime = None
        self.catalog.close()

    # ---- what there is ------------------------------------------------------------------------------------------

    def models(self) -> Registry:
        """The models known on this machine."""
        return self.registry

    def tables(self) -> list[TableInfo]:
        """Tables, views and frames with their columns; views with inference have none listed."""
        views = [TableInfo(name, "view", ()) for name in self.names.views]
        return [*self.catalog.tables(), *views]

    def settings(self) -> list[Setting]:
        """Every setting with its value in this session."""
        units = {"seconds": "ms s min h", "share_or_count": "% or rows"}
        found = [Setting("model", self.model, self.config.model, "", "the model of calls that name none")]
        for kind in SETTING_KINDS.values():
            value = self.settings_in_force.get(kind.name, kind.default)
            found.append(
                Setting(kind.name, _shown(value), _shown(kind.default), units.get(kind.kind, ""), kind.meaning)
            )
        return found

    def functions(self) -> list[FunctionInfo]:
        """Inference functions, built in and of this session."""
        built_in = [
            FunctionInfo(name, s.usage.replace(s.name, name), f"{s.op}; yields {s.type}")
            for name, s in SIGNATURES.items()
        ]
        own = [
            FunctionInfo(name, f"{name}({', '.join(p.name for p in macro.params)})", "function of this session")
            for name, macro in self.names.macros.items()
        ]
        return [*built_in, *own]

    # ---- for the statements -------------------------------------------------------------------------------------

    @property
    def runtime(self) -> "Runtime":
        """The executor; imported here alone, so that nothing else loads torch."""
        if self._runtime is None:
            from dql.executor.runtime import Runtime

            self._runtime = Runtime(self.registry, self.catalog, self.config.num_threads)
        return self._runtime

    def check_model(self, ref: ast.ModelRef) -> str:
        """The name to run a model by. Raises BindError with near names for one that does not exist."""
        try:
            self.registry.installed(ref.name)
        except DqlError as error:
            error.span = error.span or (ref.span if ref.span != (0, 0) else None)
            raise
        return ref.name

    def check_draft(self, model: str, draft: str) -> None:
        """Raises UnsupportedError where one model cannot guess ahead for another; both are known by name.

        A model that is yet to be fetched is looked at when the run has it.
        """
        if all(self.registry.installed(name) for name in (model, draft)):
            check_draft(self.registry.resolve(model), self.registry.resolve(draft))

    def forget(self, model: str) -> None:
        """Drop what is loaded of a model whose name changed its meaning."""
        self.counts.clear()
        if self._runtime is not None:
            self._runtime.forget(model)

    def watch(self, run: "Run") -> None:
        """Let `cancel` reach this run."""
        self._running = run
        if self.cancelled.is_set():
            run.context.cancelled.set()

    def _find_frames(self, text: str, variables: Mapping[str, object]) -> None:
        """Register the caller's frames that the text reads from; tables of the session and given ones come first."""
        for path in {match[1].replace("''", "'") for match in _ARROW_FILES.finditer(text)}:
            self.catalog.register(path, read_arrow(path))  # DuckDB takes a path of no kind it knows for a table's name
        for name in {match[1] for match in _SOURCES.finditer(text)}:
            if name not in variables or not is_frame(variables[name]):
                continue
            if self.catalog.has_table(name):
                if name in self._from_caller:
                    self.catalog.unregister(name)
                    self._from_caller.remove(name)
            elif name in self._from_caller or not self.catalog.has_frame(name):
                self.catalog.register(name, variables[name])
                self._from_caller.add(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _shown(value: Value) -> str:
    if value is None:
        return ""
    return (
        ", ".join(value) if isinstance(value, tuple) else str(value).lower() if isinstance(value, bool) else str(value)
    )
