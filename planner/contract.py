"""What the user may demand of a query: bounds, an objective, settings; their units, directions and values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from dql.errors import BindError, ConfigError, name_hint
from dql.planner.optimizer import RULES

Span = tuple[int, int]

Scalar = float | int | str | bool | None
Value = Scalar | tuple[str, ...]

SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
BYTES = {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "KB": 1e3, "MB": 1e6, "GB": 1e9}
SHARE = {"%": 0.01, "": 1.0}


@dataclass(frozen=True, slots=True)
class BoundKind:
    """One kind of bound: its side, its units (unit → factor to the base unit), what may stand beside its name."""

    name: str
    upper: bool
    units: Mapping[str, float]
    qualifiers: tuple[str, ...] = ()
    example: str = ""


_PERCENTILES = ("p50", "p90", "p95", "p99")
BOUND_KINDS = {
    kind.name: kind
    for kind in (
        BoundKind("latency", True, SECONDS, _PERCENTILES, "latency < 200ms"),
        BoundKind("ttft", True, SECONDS, _PERCENTILES, "ttft < 80ms"),
        BoundKind("tpot", True, SECONDS, _PERCENTILES, "tpot < 20ms"),
        BoundKind("throughput", False, {"rows/s": 1.0, "tokens/s": 1.0}, (), "throughput > 50 rows/s"),
        BoundKind("deadline", True, SECONDS, (), "deadline < 10min"),
        BoundKind("cost", True, {"USD": 1.0}, (), "cost < 2 USD"),
        BoundKind("quality", False, SHARE, ("token",), "quality >= 0.95"),
        BoundKind("memory", True, BYTES, (), "memory < 16GiB"),
        BoundKind("budget", True, {"tokens": 1.0}, (), "budget < 1000000 tokens"),
    )
}

OBJECTIVES = {("minimize", "cost"), ("minimize", "latency"), ("maximize", "quality"), ("maximize", "throughput")}


@dataclass(frozen=True, slots=True)
class SettingKind:
    """One setting: its default, its type, the units it takes, and what values are allowed."""

    name: str
    default: Scalar
    kind: Literal["int", "float", "bool", "str", "share_or_count", "seconds", "strings", "rules"]
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


SETTING_KINDS = {
    kind.name: kind
    for kind in (
        SettingKind("max_tokens", 128, "int", "most tokens a generation may have", low=1),
        SettingKind("temperature", 0.0, "float", "0 is greedy; above it answers are sampled", low=0, high=10),
        SettingKind(
            "top_p", 1.0, "float", "sample from the smallest set of tokens with this probability", low=0, high=1
        ),
        SettingKind("top_k", 0, "int", "sample from the k likeliest tokens; 0 is all", low=0),
        SettingKind("min_p", 0.0, "float", "drop tokens below this share of the likeliest", low=0, high=1),
        SettingKind("stop", None, "strings", "texts that end a generation"),
        SettingKind("seed", None, "int", "makes sampling a function of the prompt", low=0),
        SettingKind(
            "quantization", None, "str", "precision of weights", choices=("fp32", "bf16", "fp8", "int8", "int4")
        ),
        SettingKind("kv_cache", None, "str", "precision of the KV cache", choices=("fp32", "bf16", "fp8")),
        SettingKind("devices", None, "int", "devices to use", low=1),
        SettingKind("tensor_parallel", None, "int", "shards of every layer", low=1),
        SettingKind("pipeline_parallel", None, "int", "stages of layers", low=1),
        SettingKind("batch_size", None, "int", "rows in flight", low=1),
        SettingKind("prefix_cache", True, "bool", "compute shared prompt text once"),
        SettingKind("result_cache", True, "bool", "answer equal calls of a query once"),
        SettingKind("on_error", "null", "str", "what a failed row becomes", choices=("null", "fail", "skip")),
        SettingKind("reject_limit", None, "share_or_count", "stop past this share or count of failed rows", low=0),
        SettingKind("rejects", None, "str", "Parquet file that collects failed rows"),
        SettingKind("on_overflow", "null", "str", "prompts over the context", choices=("null", "truncate_middle")),
        SettingKind("row_timeout", None, "seconds", "give up on a row that runs for this long", low=1e-3),
        SettingKind("deterministic", False, "bool", "same answers whatever the batch"),
        SettingKind("best_effort", False, "bool", "run the nearest plan when no plan meets the contract"),
        SettingKind("disabled_rules", None, "rules", "rewrite rules that plans do without, as 'one, other'"),
    )
}


@dataclass(frozen=True, slots=True)
class Bound:
    """A bound in base units: seconds, rows or tokens per second, USD, share, bytes, tokens; `unit` as written.

    span: where it is written, which is no part of what it means. spent: seconds of a deadline that are gone before the
    run begins.
    """

    name: str
    value: float
    unit: str
    op: str
    qualifier: str = ""
    reference: str = ""
    confidence: float = 0.95
    span: Span | None = field(default=None, compare=False, repr=False)
    spent: float = 0.0

    def __str__(self) -> str:
        factor = {u.lower(): f for u, f in BOUND_KINDS[self.name].units.items()}[self.unit.lower()]
        name = self.name if self.qualifier in ("", "p95") else f"{self.name} {self.qualifier}"
        gap = " " if self.unit and self.unit not in (*SECONDS, "%") else ""
        return f"{name} {self.op} {self.value / factor:g}{gap}{self.unit}"


@dataclass(frozen=True, slots=True)
class Contract:
    """Bounds, one objective, and the settings the user pinned (others keep the session's or built-in defaults).

    places: where the pinned ones are written, for errors.
    """

    bounds: tuple[Bound, ...] = ()
    objective: tuple[str, str] = ("minimize", "cost")
    pinned: Mapping[str, Value] = field(default_factory=dict)
    defaults: Mapping[str, Value] = field(default_factory=dict)
    places: Mapping[str, Span] = field(default_factory=dict, compare=False, repr=False)

    @property
    def wants_quality(self) -> bool:
        """Whether the plan is wanted whose answers agree most with the reference's."""
        return self.objective == ("maximize", "quality")

    @property
    def may_lose(self) -> bool:
        """Whether answers may change where rows tell how many do: as far as a bound on quality lets them, or where no
        other plan keeps the bounds that quality is maximized under."""
        return self.wants_quality or bool(self.bounds_on("quality"))

    def setting(self, name: str) -> Value:
        """The value in force: pinned here, else the session's, else built in."""
        if name in self.pinned:
            return self.pinned[name]
        return self.defaults.get(name, SETTING_KINDS[name].default)

    def is_pinned(self, name: str) -> bool:
        """Whether the query or the session gave a setting that otherwise the planner decides."""
        return self.setting(name) is not None and (name in self.pinned or name in self.defaults)

    @property
    def of_session(self) -> Mapping[str, Value]:
        """Settings in force that SET gave, and not the query."""
        given = (item for item in self.defaults.items() if item[0] not in self.pinned)
        return {name: value for name, value in given if value is not None}

    def bound(self, name: str) -> Bound | None:
        return next((b for b in self.bounds if b.name == name), None)

    def after(self, seconds: float) -> "Contract":
        """The same, so many seconds of its deadline later."""
        bounds = (replace(b, spent=seconds) if b.name == "deadline" else b for b in self.bounds)
        return replace(self, bounds=tuple(bounds))

    def bounds_on(self, name: str) -> tuple[Bound, ...]:
        """All bounds of that name: on several percentiles, on answers and on tokens."""
        return tuple(b for b in self.bounds if b.name == name)


def setting_value(name: str, value: object, unit: str = "", *, span: Span | None = None) -> Value:
    """Check one setting's value; used by WITH, SET and call options alike."""
    kind = SETTING_KINDS[name]
    if kind.kind == "rules":
        return _rules(value, span)
    try:
        converted = _convert(kind, value, unit)
    except (TypeError, ValueError) as cause:
        raise BindError(f"{name} {cause}", span=span, hint=kind.meaning) from None
    if kind.choices and converted is not None and str(converted).lower() not in kind.choices:
        raise BindError(f"{name} is {', '.join(kind.choices[:-1])} or {kind.choices[-1]}, not {converted}", span=span)
    if kind.choices and isinstance(converted, str):
        converted = converted.lower()
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        base = " s" if kind.kind == "seconds" else ""
        if kind.low is not None and converted < kind.low:
            raise BindError(f"{name} must be at least {kind.low:g}{base}, not {converted:g}{base}", span=span)
        if kind.high is not None and converted > kind.high:
            raise BindError(f"{name} must be at most {kind.high:g}{base}, not {converted:g}{base}", span=span)
    return converted


def setting_kind(name: str, *, span: Span | None = None) -> SettingKind:
    """The setting of that name. Raises ConfigError that lists near names, or says where a bound is written."""
    if (bound := BOUND_KINDS.get(name.lower())) is not None:
        raise ConfigError(f"{name} is a bound of one query", span=span, hint=f"write WITH {bound.example} at its end")
    if name.lower() not in SETTING_KINDS:
        raise ConfigError(f"unknown setting {name}", span=span, hint=name_hint(name, SETTING_KINDS))
    return SETTING_KINDS[name.lower()]


def _rules(value: object, span: Span | None) -> Value:
    """Names of rewrite rules, from a text with commas or a list."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    names = tuple(str(part).strip().lower() for part in parts if str(part).strip())
    known = [rule.__name__ for rule in RULES]
    for name in names:
        if name not in known:
            raise BindError(f"no rule {name}", span=span, hint=name_hint(name, known))
    return names or None


def _convert(kind: SettingKind, value: object, unit: str) -> Value:
    if value is None:
        return None
    match kind.kind:
        case "bool":
            if not isinstance(value, bool):
                raise TypeError(f"is TRUE or FALSE, not {value}")
            return value
        case "str":
            if not isinstance(value, str):
                raise TypeError(f"is a text, not {value}")
            return value
        case "strings":
            texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else None
            if texts is None or not all(isinstance(t, str) and t for t in texts):
                raise TypeError("is a text or a list of texts, none empty")
            return texts
        case "seconds":
            if unit not in SECONDS:
                raise ValueError(f"needs a unit of time: {', '.join(SECONDS)}")
            return _as_float(value) * SECONDS[unit]
        case "share_or_count":
            if unit not in ("", "%", "rows"):
                raise ValueError("is a count of rows or a share such as 5%")
            number = _as_float(value)
            if unit != "%" and number != int(number):
                raise ValueError(f"is a count of rows or a share such as {100 * number:g}%")
            return number / 100 if unit == "%" else int(number)
    if unit:
        raise ValueError(f"takes no unit {unit}")
    number = _as_float(value)
    if kind.kind == "int" and number != int(number):
        raise ValueError(f"is a whole number, not {value}")
    return int(number) if kind.kind == "int" else number


def _as_float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"is a number, not {value!r}")
    return float(value)
