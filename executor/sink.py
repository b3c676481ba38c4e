"""Writing a result to a file: streamed to a temporary name beside the target, then put in its place in one step.

Until then the old file stays as it was, and can be read, even by the query that replaces it.
"""

import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from dql.errors import BindError, ExecutionError
from dql.executor.ahead import ahead

_ERRNO = re.compile(r"\[[Ee]rrno (\d+)\]")  # how Arrow says it
ROW_GROUP_BYTES = 64 << 20
ROW_GROUP_ROWS = 122_880  # DuckDB's own


class Writer(Protocol):
    """Takes tables one after the other; `close` ends the file."""

    def write_table(self, table: pa.Table) -> None: ...
    def close(self) -> None: ...


Options = Mapping[str, object]


class JsonLines:
    """One JSON object a line."""

    def __init__(self, path: Path, schema: pa.Schema, options: Options) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write_table(self, table: pa.Table) -> None:
        for batch in table.to_batches():
            rows = batch.to_pylist()
            self._file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)

    def close(self) -> None:
        self._file.close()


def _csv(path: Path, schema: pa.Schema, options: Options) -> Writer:
    written = pyarrow.csv.WriteOptions(
        include_header=bool(options.get("header", True)), delimiter=str(options.get("delimiter", ","))
    )
    writer: Writer = pyarrow.csv.CSVWriter(path, schema, write_options=written)
    return writer


def _tsv(path: Path, schema: pa.Schema, options: Options) -> Writer:
    return _csv(path, schema, {"delimiter": "\t", **options})


def _parquet(path: Path, schema: pa.Schema, options: Options) -> Writer:
    compression = str(options.get("compression", "zstd"))
    writer: Writer = pq.ParquetWriter(path, schema, compression=compression, write_page_checksum=True)
    return writer


def _arrow(path: Path, schema: pa.Schema, options: Options) -> Writer:
    writer: Writer = pyarrow.ipc.new_file(str(path), schema)
    return writer


FORMATS: dict[str, Callable[[Path, pa.Schema, Options], Writer]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "feather": _arrow,
    "csv": _csv,
    "tsv": _tsv,
    "json": JsonLines,
    "jsonl": JsonLines,
    "ndjson": JsonLines,
}
_OPTIONS = {"csv": ("header", "delimiter"), "tsv": ("header", "delimiter"), "parquet": ("compression",)}
_SAME = {"delim": "delimiter", "sep": "delimiter", "codec": "compression"}  # as DuckDB has them
_COMPRESSIONS = ("zstd", "snappy", "gzip", "brotli", "lz4", "uncompressed")


def file_format(path: str, asked: str | None = None) -> str:
    """The format of a target. Raises BindError for one that dql does not write."""
    name = (asked or Path(path).suffix.removeprefix(".")).lower()
    if name not in FORMATS:
        shown = f"'{name}'" if name else "a file without a suffix"
        raise BindError(f"dql does not write {shown}", hint=f"it writes {', '.join(sorted(FORMATS))}")
    return name


def check_columns(file_type: str, names: Sequence[str], types: Sequence[str]) -> None:
    """Raise BindError for a column of an SQL type that a format cannot hold."""
    if file_type not in ("csv", "tsv"):
        return
    for name, sql_type in zip(names, types, strict=True):
        if sql_type.endswith("]") or sql_type.startswith(("STRUCT(", "MAP(", "UNION(")):
            hint = "write Parquet or JSON lines, or cast the column to VARCHAR"
            raise BindError(f"{file_type.upper()} cannot hold column {name} of type {sql_type}", hint=hint)


def checked_options(file_type: str, options: Options) -> Options:
    """Options of a format by dql's names for them. Raises BindError for what the format does not have."""
    known = _OPTIONS.get(file_type, ())
    found: dict[str, object] = {}
    for given, value in options.items():
        name = _SAME.get(given, given)
        if name not in known:
            hint = f"there is {', '.join(known).upper()}" if known else f"{file_type} has no options"
            raise BindError(f"{file_type} has no option {given}", hint=hint)
        if name == "header":
            value = True if value is None else value
            if not isinstance(value, bool):
                raise BindError("header is TRUE or FALSE")
        elif name == "delimiter" and (not isinstance(value, str) or len(value) != 1 or not value.isascii()):
            raise BindError("a delimiter is one character", hint="write DELIMITER ';'")
        elif name == "compression":
            value = str(value).lower()
            if value not in _COMPRESSIONS:
                raise BindError(f"Parquet has no compression {value}", hint=f"there is {', '.join(_COMPRESSIONS)}")
            value = "none" if value == "uncompressed" else value
        found[name] = value
    return found


class AtomicFile(AbstractContextManager["AtomicFile"]):
    """Write batches under a temporary name; `commit` puts the file in its place. Leaving without it removes it."""

    def __init__(self, path: str, file_type: str, options: Options) -> None:
        self.path = Path(path)
        self._options = options
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        self._open = FORMATS[file_type]
        self._writer: Writer | None = None
        self._held: BinaryIO | None = None

    def __enter__(self) -> Self:
        """Take the temporary name, so that a folder that cannot be written to is known before any call."""
        try:
            self._held = self._temporary.open("wb")
            fcntl.flock(self._held, fcntl.LOCK_EX)  # tells others that it is not left over
            _remove_leftovers(self.path)
        except OSError as error:
            raise self._failed(error) from error
        return self

    def write(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Take all batches, of which there is at least one; they are written beside the work on further ones."""
        for _ in ahead(self._write, _groups(batches)):
            pass

    def commit(self) -> None:
        """Make the file durable and visible under its name."""
        try:
            assert self._writer is not None, "nothing was written"
            self._writer.close()
            self._writer = None
            _sync(self._temporary)
            os.replace(self._temporary, self.path)
            _sync(self.path.parent)
        except OSError as error:
            raise self._failed(error) from error

    def __exit__(self, *_: Any) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError:  # the disk is full or gone: the file is removed below in any case
                self._writer = None
        self._temporary.unlink(missing_ok=True)
        if self._held is not None:
            self._held.close()

    def _write(self, batches: Sequence[pa.RecordBatch]) -> None:
        try:
            if self._writer is None:
                self._writer = self._open(self._temporary, batches[0].schema, self._options)
            self._writer.write_table(pa.Table.from_batches(batches))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> ExecutionError:
        code = _ERRNO.search(str(error))
        reason = os.strerror(int(code[1])) if code is not None else error.strerror or str(error)
        return ExecutionError(f"could not write {self.path}: {reason}", hint="what was there before is still there")


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of this target whose process was killed: it is gone, and nobody holds them."""
    known = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.[0-9a-f]+\.tmp")
    for name in os.listdir(path.parent):
        if (found := known.fullmatch(name)) is None or _runs(int(found[1])):
            continue
        with suppress(OSError), (path.parent / name).open("rb") as file:
            fcntl.flock(
                file, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # another of this process, or of another machine on a shared disk
            (path.parent / name).unlink()


def _runs(process: int) -> bool:
    if process == os.getpid():  # in a container the one before may have had the same number: the lock tells
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's; no number of a process
        return True
    return True


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """The batches in their order, small ones together."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        rows = sum(b.num_rows for b in waiting)
        if rows >= ROW_GROUP_ROWS or sum(b.nbytes for b in waiting) >= ROW_GROUP_BYTES:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
