"""Process settings: where things lie and what this process may use. What `WITH` and `SET` take is apart.

Each value comes from the environment (`DQL_HOME=…`) or its default; an unknown `DQL_` variable is an error.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import isfinite
from pathlib import Path

from platformdirs import user_config_path, user_data_path, user_state_path

from dql.errors import ConfigError, name_hint

_PREFIX = "DQL_"
_NOT_SETTINGS = {"DQL_DEBUG"}  # read by the command line alone: show tracebacks


@dataclass(frozen=True)
class Config:
    """Settings of one process.

    home: models and profiles. model: the default model. memory_limit: DuckDB's, such as "4GiB" ("" leaves DuckDB's
    own default). threads: CPU threads for both DuckDB and inference (0 = all cores). offline: never use the network.
    price_per_hour: USD that an hour of this machine costs, for bounds on cost (0 = unknown). device_prices: USD that an
    hour of one device of a shipped profile costs you, by its name; the others keep the profile's.
    """

    home: Path = field(default_factory=lambda: user_data_path("dql"))
    model: str = "smollm2"
    memory_limit: str = ""
    threads: int = 0
    offline: bool = False
    price_per_hour: float = 0.0
    device_prices: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> "Config":
        """Read `DQL_*` variables. Raises ConfigError on an unknown name or a value of the wrong kind."""
        known = {f.name: f for f in fields(cls)}
        values: dict[str, object] = {}
        for variable, text in environ.items():
            if not variable.startswith(_PREFIX) or variable in _NOT_SETTINGS:
                continue
            name = variable.removeprefix(_PREFIX).lower()
            if name not in known:
                raise ConfigError(
                    f"unknown setting {variable}", hint=name_hint(variable, [_PREFIX + n.upper() for n in known])
                )
            values[name] = _convert(variable, text, getattr(cls(), name))
        return cls(**values)  # type: ignore[arg-type]

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @cached_property
    def num_threads(self) -> int:
        return self.threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def runs_file(self) -> Path:
        return self.home / "runs.db"

    @property
    def certificates_dir(self) -> Path:
        return self.home / "certificates"

    @property
    def unfinished_dir(self) -> Path:
        return self.home / "unfinished"

    @property
    def history_file(self) -> Path:
        return user_state_path("dql") / "history"

    @property
    def startup_file(self) -> Path:
        return user_config_path("dql") / "dqlrc"

    def sources(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Each setting's name → "environment" or "default"."""
        return {f.name: "environment" if _PREFIX + f.name.upper() in environ else "default" for f in fields(self)}


def _convert(variable: str, text: str, default: object) -> object:
    if isinstance(default, Path):
        return Path(text).expanduser()
    if isinstance(default, bool):
        if text.lower() in ("1", "true", "yes", "on"):
            return True
        if text.lower() in ("0", "false", "no", "off", ""):
            return False
        raise ConfigError(f"{variable}={text!r} is not a truth value", hint="write 1 or 0")
    if isinstance(default, float):
        return _amount(variable, text, "write a number such as 0.34")
    if isinstance(default, Mapping):
        pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
        hint = "write them as h100=2.10,l40s=0.80"
        return {name.strip().lower(): _amount(variable, amount, hint) for name, _, amount in pairs}
    if isinstance(default, int):
        if text.isdecimal():
            return int(text)
        raise ConfigError(f"{variable}={text!r} is not a whole number", hint="write a number such as 4")
    return text


def _amount(variable: str, text: str, hint: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        raise ConfigError(f"{variable}: {text.strip()!r} is not a number", hint=hint) from None
    if not (isfinite(amount) and amount >= 0):
        raise ConfigError(f"{variable}: {text.strip()!r} is no amount of USD", hint=hint)
    return amount
