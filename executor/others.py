"""How busy the rest of the machine is while something is measured here."""

import os
from pathlib import Path
from time import process_time

_STAT = Path("/proc/stat")
_BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq and steal among a core's counts


class Others:
    """Cores that other processes use, as a share of all, from the moment this is made on.

    Linux counts busy time, of which this process knows its own. Elsewhere the load average stands for it, which holds
    the last minute and may call a machine busy that no longer is.
    """

    def __init__(self, stat: Path = _STAT) -> None:
        self._stat = stat
        self._began, self._own = _counted(stat), process_time()

    def share(self) -> float:
        """What they used of all cores until now."""
        now, own = _counted(self._stat), process_time() - self._own
        if self._began is None or now is None or now[1] <= self._began[1]:
            cores = os.cpu_count() or 1
            return max(os.getloadavg()[0] / cores - 1, 0.0)  # own threads wait in it as well
        busy, whole = (after - before for after, before in zip(now, self._began, strict=True))
        return max(busy - own, 0.0) / whole


def _counted(stat: Path) -> tuple[float, float] | None:
    """(busy, busy and idle) seconds of all cores since the machine started; None where nobody counts them."""
    try:
        name, *counts = stat.read_text().partition("\n")[0].split()
        ticks = [int(count) for count in counts[:8]]
        second = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError):
        return None
    if name != "cpu" or len(ticks) < 8:
        return None
    return sum(ticks[at] for at in _BUSY) / second, sum(ticks) / second
