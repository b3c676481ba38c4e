"""`.slt` files: statements and what they yield, parted by blank lines; lines that begin with # are comments.

    # params: {"n": 2}
    SELECT id, AI_GENERATE('Hi {name}') AS hello FROM people LIMIT $n
    ----
    id | hello
    1 | Hi Ann
    2 | Hi Bob
    asked 2

The last line counts the prompts that the model was asked, and the rows that failed or were cut, if any.
"""

import json
import re
from collections.abc import Iterator

from dql.errors import DqlError
from tests.fake_session import FakeSession

# Tokens of the frames around the user's text: their wording may change, what a query means does not.
_FRAMES = re.compile(r"\d+(?= prompt tokens)|(?<=prompt_tokens: )\d+")
_PARAMS = re.compile(r"^# params: (.*)$", re.MULTILINE)


def completed(text: str, session: FakeSession) -> str:
    """The file's text with every result filled in."""
    return "\n\n".join(_completed(record, session) for record in text.strip().split("\n\n")) + "\n"


def _completed(record: str, session: FakeSession) -> str:
    head = record.split("\n----")[0]
    sql = "\n".join(line for line in head.splitlines() if not line.startswith("#"))
    if not sql:
        return head
    params = _PARAMS.search(head)
    lines = outcome(sql, json.loads(params[1]) if params else None, session)
    return _FRAMES.sub("N", "\n".join([head, "----", *lines]))


def outcome(sql: str, params: dict[str, object] | None, session: FakeSession) -> Iterator[str]:
    """What running a text yields, line by line: rows and counts, or the error."""
    before = len(session.asked)
    try:
        result = session.query(sql, params)
        table = result.arrow().drop_columns(["seconds"] if result.statement_kind == "write" else [])
        rows = [tuple(row.values()) for row in table.to_pylist()]
        stats = result.stats()
    except DqlError as error:
        yield from f"{type(error).__name__}: {error}".splitlines()
        return
    yield " | ".join(table.column_names) or "done"
    yield from (" | ".join(map(shown, row)) for row in rows)
    counts = {"asked": len(session.asked) - before, "failed": stats.failed, "truncated": stats.truncated}
    if line := ", ".join(f"{name} {count}" for name, count in counts.items() if count or name == "asked"):
        yield line


def shown(value: object) -> str:
    """A value on one line."""
    match value:
        case None:
            return "NULL"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:.4g}"
        case str():
            plain = value and value.isprintable() and value == value.strip() and value != "NULL" and " | " not in value
            return value if plain else repr(value)
        case list():
            return f"[{', '.join(map(shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {shown(item)}' for name, item in value.items())}}}"
    return str(value)
