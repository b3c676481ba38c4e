"""dql: declarative inference queries over your tables, on your own machine."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dql.api import connect, query
    from dql.errors import (
        BindError,
        ConfigError,
        DqlError,
        ExecutionError,
        OutOfMemoryError,
        ParseError,
        PlanError,
        UnsupportedError,
    )
    from dql.result import Result
    from dql.session import Session

__version__ = "0.1.0"

_HOMES = {"query": "dql.api", "connect": "dql.api", "Session": "dql.session", "Result": "dql.result"}

__all__ = [
    "BindError",
    "ConfigError",
    "DqlError",
    "ExecutionError",
    "OutOfMemoryError",
    "ParseError",
    "PlanError",
    "Result",
    "Session",
    "UnsupportedError",
    "__version__",
    "connect",
    "query",
]


def __getattr__(name: str) -> Any:
    # Names load on first use: `dql --help` stays quick, and the engine runs where duckdb and polars are not installed.
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'dql' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "dql.errors")), name)
    globals()[name] = value
    return value
