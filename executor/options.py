"""How an engine is set up, and what it counts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from dql.errors import ConfigError
from dql.executor.requests import Answer
from dql.models.shape import ModelShape
from dql.planner.windows import PLANNED, PLANNED_TOKENS

LoadFormat = Literal["auto", "dummy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Settings of a loaded engine. Raises ConfigError for what cannot work.

    device: 'cpu' or 'cuda[:n]'. weights, kv_cache: their precisions, 'fp32' or what the device offers. kv_bytes: memory
    for keys and values; None: a quarter of what is free,
    nine tenths on a GPU, and of that kv_share, where other engines take the rest.
    step_tokens: most tokens of one step. max_rows: most rows decoding at once. window: requests planned together, for
    equal requests and shared prefixes, and window_tokens about the most tokens of these. context: most tokens of a
    prompt and its answer; None: the model's own bound. row_timeout: seconds after which a row that still runs is given
    up. deterministic: a row's result is the same to the bit whatever runs beside it. speculate: guess tokens ahead
    where that pays; answers stay the same. logprobs: generated tokens come with theirs; greedy decoding is cheaper
    without. load_format: 'dummy' takes random weights of the model's shape, for
    performance work, and reads no weight file.
    """

    device: str = "cpu"
    weights: str = "fp32"
    kv_cache: str = "fp32"
    kv_bytes: int | None = None
    kv_share: float = 1.0
    step_tokens: int = 1024
    max_rows: int = 256
    window: int = PLANNED
    window_tokens: int = PLANNED_TOKENS
    context: int | None = None
    row_timeout: float | None = None
    deterministic: bool = False
    speculate: bool = True
    prefix: bool = True
    reuse: bool = True
    logprobs: bool = True
    load_format: LoadFormat = "auto"

    def __post_init__(self) -> None:
        if self.load_format not in get_args(LoadFormat):
            raise ConfigError(f"load_format is {self.load_format!r}", hint="it is 'auto' or 'dummy'")
        for name in ("step_tokens", "max_rows", "window", "window_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.kv_share <= 1:
            raise ConfigError(f"kv_share must lie between 0 and 1, not {self.kv_share}")
        for name in ("kv_bytes", "context"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be positive, not {value}")

    def context_of(self, shape: ModelShape) -> int:
        """Most tokens of a prompt and its answer together for a model of this shape."""
        return min(shape.context_length, self.context or shape.context_length)


class Pace(Protocol):
    """Sizes of a run: most rows decoding at once, most tokens of a step. Its owner may change them between answers."""

    @property
    def max_rows(self) -> int: ...
    @property
    def step_tokens(self) -> int: ...


@dataclass(slots=True)
class Counters:
    """What an engine has done since it was loaded.

    steps run; prompt tokens prefilled; prompt tokens reused (read from a shared prefix or an equal request instead of
    computed); tokens decoded; tokens forced (fed although no one drew them: label tokens); tokens proposed by
    speculation, and of these accepted (counted as decoded too); rows answered, of which duplicates took the answer of
    an equal request and failed ones have none.
    """

    steps: int = 0
    prefilled: int = 0
    reused: int = 0
    decoded: int = 0
    forced: int = 0
    proposed: int = 0
    accepted: int = 0
    rows: int = 0
    duplicates: int = 0
    failed: int = 0

    def count(self, answers: Iterable[Answer]) -> None:
        """Count finished answers."""
        for answer in answers:
            self.rows += 1
            self.failed += answer.failure is not None
            self.reused += answer.cached_tokens if answer.failure is None else 0
