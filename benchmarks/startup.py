"""How long a newcomer waits before anything happens: `python -m benchmarks.startup`.

Each figure is the median of interleaved repeats of a fresh process, beside a process that does nothing.
"""

import statistics
import subprocess
import sys
import time

REPEATS = 9
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import dql": [sys.executable, "-c", "import dql"],
    "dql --help": [sys.executable, "-m", "dql", "--help"],
    "dql models ls": [sys.executable, "-m", "dql", "models", "ls"],
    "dql -c 'SELECT 1'": [sys.executable, "-m", "dql", "-c", "SELECT 1"],
}


def main() -> None:
    """Print one line per command."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(REPEATS):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    for name, taken in seconds.items():
        print(f"{name:24}{1e3 * statistics.median(taken):8.0f} ms")


if __name__ == "__main__":
    main()
