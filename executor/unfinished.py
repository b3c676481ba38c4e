"""Answers of runs that stopped before their end, kept so that the same statement run again pays for the rest alone.

A journal per statement, its weights and precisions, written beside the run, so that one that is killed leaves all but
the answers of its last second. A run of less than two seconds writes none unless it stops. A journal goes when its run
comes to its end; its size is that of the answers, each of which is written once. Answers are found by what decides
them, as within a run: by prompt, and by what was asked of the model. Nothing that befalls a journal ends a query.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dql.errors import DqlError
from dql.executor.context import Asked
from dql.executor.journal import Journal, records, sweep
from dql.executor.requests import Answer, Generate, Task

Memo = dict[bytes, Answer]

_DAYS, _BYTES = 30, 2**30  # how long journals are kept, and how much of them
_FIRST, _EVERY = 2.0, 1.0  # seconds to the first record, and between others
_FAULTS = OSError, DqlError  # of the disk; the model was dropped meanwhile
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
    ]
)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What is kept of one statement in `folder`: in which journal; asked only where that is needed, since to name one
    takes a digest of the weights."""

    folder: Path
    journal: Callable[[], Path]

    def load(self) -> dict[bytes, Memo]:
        """Answers by what was asked (see `name_of`), then by prompt."""
        found: dict[bytes, Memo] = {}
        try:
            for record in records(self.journal()) if self.any else ():
                for row in _table(record).to_pylist():
                    found.setdefault(row["asked"], {})[row["prompt"]] = _answer(row)
        except _FAULTS as error:
            _LOG.warning("what an earlier run answered cannot be read: %s", error)
        return found

    def drop(self) -> None:
        """Forget it: the statement came to its end."""
        try:
            if self.any and (path := self.journal()).exists() and (journal := Journal.open(path)) is not None:
                journal.remove()
        except _FAULTS as error:
            _LOG.warning("what was answered is kept although the statement came to its end: %s", error)

    @property
    def any(self) -> bool:
        """Whether anything is kept of any statement."""
        return self.folder.is_dir() and next(self.folder.glob("*.journal"), None) is not None


@dataclass
class Keeper:
    """Writes the answers of a running statement to its journal, in a thread of its own, which alone holds the journal.

    memos: by what was asked, growing. written: what the journal holds already. A folder that cannot be written, or a
    journal that another process writes, costs no query.
    """

    unfinished: Unfinished
    memos: Mapping[Asked, Memo]
    written: Mapping[bytes, Memo]
    _seen: dict[Asked, int] = field(default_factory=dict)  # answers of each memo that were looked at
    _journal: Journal | None = None
    _given_up: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _stopped: bool = False

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name="dql-journal", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def end(self, *, stopped: bool) -> None:
        """Stop writing; `stopped`: the run did, so that all its answers are written."""
        self._stopped = stopped
        self._ended.set()
        with suppress(RuntimeError):  # Ctrl-C came while it was started: it ends by itself
            self._thread.join()

    def _run(self) -> None:
        wait = _FIRST
        while not self._ended.wait(wait):
            self._write()
            wait = _EVERY
        if self._stopped:
            self._write()
        if self._journal is not None:
            self._journal.close()

    def _write(self) -> None:
        if self._given_up or not (fresh := self._fresh()):
            return
        try:
            if self._journal is None:
                self._journal = Journal.open(self.unfinished.journal())
                sweep(self.unfinished.folder, time.time() - _DAYS * 86_400, _BYTES)
            if self._journal is None:
                self._given_up = True
                _LOG.warning("another process runs the same statement: the answers of this one are not kept")
                return
            self._journal.append(_record(fresh))
        except _FAULTS as error:
            self._given_up = True
            _LOG.warning("what was answered is not kept for the next run: %s", error)

    def _fresh(self) -> list[tuple[bytes, bytes, Answer]]:
        """What was asked, prompt and answer of all answers since the last look."""
        found: list[tuple[bytes, bytes, Answer]] = []
        for asked, memo in list(self.memos.items()):
            newest = reversed(memo.items())  # before they are counted: an answer that comes in between is then noticed
            try:
                last = list(islice(newest, len(memo) - self._seen.get(asked, 0)))
            except RuntimeError:  # an answer came meanwhile: they wait for the next look
                continue
            self._seen[asked] = self._seen.get(asked, 0) + len(last)
            name = name_of(asked)
            known = self.written.get(name, {})
            found += [(name, prompt, answer) for prompt, answer in reversed(last) if prompt not in known]
        return found


def prompts_in(path: Path) -> dict[bytes, set[bytes]]:
    """The prompts of a journal, by what was asked."""
    found: dict[bytes, set[bytes]] = {}
    for record in records(path):
        table = _table(record).select(["asked", "prompt"])
        for asked, prompt in zip(*(column.to_pylist() for column in table.columns), strict=True):
            found.setdefault(asked, set()).add(prompt)
    return found


def name_of(asked: Asked) -> bytes:
    """Names what was asked of a model, in any process."""
    *how, task = asked
    return blake2b(repr((how, _plain(task))).encode(), digest_size=16).digest()


def _plain(task: Task) -> object:
    """A task whose text is the same in every process: sets have no order."""
    if isinstance(task, Generate):
        return "generate", task.max_tokens, sorted(task.stop), task.stop_texts, task.sampling, task.precise
    return task


def _record(found: list[tuple[bytes, bytes, Answer]]) -> bytes:
    names, prompts, answers = zip(*found, strict=True)
    columns = [names, prompts, *([getattr(a, field.name) for a in answers] for field in list(_SCHEMA)[2:])]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, _SCHEMA, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
    return bytes(sink.getvalue())


def _table(record: bytes) -> pa.Table:
    """The answers of a record; none where another version of dql wrote it."""
    try:
        table = pa.ipc.open_stream(record).read_all()
    except (OSError, pa.ArrowException):
        return _SCHEMA.empty_table()
    return table if table.schema == _SCHEMA else _SCHEMA.empty_table()


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
    )
