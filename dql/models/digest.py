"""SHA-256 of weight files, computed once: the result is kept beside the file, bound to its size and time."""

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_BLOB = re.compile("[0-9a-f]{64}")


def file_digest(path: Path) -> str:
    """SHA-256 of the file in hex; from its note if size and modification time still fit."""
    target = path.resolve()
    if target.parent.name == "blobs" and _BLOB.fullmatch(target.name):
        return target.name  # the Hugging Face cache names large files by their SHA-256
    state = target.stat()
    note = target.with_name(target.name + ".sha256.json")
    known = _read_note(note)
    if (known.get("size"), known.get("mtime_ns")) == (state.st_size, state.st_mtime_ns):
        return str(known.get("sha256"))
    with target.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(OSError):  # a read-only folder: the digest is computed again next time
        note.write_text(json.dumps({"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": digest}))
    return digest


def files_digest(paths: Iterable[Path]) -> str:
    """One SHA-256 over the names and digests of several files, in the order of their names."""
    joined = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        joined.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return joined.hexdigest()


def _read_note(note: Path) -> dict[str, object]:
    try:
        value = json.loads(note.read_bytes())
    except (OSError, ValueError):  # no note, or a torn one
        return {}
    return value if isinstance(value, dict) and _BLOB.fullmatch(str(value.get("sha256"))) else {}
