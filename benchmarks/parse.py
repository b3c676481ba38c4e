"""How long parsing takes: `python benchmarks/parse.py [--repeats N] [--mutants N]`.

Prints the median and the 99th percentile of CPU time over interleaved repeats. `--mutants N` parses N damaged
statements instead and prints how they ended; anything but a tree or a ParseError with its place stops it.
"""

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from dql.errors import ParseError
from dql.grammar.complete import expected
from dql.grammar.parser import parse
from dql.grammar.template import parse_template
from dql.grammar.unparse import to_sql
from dql.grammar.walk import walk
from tests.grammar.mutate import mutants

LINE = (
    "SELECT id, sum(a) OVER (PARTITION BY b ORDER BY c DESC) AS s, CASE WHEN x > 1 THEN 'a' ELSE y::VARCHAR END, "
    "AI_SCORE('How urgent is {body}?', 1, 5) AS u FROM t JOIN u USING (id) WHERE a BETWEEN 1 AND 2 AND b IN ('x', 'y')"
)
LONG = " UNION ALL ".join([LINE] * 9)
PLAIN = LINE.replace("AI_SCORE('How urgent is {body}?', 1, 5)", "round(score, 1)")
MEGABYTE = 999_000
FIRST = (
    "import time; a = time.process_time(); from dql.grammar.parser import parse; b = time.process_time(); "
    "parse(\"SELECT AI_FILTER('x') FROM t\"); print(1e3 * (b - a), 1e3 * (time.process_time() - b))"
)


def refused(text: str) -> None:
    """Parse a text that must fail."""
    try:
        parse(text)
    except ParseError:
        return
    raise AssertionError(text)


def quick() -> dict[str, Callable[[], object]]:
    """Name → what is timed many times."""
    (statement,) = parse(LONG)
    literal = next(node for node in walk(statement) if type(node).__name__ == "String")
    return {
        f"{len(LINE):,} characters": lambda: parse(LINE),
        f"{len(LONG):,} characters": lambda: parse(LONG),
        f"{len(PLAIN):,} characters, DuckDB's, routed only": lambda: parse(PLAIN),
        f"{len(LINE):,} characters, misspelt": lambda: refused(LINE.replace("WHERE", "WHER")),
        f"{len(LONG):,} characters, misspelt at the end": lambda: refused(LONG[:-20] + " BETWEN 1 AND 2"),
        f"to_sql of {len(LONG):,} characters": lambda: to_sql(statement),
        "a template with one hole": lambda: parse_template(literal),  # type: ignore[arg-type]
        f"completion after {len(LINE):,} characters": lambda: expected(LINE + " "),
        f"completion after {len(LONG):,} characters": lambda: expected(LONG + " "),
    }


def heavy() -> dict[str, Callable[[], object]]:
    """Name → a text at the edge of the caps, timed once."""
    values = ", ".join(["1"] * (MEGABYTE // 3))
    return {
        "1 MB in a string": lambda: parse(f"GENERATE '{'x' * MEGABYTE}'"),
        "1 MB in an island": lambda: parse(f"SELECT AI_FILTER('x') FROM (SELECT {values})"),
        "1 MB of DuckDB's SQL": lambda: parse(f"SELECT {values}"),
        "49,000 structured words": lambda: parse(f"SELECT AI_FILTER('x'), {', '.join(['1'] * 24_500)}"),
        "1 MB structured: refused": lambda: refused(f"SELECT AI_FILTER('x'), {values}"),
        "1 MB of open brackets: refused": lambda: refused("SELECT " + "(" * MEGABYTE),
        "1 MB in an open comment: refused": lambda: refused("/*" * (MEGABYTE // 2)),
    }


def timings(works: dict[str, Callable[[], object]], repeats: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = time.process_time()
            work()
            seconds[name].append(time.process_time() - start)
    for name, taken in seconds.items():
        taken.sort()
        print(f"{name:48} {1e3 * taken[len(taken) // 2]:9.3f} {1e3 * taken[int(len(taken) * 0.99)]:9.3f} ms")


def count_mutants(count: int) -> None:
    """Parse damaged statements and print how they ended and the slowest."""
    ends = {"parsed": 0, "refused": 0}
    slowest = (0.0, "")
    for text in mutants(random.Random(0), count):
        start = time.process_time()
        try:
            parse(text)
            ends["parsed"] += 1
        except ParseError as error:
            assert error.span is not None and 0 <= error.span[0] <= len(text) and str(error), text
            ends["refused"] += 1
        slowest = max(slowest, (time.process_time() - start, text))
    print(
        f"{count:,} mutants: {ends['parsed']:,} parsed, {ends['refused']:,} refused; slowest {1e3 * slowest[0]:.1f} ms"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--repeats", type=int, default=101)
    options.add_argument("--mutants", type=int, default=0)
    given = options.parse_args()
    if given.mutants:
        count_mutants(given.mutants)
        return
    firsts = [subprocess.check_output([sys.executable, "-c", FIRST], text=True).split() for _ in range(7)]
    for name, column in (("import of the grammar", 0), ("first parse, tables read", 1)):
        print(f"{name:48} {sorted(float(first[column]) for first in firsts)[3]:9.3f} ms")
    print(f"{'':48} {'p50':>9} {'p99':>9}")
    timings(quick(), given.repeats)
    timings(heavy(), 1)


if __name__ == "__main__":
    main()
