"""What a finished query says about itself, on stderr: how much, how fast, what failed."""

from typing import TYPE_CHECKING

from dql.progress import counted, duration

if TYPE_CHECKING:
    from dql.result import Result


def summary(result: "Result") -> list[str]:
    """Lines for people; none for a statement that ran no model."""
    stats = result.stats()
    if not stats.calls and not stats.calls_reused:
        return []
    parts = [f"{counted(stats.rows, 'row')} in {duration(stats.seconds)}", counted(stats.calls, "call")]
    if stats.calls_reused:
        parts.append(f"{stats.calls_reused:,} reused")
    if stats.calls_saved:
        parts.append(f"{stats.calls_saved:,} spared the last model")
    tokens = {"computed": stats.tokens_prefilled, "shared": stats.tokens_reused, "generated": stats.tokens_decoded}
    if said := ", ".join(f"{count:,} {what}" for what, count in tokens.items() if count):
        parts.append(f"tokens: {said}")
    lines = [" · ".join(parts)]
    lines += [f"{promise.bound}: {promise}" for promise in stats.promises]
    lines += [*stats.changes, *stats.notices]
    if stats.cut_by_max_tokens:
        lines.append(f"{counted(stats.cut_by_max_tokens, 'answer')} cut by max_tokens")
    if stats.truncated:
        lines.append(f"{counted(stats.truncated, 'input')} truncated to fit the context")
    if stats.failed:
        lines.append(f"{counted(stats.failed, 'row')} without an answer (NULL):")
        lines += [f"  {message}" for message in stats.messages]
    return lines
