"""What a machine can do, as plain data: sizes, speeds, prices. Measured here, or taken from a shipped profile.

An operator's time is its speed of light (the larger of operations ÷ peak and bytes ÷ bandwidth) divided by the share of
it that the operator reaches, interpolated over its size: the method of NVIDIA's AIConfigurator, see docs/planner.md.
"""

import json
import os
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dql.errors import ConfigError, name_hint
from dql.models.shape import ModelShape

Floats = NDArray[np.float64]
Drawing = Literal["best", "told", "drawn"]  # tokens alone, with their log-probabilities, or drawn at a temperature
Kind = Literal["cpu", "cuda"]
Progress = Callable[[str, float], None]  # what is measured now, share done

FORMAT = 5  # of the files; those of another are measured anew
BYTES_PER_VALUE = {"fp32": 4.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.5625}  # int4: with its group scales
BUSY = 0.3  # share of the cores used by others from which figures are those of a busy machine
_NAME = re.compile(r"([a-z][a-z0-9-]*?)(?::(\d+))?", re.IGNORECASE)
_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
_DRIVER_VERSION = Path("/proc/driver/nvidia/version")
_DRIVER = re.compile(r"\d{3,}(\.\d+)+")
_INSTRUCTIONS = {  # of x86, any of which a precision needs
    "bf16": frozenset({"avx512_bf16", "amx_bf16"}),
    "int8": frozenset({"avx512_vnni", "avx_vnni", "amx_int8"}),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """A figure over a size: points (size, value) by rising size, linear in the logarithm, held beyond both ends."""

    points: tuple[tuple[float, float], ...]

    def __call__(self, size: ArrayLike) -> Floats:
        sizes, values = zip(*self.points, strict=True)
        found: Floats = np.interp(np.log2(np.maximum(size, 1e-9)), np.log2(sizes), values)
        return found


FLAT = Curve(((1.0, 1.0),))


@dataclass(frozen=True, slots=True)
class Operators:
    """Shares of the speed of light at one precision.

    linear: all matrices of a layer, over the tokens of a step. head: the LM head, over its rows. own_attention: prompt
    tokens over their own row, over the row's tokens. shared_attention: tokens over a shared run, over the number of
    tokens. decode_attention: decoding rows over their own keys, over the keys that are read. told, drawn: no shares,
    but by what factor the head takes longer that also says how probable its tokens are, or draws them at a temperature.
    """

    linear: Curve
    head: Curve = FLAT
    own_attention: Curve = FLAT
    shared_attention: Curve = FLAT
    decode_attention: Curve = FLAT
    told: Curve = FLAT
    drawn: Curve = FLAT

    def drawing(self, how: Drawing, rows: Floats) -> Floats:
        """By what factor the head takes longer than for the best tokens alone."""
        found: Floats = np.ones_like(rows) if how == "best" else (self.told if how == "told" else self.drawn)(rows)
        return found


@dataclass(frozen=True, slots=True)
class Slowdown:
    """By what factor a step takes longer with `deterministic = true`.

    prompts: steps that read prompts, over their tokens. decoding: others, over their decoding rows. shared: what each
    token of a shared run adds to the factor of prompts below it, which read it one by one.
    """

    prompts: Curve = Curve(((32.0, 1.2), (256.0, 1.5), (1024.0, 1.6)))
    decoding: Curve = Curve(((1.0, 2.4), (8.0, 1.9), (32.0, 1.5)))
    shared: float = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One kind of machine.

    memory: bytes of each device. bandwidth: bytes per second. peak: operations per second by precision. operators: by
    precision, and by 'precision shape' where that model's shape was measured. Seconds: step_seconds for each step,
    layer_seconds for each layer of a step, row_seconds for each decoding row of a step, start_seconds for each row,
    call_seconds for each call of attention over prompts in a layer, launch_seconds for each layer of a step with
    prompts, which a device is told launch by launch. overlap: the share of the processor's seconds for a step, or of
    the device's where these are fewer, that pass while the other works.
    all_reduce: bytes → seconds between two devices or more. price: USD per device-hour, None where nobody said.
    spread: half-width of a prediction's interval as a share of it. load: share of the cores that others used meanwhile.
    sway: by what share one step in twenty took longer than its like. deterministic: what that setting costs.
    """

    name: str
    kind: Kind
    devices: int = 1
    cores: int = 1
    memory: float
    bandwidth: float
    peak: Mapping[str, float]
    operators: Mapping[str, Operators]
    step_seconds: float
    layer_seconds: float = 0.0
    row_seconds: float = 0.0
    start_seconds: float = 0.0
    call_seconds: float = 0.0
    launch_seconds: float = 0.0
    overlap: float = 0.0
    tokenize: float = 1e6
    all_reduce: Curve = Curve(((1.0, 0.0),))
    price: float | None = None
    source: Literal["measured", "datasheet"] = "datasheet"
    spread: float = 0.3
    load: float = 0.0
    sway: float = 0.0
    deterministic: Slowdown = Slowdown()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""

    def __str__(self) -> str:
        if self.kind == "cpu":
            return f"{self.name} ({self.cores} core{'s' if self.cores != 1 else ''})"
        return self.name if self.devices == 1 else f"{self.name}:{self.devices}"

    @property
    def shipped(self) -> bool:
        """Whether it is a profile of a machine that need not be here."""
        return not self.versions

    def measured_for(self, precision: str, shape: ModelShape) -> bool:
        """Whether the operators were measured at this model's own shapes."""
        return f"{precision} {layer_key(shape)}" in self.operators

    def operators_for(self, precision: str, shape: ModelShape) -> Operators:
        """The operators at this model's shapes, else those of the precision in general."""
        return self.operators.get(f"{precision} {layer_key(shape)}") or self.operators[precision]

    def to_json(self) -> str:
        """The profile as a file holds it, a curve to a line."""
        data = {"format": FORMAT, **asdict(self), "all_reduce": self.all_reduce.points}
        slower = self.deterministic
        data["deterministic"] = {name: getattr(slower, name).points for name in ("prompts", "decoding")}
        data["deterministic"]["shared"] = slower.shared
        data["operators"] = {
            key: {name: getattr(operators, name).points for name in operators.__slots__}
            for key, operators in self.operators.items()
        }
        return _indented(data) + "\n"


def from_json(text: str) -> Hardware:
    """A profile from its file. Raises ConfigError for what is none."""
    try:
        data = json.loads(text)
        if data.pop("format") != FORMAT:
            raise ValueError("another version of dql wrote it")
        operators = {
            key: Operators(**{name: _curve(points) for name, points in curves.items()})
            for key, curves in data.pop("operators").items()
        }
        reduce = _curve(data.pop("all_reduce"))
        slower = data.pop("deterministic", None)
        if slower is not None:
            prompts, decoding = _curve(slower["prompts"]), _curve(slower["decoding"])
            data["deterministic"] = Slowdown(prompts, decoding, float(slower["shared"]))
        return Hardware(operators=operators, all_reduce=reduce, **data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"not a hardware profile: {error}", hint="dql calibrate writes it anew") from error


def _indented(value: object, depth: int = 1) -> str:
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value)
    lines = [f"{' ' * depth}{json.dumps(key)}: {_indented(item, depth + 1)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * (depth - 1) + "}"


