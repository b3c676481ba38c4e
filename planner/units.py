"""Figures as people read them."""

from math import floor, log10


def seconds_text(value: float) -> str:
    """'180 ms', '28 s', '4.2 min', '3.1 h'; three digits at most."""
    if value < 1:
        return f"{_short(value * 1000)} ms"
    if value < 600:
        return f"{_short(value)} s"
    return f"{_short(value / 60)} min" if value < 36_000 else f"{_short(value / 3600)} h"


def interval_text(value: float, give: float) -> str:
    """Seconds with a half-width in the same unit: '1.6 s ± 0.1', '26 min ± 8'."""
    text = seconds_text(value)
    unit = text.rpartition(" ")[2]
    return f"{text} ± {_short(give / {'ms': 1e-3, 's': 1.0, 'min': 60.0, 'h': 3600.0}[unit])}"


def bytes_text(value: float) -> str:
    """'820 MiB', '1.1 GiB'."""
    return f"{_short(value / 2**20)} MiB" if value < 0.95 * 2**30 else f"{_short(value / 2**30)} GiB"


def rate_text(value: float) -> str:
    """A rate without its unit: '4.5', '1,200'."""
    return _short(value)


def share_text(value: float) -> str:
    """A share as per cent: '95 %', '99.5 %', '0.12 %'."""
    return f"{value * 100:.3g} %"


def usd_text(value: float) -> str:
    """'0.41 USD', '1,230 USD', '0.000095 USD'."""
    return f"{_short(value)} USD" if value >= 1e-3 or not value else f"{value:.{1 - floor(log10(value))}f} USD"


def value_text(value: object) -> str:
    """A setting's value as it is written: 'true', '8', "'int8'", "'a', 'b'"."""
    if isinstance(value, tuple):
        return ", ".join(map(value_text, value))
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower() if isinstance(value, bool) else "NULL" if value is None else f"{value}"


def _short(value: float) -> str:
    """Two significant digits below a hundred, whole numbers above."""
    if value >= 99.5:
        return f"{value:,.0f}"
    return f"{value:.2g}" if value else "0"
