"""`dql models pull | ls | show | rm`. Reads headers only: no weights, no database, no torch."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dql.config import Config
from dql.models.fetch import PullProgress
from dql.models.model import Model
from dql.models.registry import ModelInfo, Registry
from dql.sanitize import sanitize_cell

_REDRAW = 0.1  # seconds between frames on a terminal
_LINE_EVERY = 10.0  # seconds between lines elsewhere


def pull(name: str, *, quiet: bool) -> None:
    """Fetch a model, showing how far it is. Raises DqlError."""
    registry = _registry()
    if registry.installed(name):
        print(f"{name} is on this machine already")
        return
    notice = registry.describe(name).notice if name in {info.name for info in registry.list()} else ""
    if notice:
        print(sanitize_cell(notice), file=sys.stderr)
    display = _PullDisplay(quiet=quiet)
    try:
        model = registry.pull(name, display)
    finally:
        display.close()
    if model.notice is not None:
        print(sanitize_cell(model.notice), file=sys.stderr)
    print(f"{name}: {_size(model.weight_bytes)}, sha256 {model.digest[:12]}…, ready: USING {_reference(name)}")


def ls() -> None:
    """Print the known models, one a line."""
    models = sorted(_registry().list(), key=lambda info: (not info.installed, info.name))
    rows = [("name", "here", "size", "license", "source"), *map(_row, models)]
    for line in _aligned(rows):
        print(line)


def show(name: str) -> None:
    """Print what is known about one model."""
    registry = _registry()
    known = {info.name: info for info in registry.list()}
    info = known.get(name.lower())
    facts = [] if info is None else _facts(info)
    if info is None or info.installed:
        facts += _shape_facts(registry.resolve(name))
    for line in _aligned(facts):
        print(line)


def rm(name: str) -> None:
    """Remove a model's files, or forget a registration."""
    _registry().remove(name)
    print(f"{name} removed")


def _registry() -> Registry:
    config = Config.load()
    return Registry(config.models_dir, offline=config.offline)


def _row(info: ModelInfo) -> tuple[str, ...]:
    return info.name, "yes" if info.installed else "no", _size(info.size), info.license or "?", _source(info)


def _source(info: ModelInfo) -> str:
    return info.description if info.kind == "built-in" else info.uri


def _facts(info: ModelInfo) -> list[tuple[str, ...]]:
    facts = [("name", info.name), ("about", info.description), ("license", info.license or "?")]
    facts += [("on this machine", "yes" if info.installed else f"no: dql models pull {info.name}")]
    return [fact for fact in facts if fact[1]]


def _shape_facts(model: Model) -> list[tuple[str, ...]]:
    shape = model.shape
    heads = f"{shape.num_heads} query, {shape.num_kv_heads} key-value, {shape.head_dim} wide"
    return [
        ("path", _from_home(model.path)),
        ("format", f"{model.format}, {_size(model.weight_bytes)}"),
        ("sha256", model.digest),
        ("architecture", shape.architecture),
        ("layers", f"{shape.num_layers}, {shape.hidden_size} wide"),
        ("heads", heads),
        ("vocabulary", f"{shape.vocab_size:,} tokens"),
        ("context", f"{shape.context_length:,} tokens"),
        ("can", "embed" if model.is_encoder else "continue text (base model)" if model.is_base else "chat, score"),
    ]


def _from_home(path: Path) -> str:
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    clean = [[sanitize_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in clean) for column in range(len(clean[0]) - 1)]
    return ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]) for row in clean]


def _size(size: int | None) -> str:
    if size is None:
        return "?"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _reference(name: str) -> str:
    return name if name.isidentifier() else f"'{name}'"


class _PullDisplay:
    """A line on stderr: redrawn on a terminal, now and then elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._next = time.monotonic() + (0.0 if self._live else _LINE_EVERY)
        self._drawn = False

    def __call__(self, state: PullProgress) -> None:
        now = time.monotonic()
        if self._quiet or now < self._next:
            return
        self._next = now + (_REDRAW if self._live else _LINE_EVERY)
        share = f"{_size(state.done)} of {_size(state.total)}" if state.total else _size(state.done)
        line = f"fetching {sanitize_cell(state.name)}: {share}"
        print(f"\r\x1b[K{line}" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)
        self._drawn = self._live

    def close(self) -> None:
        """Wipe the line."""
        if self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