def _curve(points: list[list[float]]) -> Curve:
    if not points:
        raise ValueError("a curve has no points")
    return Curve(tuple((float(size), float(value)) for size, value in points))


def layer_key(shape: ModelShape) -> str:
    """The widths that decide how fast a layer runs."""
    return f"{shape.hidden_size}x{shape.query_size}x{shape.kv_size}x{shape.intermediate_size}"


# ---- profiles that ship ------------------------------------------------------------------------------------------


def shipped() -> list[str]:
    """Names of the profiles of machines that need not be here."""
    folder = resources.files("dql.planner") / "profiles"
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))


def hardware_named(text: str, prices: Mapping[str, float] = MappingProxyType({})) -> Hardware:
    """The shipped profile that 'h100' or 'h100:8' names; `prices` by profile replace its USD per device-hour.

    Raises ConfigError that lists the profiles.
    """
    found = _NAME.fullmatch(text.strip())
    names = shipped()
    if unknown := next((name for name in prices if name not in names), None):
        raise ConfigError(f"a price for {unknown!r}, which is no hardware profile", hint=name_hint(unknown, names))
    if found is None or found[1].lower() not in names:
        raise ConfigError(f"no hardware profile {text!r}", hint=name_hint(found[1] if found else text, names))
    count = int(found[2] or 1)
    if not 1 <= count <= 1024:
        raise ConfigError(f"{count} devices cannot be planned for", hint="name 1 to 1024, such as h100:8")
    hardware = from_json((resources.files("dql.planner") / "profiles" / f"{found[1].lower()}.json").read_text())
    return replace(hardware, devices=count, price=prices.get(hardware.name, hardware.price))


# ---- this machine ------------------------------------------------------------------------------------------------


def this_cpu(threads: int) -> Hardware:
    """This machine before anything was measured on it: its own sizes, and the shipped CPU's speeds by core."""
    typical = hardware_named("cpu-8")
    share = threads / typical.cores
    offered = cpu_precisions()
    return replace(
        typical,
        name="cpu",
        cores=threads,
        memory=float(total_memory()),
        bandwidth=typical.bandwidth * min(1.0, share * 2),
        peak={precision: peak * share for precision, peak in typical.peak.items() if precision in offered},
        price=None,
        versions=cpu_versions(threads),
        notes=f"not measured; {typical.name} scaled to {threads} cores",
    )


def cpu_versions(threads: int) -> dict[str, str]:
    """What a measured profile holds for: it is stale where any of these differs."""
    return {"cpu": _cpu_model(), "threads": str(threads), "torch": _version("torch"), "dql": _version("dql-engine")}


def gpu_versions(name: str) -> dict[str, str]:
    """What a profile measured on the GPU of this name holds for: it is stale where any of these differs."""
    found = _DRIVER.search(_DRIVER_VERSION.read_text()) if _DRIVER_VERSION.exists() else None
    packages = {"torch": _version("torch"), "triton": _version("triton"), "dql": _version("dql-engine")}
    return {"gpu": name, "driver": "unknown" if found is None else found[0], **packages}


def cpu_precisions() -> tuple[str, ...]:
    """Precisions of weights that this processor multiplies by itself; others would be slower than fp32."""
    flags = _cpu_flags()
    return ("fp32", *(name for name, wanted in _INSTRUCTIONS.items() if flags & wanted))


def total_memory() -> int:
    """Bytes of memory of this machine, the container's limit counted in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total


def _cpu_model() -> str:
    return _cpu_field("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> frozenset[str]:
    return frozenset(_cpu_field("flags").split())


def _cpu_field(name: str) -> str:
    """What Linux says of the first core; '' elsewhere."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
