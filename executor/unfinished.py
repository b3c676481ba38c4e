"""Answers of runs that stopped before their end, kept so that the same statement run again pays for the rest alone.

A file per statement, its weights and precisions; it is written when a run stops and goes when one comes to its end.
Answers are found by what decides them, as within a run: by prompt, and by what was asked of the model.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dql.executor.context import Asked
from dql.executor.requests import Answer, Generate, Task

Memo = dict[bytes, Answer]

_KEPT = 16  # newest statements
_LOG = logging.getLogger("dql")
_SCHEMA = pa.schema(
    [
        ("asked", pa.binary(16)),
        ("prompt", pa.binary(16)),
        ("tokens", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("vector", pa.list_(pa.float32())),
        ("finish", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("text", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is kept of one statement in `folder`. statement: all that names it; read only where that is needed, since to
    digest weights takes a while."""

    folder: Path
    statement: Callable[[], object]

    @property
    def path(self) -> Path:
        """The statement's file."""
        return self.folder / f"{blake2b(repr(self.statement()).encode(), digest_size=12).hexdigest()}.arrow"

    def load(self) -> dict[bytes, Memo]:
        """Answers by what was asked (see `name_of`), then by prompt; none where there is no file or it is torn."""
        found: dict[bytes, Memo] = {}
        if not self._any:
            return found
        try:
            table = pa.ipc.open_file(self.path).read_all()
        except (OSError, pa.ArrowInvalid):
            return found
        if table.schema != _SCHEMA:
            return found
        for row in table.to_pylist():
            found.setdefault(row["asked"], {})[row["prompt"]] = _answer(row)
        return found

    def keep(self, memos: Mapping[bytes, Memo]) -> None:
        """Write down the answers; a folder that cannot be written costs no query."""
        if not any(memos.values()):
            return
        try:
            path = self.path
            part = path.with_suffix(f".{os.getpid()}.part")
            self.folder.mkdir(parents=True, exist_ok=True)
            with pa.ipc.new_file(str(part), _SCHEMA) as writer:
                writer.write_table(pa.Table.from_pylist(list(_rows(memos)), schema=_SCHEMA))
            part.replace(path)
            known = sorted(self.folder.glob("*.arrow"), key=lambda file: file.stat().st_mtime_ns)
            for old in known[:-_KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            _LOG.warning("what was answered is not kept for the next run: %s", error)

    def drop(self) -> None:
        """Forget it: the statement came to its end."""
        if self._any:
            self.path.unlink(missing_ok=True)

    @property
    def _any(self) -> bool:
        return self.folder.is_dir() and any(self.folder.glob("*.arrow"))


def name_of(asked: Asked) -> bytes:
    """Names what was asked of a model, in any process."""
    *how, task = asked
    return blake2b(repr((how, _plain(task))).encode(), digest_size=16).digest()


def _plain(task: Task) -> object:
    """A task whose text is the same in every process: sets have no order."""
    if isinstance(task, Generate):
        return "generate", task.max_tokens, sorted(task.stop), task.stop_texts, task.sampling, task.precise
    return task


def _rows(memos: Mapping[bytes, Memo]) -> Iterator[dict[str, object]]:
    for name, memo in memos.items():
        for prompt, found in memo.items():
            values = {field: getattr(found, field) for field in _SCHEMA.names[2:]}
            yield {"asked": name, "prompt": prompt, **values}


def _answer(row: Mapping[str, Any]) -> Answer:
    """An answer as it was, of whose prompt nothing is computed again."""
    return Answer(
        id=0,
        tokens=np.array(row["tokens"], np.int32),
        logprobs=np.array(row["logprobs"], np.float32),
        vector=None if row["vector"] is None else np.array(row["vector"], np.float32),
        finish=row["finish"],
        prompt_tokens=row["prompt_tokens"],
        cached_tokens=row["prompt_tokens"],
        text=row["text"],
    )
