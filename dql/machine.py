"""This machine as the planner sees it: its profile, kept in the user's folder, measured anew when that is stale."""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Protocol

from dql.config import Config
from dql.errors import ConfigError
from dql.models.shape import ModelShape
from dql.planner.contract import Contract
from dql.planner.devices import Device, cuda_devices, off_gpu, this_gpu, torch_has_cuda
from dql.planner.hardware import BUSY, Hardware, Kind, Progress, from_json, hardware_named, shipped, this_cpu

_REFERENCE: Mapping[Kind, str] = {"cpu": "fp32", "cuda": "bf16"}  # the precision that every profile measures
_CALM = 0.7  # load a core below which a machine that was busy is worth measuring again
_LOG = logging.getLogger("dql")


class Bench(Protocol):
    """What can measure this machine: the runtime."""

    def measure(self, base: Hardware, shape: ModelShape, *, thorough: bool, progress: Progress | None) -> Hardware: ...


class Machine:
    """One machine's profile. Nothing is measured before it is asked for.

    find: the GPUs that torch could use.
    """

    def __init__(self, config: Config, find: Callable[[], Sequence[Device]] | None = None) -> None:
        self._config = config
        self._find = find or usable_devices
        self._devices: tuple[Device, ...] | None = None
        self._known: dict[Kind, Hardware] = {}
        self.seconds = 0.0  # that measuring took so far

    @property
    def path(self) -> Path:
        """Where the CPU's profile is kept."""
        return self._profile(f"cpu-{self._config.num_threads}")

    @property
    def gpu_path(self) -> Path | None:
        """Where the profile of the GPU that queries run on is kept; None where they run on the CPU."""
        gpu = self._typical("cuda")
        return None if gpu is None else self._profile(re.sub(r"[^a-z0-9]+", "-", gpu.name.lower()).strip("-"))

    @property
    def devices(self) -> tuple[Device, ...]:
        """The GPUs of this machine, looked for once."""
        if self._devices is None:
            self._devices = tuple(self._find())
        return self._devices

    def hardware(self) -> Hardware:
        """What queries run on: the first GPU where it runs dql's kernels, else the CPU."""
        return self.gpu() or self.cpu()

    def hardware_for(self, shapes: Iterable[ModelShape], contract: Contract) -> Hardware:
        """What a query that asks models of these shapes runs on; the notes say why where it is not the GPU."""
        found = self.hardware()
        if found.kind == "cpu" or (why := off_gpu(shapes, contract)) is None:
            return found
        cpu = self.cpu()
        return replace(cpu, notes=f"{cpu.notes}; not on the GPU: {why}")

    def cpu(self) -> Hardware:
        """The stored profile, or typical figures where there is none that holds for this machine and these packages."""
        found = self._held("cpu")
        assert found is not None
        return found

    def gpu(self) -> Hardware | None:
        """The same of the GPU that queries run on; None where they run on the CPU."""
        return self._held("cuda")

    def stale(self, kind: Kind = "cpu") -> str | None:
        """Why the stored profile no longer holds; None where it does or there is none."""
        path, typical = self._path(kind), self._typical(kind)
        try:
            if path is None or typical is None or not path.exists():
                return None
            stored, now = from_json(path.read_text()).versions, typical.versions
        except ConfigError as error:
            return error.message
        except (OSError, UnicodeDecodeError) as error:
            return f"it cannot be read: {error}"
        changed = [
            f"{name} {stored.get(name, 'unknown')} is now {now[name]}" for name in now if stored.get(name) != now[name]
        ]
        return ", ".join(changed) or None

    def lacks(self, shapes: Iterable[ModelShape], kind: Kind = "cpu") -> bool:
        """Whether a shape was never measured there, or on a CPU only while a machine that is calm now was busy."""
        hardware = self._held(kind)
        if hardware is None:
            return False
        wanted = [shape for shape in shapes if _measurable(shape, kind)]
        if not all(hardware.source == "measured" and hardware.measured_for(_REFERENCE[kind], s) for s in wanted):
            return True
        return hardware.load > BUSY and os.getloadavg()[0] / hardware.cores < _CALM

    def measure(
        self,
        bench: Bench,
        shapes: Iterable[ModelShape],
        *,
        kind: Kind = "cpu",
        thorough: bool = False,
        progress: Progress | None = None,
    ) -> Hardware:
        """Measure the CPU, or the GPU, at the shapes that are not known (all, where `thorough`) and keep the profile.

        Where it cannot be written it holds for this session.
        """
        hardware, typical, path = self._held(kind), self._typical(kind), self._path(kind)
        assert hardware is not None and typical is not None and path is not None
        if thorough or hardware.load > BUSY:  # figures of a busy machine are no unit for others
            hardware = replace(typical, price=hardware.price)
        began = perf_counter()
        for shape in shapes:
            if not hardware.measured_for(_REFERENCE[kind], shape) and _measurable(shape, kind):
                hardware = bench.measure(hardware, shape, thorough=thorough, progress=progress)
        self.seconds += perf_counter() - began
        self._known[kind] = hardware
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(hardware.to_json())
            part.replace(path)
        except OSError as error:
            _LOG.warning("the profile of this machine is not kept: %s", error)
        return replace(hardware, price=self._config.price_per_hour or None)

    def others(self) -> list[Hardware]:
        """The machines that EXPLAIN (ON …) takes, one device of each, at the user's prices."""
        return [hardware_named(name, self._config.device_prices) for name in shipped()]

    def _held(self, kind: Kind) -> Hardware | None:
        """The best figures there are."""
        if kind not in self._known:
            found = self._stored(kind) or self._typical(kind)
            if found is None:
                return None
            self._known[kind] = found
        return replace(self._known[kind], price=self._config.price_per_hour or None)

    def _typical(self, kind: Kind) -> Hardware | None:
        """Figures of nothing measured here."""
        threads = self._config.num_threads
        return this_cpu(threads) if kind == "cpu" else this_gpu(self.devices, threads)

    def _path(self, kind: Kind) -> Path | None:
        return self.path if kind == "cpu" else self.gpu_path

    def _profile(self, name: str) -> Path:
        return self._config.home / "profiles" / f"{name}.json"

    def _stored(self, kind: Kind) -> Hardware | None:
        path = self._path(kind)
        if path is None or self.stale(kind) is not None or not path.exists():
            return None
        return from_json(path.read_text())


def usable_devices() -> tuple[Device, ...]:
    """The GPUs that the installed torch can use."""
    return cuda_devices() if torch_has_cuda() else ()


def _measurable(shape: ModelShape, kind: Kind) -> bool:
    """Whether there are operators to measure: on a GPU those of decoders that dql's kernels run."""
    return kind == "cpu" or (shape.causal and not shape.generic)
