"""Every plan that was weighed, as rows of a table: its choices, its figures, and why it was not taken."""

from collections.abc import Iterator, Mapping

from dql.planner.candidates import KEYS
from dql.planner.explain_cost import sizes_text
from dql.planner.option import Option
from dql.planner.search import Choice

COLUMNS = (
    ("weights", "VARCHAR"),
    ("kv_cache", "VARCHAR"),
    ("tensor_parallel", "BIGINT"),
    ("pipeline_parallel", "BIGINT"),
    ("data_parallel", "BIGINT"),
    ("batch_size", "BIGINT"),
    ("step_tokens", "BIGINT"),
    ("seconds", "DOUBLE"),
    ("latency_p95", "DOUBLE"),
    ("rows_per_second", "DOUBLE"),
    ("memory_bytes", "DOUBLE"),
    ("usd", "DOUBLE"),
    ("quality", "DOUBLE"),
    ("simulated", "BOOLEAN"),
    ("verdict", "VARCHAR"),
)
_SIZES = ("max_rows", "step_tokens")


def table(choice: Choice) -> list[tuple[object, ...]]:
    """The chosen plan, then the simulated ones in order of preference, then the others by their closed-form seconds."""
    options = [choice.best, *(option for option in choice.options if option is not choice.best)]
    return [*(_simulated(option, choice) for option in options), *_priced(choice, {_key(o) for o in options})]


def _key(option: Option) -> tuple[object, ...]:
    return tuple(getattr(option.placement, name) for name in (*KEYS, *_SIZES))


def _simulated(option: Option, choice: Choice) -> tuple[object, ...]:
    cost = option.cost
    figures = (cost.seconds, cost.latency[2], cost.rows_per_second, cost.memory, cost.usd, option.quality)
    return (*_key(option), *figures, True, _verdict(option, choice))


def _verdict(option: Option, choice: Choice) -> str:
    if option.misses:
        missed = ", ".join(f"{bound} by a factor of {factor:.2g}" for bound, factor in option.misses.items())
        return f"{'nearest: ' if option is choice.best else ''}misses {missed}"
    if option is choice.best:
        sizes = sizes_text(choice, ", ")
        return "chosen" if len(sizes) < 2 else f"chosen; its runs take {', then '.join(sizes)}"
    more = option.cost.seconds / max(choice.best.cost.seconds, 1e-12) - 1
    if abs(more) < 0.02:
        return "as quick, and takes more memory or longer a row"
    return f"{more:+.0%} seconds" + (", for less usual sizes" if more < 0 else "")


def _priced(choice: Choice, known: set[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """Plans that only the closed form has priced; its latency is that of a typical row."""
    rows = max((call.work.rows for call in choice.calls), default=0)
    best = choice.best.cost
    for row in choice.candidates.sort("seconds").iter_rows(named=True):
        key = tuple(row[name] for name in (*KEYS, *_SIZES))
        if key in known:
            continue
        usd = None if best.usd is None or not best.seconds else best.usd * row["seconds"] / best.seconds
        rate = rows / row["seconds"] if row["seconds"] else None
        yield (*key, row["seconds"], row["latency"], rate, row["memory"], usd, None, False, _why(row))


def _why(row: Mapping[str, object]) -> str:
    if not row["allowed"]:
        return (
            f"lossy: {row['weights']} needs a quality bound and rows that prove it, or quantization = {row['weights']}"
        )
    if not row["fits"]:
        return "does not fit into memory"
    if float(str(row["excess"])) > 1:
        return f"misses a bound by a factor of {float(str(row['excess'])):.2g}"
    return "not simulated: others looked better"
