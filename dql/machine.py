"""This machine as the planner sees it: its profile, kept in the user's folder, measured anew when that is stale."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dql.config import Config
from dql.errors import ConfigError
from dql.models.shape import ModelShape
from dql.planner.contract import Contract
from dql.planner.devices import Device, cuda_devices, off_gpu, this_gpu, torch_has_cuda
from dql.planner.hardware import Hardware, Progress, cpu_versions, from_json, this_cpu

_REFERENCE = "fp32"
_BUSY, _CALM = 1.3, 0.7  # processes a core
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
        self._known: Hardware | None = None

    @property
    def path(self) -> Path:
        return self._config.home / "profiles" / f"cpu-{self._config.num_threads}.json"

    @property
    def devices(self) -> tuple[Device, ...]:
        """The GPUs of this machine, looked for once."""
        if self._devices is None:
            self._devices = tuple(self._find())
        return self._devices

    def hardware(self) -> Hardware:
        """What queries run on: the first GPU where it runs dql's kernels, else the CPU."""
        gpu = this_gpu(self.devices, self._config.num_threads)
        return self.cpu() if gpu is None else replace(gpu, price=self._config.price_per_hour or None)

    def hardware_for(self, shapes: Iterable[ModelShape], contract: Contract) -> Hardware:
        """What a query that asks models of these shapes runs on; the notes say why where it is not the GPU."""
        found = self.hardware()
        if found.kind == "cpu" or (why := off_gpu(shapes, contract)) is None:
            return found
        cpu = self.cpu()
        return replace(cpu, notes=f"{cpu.notes}; not on the GPU: {why}")

    def cpu(self) -> Hardware:
        """The stored profile, or typical figures where there is none that holds for this machine and these packages."""
        if self._known is None:
            self._known = self._stored() or this_cpu(self._config.num_threads)
        return replace(self._known, price=self._config.price_per_hour or None)

    def stale(self) -> str | None:
        """Why the stored profile no longer holds; None where it does or there is none."""
        try:
            if not self.path.exists():
                return None
            stored, now = from_json(self.path.read_text()).versions, cpu_versions(self._config.num_threads)
        except ConfigError as error:
            return error.message
        except (OSError, UnicodeDecodeError) as error:
            return f"it cannot be read: {error}"
        changed = [
            f"{name} {stored.get(name, 'unknown')} is now {now[name]}" for name in now if stored.get(name) != now[name]
        ]
        return ", ".join(changed) or None

    def lacks(self, shapes: Iterable[ModelShape]) -> bool:
        """Whether a shape was never measured on the CPU, or only while a machine that is calm now was busy."""
        hardware = self.cpu()
        if hardware.source != "measured" or not all(hardware.measured_for(_REFERENCE, shape) for shape in shapes):
            return True
        return hardware.load > _BUSY and os.getloadavg()[0] / hardware.cores < _CALM

    def measure(
        self,
        bench: Bench,
        shapes: Iterable[ModelShape],
        *,
        thorough: bool = False,
        progress: Progress | None = None,
    ) -> Hardware:
        """Measure the CPU at the shapes that are not known (all, where `thorough`) and keep the profile.

        Where it cannot be written it holds for this session.
        """
        hardware = self.cpu()
        if thorough or hardware.load > _BUSY:  # figures of a busy machine are no unit for others
            hardware = replace(this_cpu(self._config.num_threads), price=hardware.price)
        for shape in shapes:
            if not hardware.measured_for(_REFERENCE, shape):
                hardware = bench.measure(hardware, shape, thorough=thorough, progress=progress)
        self._known = hardware
        part = self.path.with_suffix(f".{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(hardware.to_json())
            part.replace(self.path)
        except OSError as error:
            _LOG.warning("the profile of this machine is not kept: %s", error)
        return self.cpu()

    def _stored(self) -> Hardware | None:
        if self.stale() is not None or not self.path.exists():
            return None
        return from_json(self.path.read_text())


def usable_devices() -> tuple[Device, ...]:
    """The GPUs that the installed torch can use."""
    return cuda_devices() if torch_has_cuda() else ()
