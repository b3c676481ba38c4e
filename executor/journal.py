"""A file that only grows, of records that are whole or not there: what a process leaves that is killed.

A record is its length, its CRC-32 and its bytes. What follows the last whole record is cut off by the next writer. One
process writes a journal at a time; any may read what is there.
"""

import fcntl
import os
import stat
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self

_HEAD = struct.Struct("<II")  # bytes of a record, and their checksum


class Journal:
    """A journal that this process writes, locked until it is closed. `size`: bytes of whole records."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.size = sum(_HEAD.size + len(record) for record in records(path))
        file.truncate(self.size)

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """The journal at `path`, made if need be; None where another process writes it. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return None
            if os.fstat(file.fileno()).st_nlink:
                return cls(path, file)
            file.close()  # the one that wrote it removed it meanwhile

    def append(self, record: bytes) -> None:
        """Add a record; it is on the disk when this returns. Raises OSError."""
        self._file.write(_HEAD.pack(len(record), zlib.crc32(record)) + record)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.size += _HEAD.size + len(record)

    def remove(self) -> None:
        """Delete and close it."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let others write it; an empty one goes."""
        with suppress(OSError):
            if not self.size:
                self.path.unlink(missing_ok=True)
        with suppress(OSError):  # the disk is full: what could not be written is not a whole record
            self._file.close()


def records(path: Path) -> list[bytes]:
    """The whole records, up to the first that is not; none where there is no file."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    found: list[bytes] = []
    start = 0
    while start + _HEAD.size <= len(data):
        size, checksum = _HEAD.unpack_from(data, start)
        record = data[start + _HEAD.size : start + _HEAD.size + size]
        if len(record) < size or zlib.crc32(record) != checksum or not size:
            break
        found.append(record)
        start += _HEAD.size + size
    return found


def sweep(folder: Path, since: float, most: int) -> None:
    """Delete files of the folder, whatever they are, that nobody wrote to since the time `since`, and the oldest of
    those over `most` bytes together; not what a process writes.
    """
    seen: list[tuple[os.stat_result, Path]] = []
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # its statement came to its end
            if stat.S_ISREG((state := file.stat()).st_mode):
                seen.append((state, file))
    size = 0
    for state, file in sorted(seen, key=lambda each: each[0].st_mtime, reverse=True):
        size += state.st_size
        if (state.st_mtime < since or size > most) and (old := Journal.open(file)) is not None:
            old.remove()
