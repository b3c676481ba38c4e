"""How far a query is: a snapshot for whoever watches, at most ten a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

_INTERVAL = 0.1  # seconds between two snapshots


@dataclass(frozen=True, slots=True)
class Progress:
    """A query's state at one moment. Rows are those of the inference stage that runs; `rows_total` None is unknown."""

    rows_done: int = 0
    rows_total: int | None = None
    rows_failed: int = 0
    calls_reused: int = 0
    tokens_prefilled: int = 0
    tokens_reused: int = 0
    tokens_decoded: int = 0
    seconds: float = 0.0
    phase: str = "planning"
    label: str = ""


@dataclass
class Tracker:
    """Collects counts and hands out snapshots; `listen` None costs nothing. notices: what users must be told."""

    listen: Callable[[Progress], None] | None = None
    state: Progress = field(default_factory=Progress)
    notices: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _shown: float = 0.0

    def phase(self, phase: str, label: str = "", rows_total: int | None = None) -> None:
        """Enter a phase; shown at once."""
        self.state = replace(self.state, phase=phase, label=label, rows_total=rows_total or self.state.rows_total)
        self._show(force=True)

    def update(self, **counts: int) -> None:
        """Set counts; shown when the last snapshot is old enough."""
        self.state = replace(self.state, **counts)  # type: ignore[arg-type]
        self._show()

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if self.listen is None or (not force and now - self._shown < _INTERVAL):
            return
        self._shown = now
        self.listen(replace(self.state, seconds=now - self._started))
