"""`dql doctor`: what this machine has, which settings hold and where each comes from. Loads no model."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dql.config import Config
from dql.errors import DqlError
from dql.planner.devices import cuda_devices, torch_has_cuda
from dql.sanitize import sanitize_cell

_PACKAGES = (
    "duckdb",
    "polars",
    "pyarrow",
    "torch",
    "triton",
    "transformers",
    "tokenizers",
    "safetensors",
    "llguidance",
)
_GIB = 1024**3
_LEAST_FREE = 2 * _GIB  # bytes: room for one small model


@dataclass(frozen=True)
class Finding:
    """One line of the report; `problem` says how to mend what is wrong."""

    section: str
    name: str
    value: str
    problem: str = ""


def run() -> int:
    """Print the report; 1 if anything needs mending."""
    findings = list(examine())
    for line in report(findings):
        print(line)
    return 1 if any(finding.problem for finding in findings) else 0


def examine(environ: dict[str, str] | None = None) -> Iterator[Finding]:
    """Look at versions, hardware, storage and settings, in that order."""
    from dql import __version__

    yield Finding("versions", "dql", __version__)
    yield Finding("versions", "python", f"{platform.python_version()} ({sys.executable})")
    yield from map(_package, _PACKAGES)
    yield Finding("machine", "system", f"{platform.system()} {platform.release()} {platform.machine()}")
    yield _cores()
    yield _memory()
    yield _guarded("machine", "devices", _devices)
    yield from _used()
    try:
        config = Config.load(os.environ if environ is None else environ)
    except DqlError as error:
        yield Finding("settings", "environment", error.message, error.hint or "unset it")
        return
    yield from _storage(config)
    sources = config.sources(os.environ if environ is None else environ)
    for field in fields(config):
        yield Finding("settings", field.name, f"{_shown(getattr(config, field.name))}  ({sources[field.name]})")
    yield Finding("settings", "startup file", _existing(config.startup_file))
    yield Finding("settings", "history", _existing(config.history_file))


def report(findings: list[Finding]) -> Iterator[str]:
    """Findings as aligned lines under section titles."""
    wide = max(len(finding.name) for finding in findings)
    section = ""
    for finding in findings:
        if finding.section != section:
            yield finding.section if not section else f"\n{finding.section}"
            section = finding.section
        mark = "✗" if finding.problem else " "
        yield sanitize_cell(f"{mark} {finding.name:<{wide}}  {finding.value}".rstrip())
        if finding.problem:
            yield sanitize_cell(f"  {'':<{wide}}  → {finding.problem}")


def _package(name: str) -> Finding:
    try:
        return Finding("versions", name, version(name))
    except PackageNotFoundError:
        if name == "triton" and platform.system() != "Linux":
            return Finding("versions", name, "none on this system")
        return Finding("versions", name, "missing", f"pip install {name}")


def _cores() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = os.cpu_count() or usable
    return Finding("machine", "cores", str(usable) if usable == total else f"{usable} of {total}")


def _memory() -> Finding:
    if not hasattr(os, "sysconf"):
        return Finding("machine", "memory", "unknown")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _container_limit()
    bounded = f" (this container may use {limit / _GIB:.1f} GiB)" if limit is not None and limit < total else ""
    return Finding("machine", "memory", f"{total / _GIB:.1f} GiB{bounded}")


def _container_limit() -> int | None:
    path = Path("/sys/fs/cgroup/memory.max")
    text = path.read_text().strip() if path.is_file() else "max"
    return int(text) if text.isdecimal() else None


def _devices() -> str:
    import torch

    count = torch.cuda.device_count()
    if count == 0:
        return "cpu"
    seen = [torch.cuda.get_device_properties(i) for i in range(count)]
    return ", ".join(f"cuda:{i} {d.name} {d.total_memory / _GIB:.0f} GiB" for i, d in enumerate(seen))


def _used() -> Iterator[Finding]:
    """Whether queries use the GPUs that the driver shows; a torch for the CPU is a choice, and no problem."""
    devices = cuda_devices()
    if not devices:
        return
    lacks = devices[0].lacks if torch_has_cuda() else "this torch was built without CUDA, or Triton is missing"
    if lacks is not None:
        yield Finding("machine", "queries run on", f"cpu; {devices[0].name} is not used: {lacks}")
    else:
        more = f" (1 of {len(devices)})" if len(devices) > 1 else ""
        yield Finding("machine", "queries run on", f"{devices[0].name}{more}")


def _guarded(section: str, name: str, look: Callable[[], str]) -> Finding:
    """A finding from code that a broken installation breaks: finding that out is what a doctor is for."""
    try:
        return Finding(section, name, look())
    except (ImportError, OSError, RuntimeError) as error:
        return Finding(section, name, f"{type(error).__name__}: {error}", "pip install --force-reinstall torch")


def _storage(config: Config) -> Iterator[Finding]:
    folder = config.models_dir
    nearest = next(place for place in [folder, *folder.parents] if place.exists())
    writable = os.access(nearest, os.W_OK)
    files = [file for file in folder.rglob("*") if file.is_file() and not file.is_symlink()] if folder.exists() else []
    size = sum(file.stat().st_size for file in files)
    value = f"{folder} ({size / _GIB:.1f} GiB)" if files else f"{folder} (empty)"
    yield Finding("storage", "models", value, "" if writable else "set DQL_HOME to a folder you may write")
    free = shutil.disk_usage(nearest).free
    yield Finding(
        "storage",
        "free disk",
        f"{free / _GIB:.1f} GiB",
        "" if free > _LEAST_FREE else "free some space: models are large",
    )


def _shown(value: object) -> str:
    return "not set" if value in ("", 0) and not isinstance(value, bool) else str(value)


def _existing(path: Path) -> str:
    return str(path) if path.exists() else f"{path} (none yet)"
