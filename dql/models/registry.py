"""Models by name: what `USING`, `CREATE MODEL` and `SHOW MODELS` speak of, and where they lie on this machine."""

import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dql.errors import BindError, ConfigError, name_hint
from dql.models.checkpoint import PICKLES, snapshot_root
from dql.models.fetch import Report, install, model_lock
from dql.models.hub import cached_snapshot, download_snapshot, parse_reference
from dql.models.model import Model, open_model
from dql.models.sources import BUILT_INS, BuiltIn
from dql.models.vocabulary_json import read_json

_NAME = re.compile(r"[A-Za-z_][\w.-]{0,127}")
_OPTIONS: Mapping[str, type] = {"context_length": int, "chat_template": str}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """One line of SHOW MODELS. kind: 'built-in' or 'registered'; size in bytes, of the download while not installed."""

    name: str
    kind: str
    uri: str
    installed: bool
    size: int | None
    license: str | None
    description: str
    notice: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A registration: CREATE MODEL name FROM uri WITH options."""

    uri: str
    options: Mapping[str, Any]


class Registry:
    """Resolves references to models. Instances may be shared between threads; files are shared between processes.

    models_dir holds the built-in models' files and registry.json. With `offline` nothing is fetched.
    """

    def __init__(self, models_dir: Path, offline: bool = False, built_ins: Mapping[str, BuiltIn] = BUILT_INS) -> None:
        self.models_dir = models_dir
        self.offline = offline
        self._built_ins = built_ins
        self._opened: dict[tuple[object, ...], Model] = {}
        self._lock = threading.Lock()

    def resolve(self, ref: str, *, base_dir: Path | None = None) -> Model:
        """The model that a reference means: a name, a path (relative to base_dir) or 'hf:org/repo[@revision]'.

        Raises BindError if there is none or it is not installed, ConfigError if its files cannot be used.
        """
        path = self._find(ref, base_dir)
        if path is None:
            raise BindError(f"model {ref} is not installed", hint=f"fetch it with: dql models pull {ref}")
        return self._open(ref, path)

    def installed(self, ref: str, *, base_dir: Path | None = None) -> bool:
        """Whether the model's files are on this machine. Raises BindError if the reference means nothing."""
        return self._find(ref, base_dir) is not None

    def pull(self, ref: str, progress: Report | None = None) -> Model:
        """Fetch a model if it is not installed. Raises BindError, or ConfigError where it cannot be fetched."""
        uri = self._uri(ref)
        if self._find(ref, None) is None:
            if self.offline:
                raise ConfigError(f"model {ref} is not installed and dql is offline", hint="RESET offline to fetch it")
            if uri.startswith("hf:"):
                return self._open(ref, download_snapshot(parse_reference(uri), ref, progress))
            install(self._built_ins[uri], self.models_dir, progress)
        return self.resolve(ref)

    def list(self) -> list[ModelInfo]:
        """All models by name: registered ones, then built-in ones that they do not hide."""
        entries = self._entries()
        names = [*sorted(entries), *(name for name in self._built_ins if name not in entries)]
        return [self.describe(name) for name in names]

    def describe(self, name: str) -> ModelInfo:
        """One model of `list`. Raises BindError for an unknown name."""
        entry = self._entries().get(name.lower())
        uri = self._uri(name)
        source = self._built_ins.get(uri)
        path = self._find(name, None, must_exist=False)
        size = _size(path) if path is not None else source.download_bytes if source else None
        return ModelInfo(
            name=name.lower(),
            kind="registered" if entry else "built-in",
            uri=uri,
            installed=path is not None,
            size=size,
            license=source.license if source else None,
            description=source.description if source else "",
            notice=source.notice if source else "",
        )

    def create(
        self, name: str, uri: str, options: Mapping[str, object] | None = None, *, or_replace: bool = False,
        base_dir: Path | None = None,
    ) -> None:  # fmt: skip
        """CREATE MODEL: register a name. A path is checked at once and kept absolute. Raises BindError, ConfigError."""
        if not _NAME.fullmatch(name):
            raise BindError(f"{name!r} cannot name a model", hint="letters, digits, '_', '.' and '-', a letter first")
        checked = _checked_options(options or {}, base_dir)
        if _is_path(uri):
            path = _absolute(uri, base_dir)
            uri = str(path)
            _ = open_model(path, name=name, uri=uri, **_overrides(checked)).tokenizer  # raises where it has none
        elif uri.startswith("hf:"):
            uri = str(parse_reference(uri))
        elif uri.lower() not in self._built_ins:
            raise self._unknown(uri, base_dir)
        with model_lock(self.models_dir, "registry"):
            entries = self._entries()
            if not or_replace and (name.lower() in entries or name.lower() in self._built_ins):
                raise BindError(f"model {name} exists already", hint="use CREATE OR REPLACE MODEL")
            self._write({**entries, name.lower(): _Entry(uri, checked)})

    def remove(self, name: str) -> None:
        """DROP MODEL: forget a registration, or delete a built-in model's files. Raises BindError."""
        name = name.lower()
        with model_lock(self.models_dir, "registry"):
            entries = self._entries()
            if name in entries:
                self._write({known: entry for known, entry in entries.items() if known != name})
                return
        if name not in self._built_ins:
            raise self._unknown(name, None)
        with model_lock(self.models_dir, name):
            folder = self.models_dir / name
            if not folder.is_dir():
                raise BindError(f"model {name} is not installed")
            doomed = Path(tempfile.mkdtemp(dir=self.models_dir, prefix=".removed-"))
            os.replace(folder, doomed / name)
            shutil.rmtree(doomed)

    def _uri(self, ref: str) -> str:
        """What a reference stands for: a path, an 'hf:' reference or the name of a built-in model."""
        if _is_path(ref) or ref.startswith("hf:"):
            return ref
        name = ref.lower()
        entry = self._entries().get(name)
        if entry is None and name not in self._built_ins:
            raise self._unknown(ref, None)
        return entry.uri if entry else name

    def _find(self, ref: str, base_dir: Path | None, *, must_exist: bool = True) -> Path | None:
        """Where the model lies; None if it is not installed. A missing local path is an error where it must exist."""
        uri = self._uri(ref)
        if uri.startswith("hf:"):
            return cached_snapshot(parse_reference(uri))
        if _is_path(uri):
            path = _absolute(uri, base_dir)
            if path.exists():
                return path
            if must_exist:
                raise BindError(f"there is no model file {path}", hint="give the path of a GGUF file or a folder")
            return None
        source = self._built_ins[uri]
        path = self.models_dir / source.name / source.entry
        return path if path.exists() else None

    def _open(self, ref: str, path: Path) -> Model:
        uri = self._uri(ref)
        is_hub = uri.startswith("hf:")
        entry = self._entries().get(ref.lower())
        state = path.stat()
        key = (ref, path, state.st_size, state.st_mtime_ns, json.dumps(entry.options if entry else {}))
        with self._lock:
            if key not in self._opened:
                source = self._built_ins.get(uri)
                self._opened[key] = open_model(
                    path,
                    name=ref,
                    uri=f"hf:{parse_reference(uri).repo}@{path.name}" if is_hub else uri,
                    root=snapshot_root(path) if is_hub else None,
                    license=source.license if source else None,
                    **_overrides(entry.options if entry else {}),
                )
            return self._opened[key]

    def _unknown(self, ref: str, base_dir: Path | None) -> BindError:
        if _absolute(ref, base_dir).exists():
            return BindError(f"there is no model named {ref}", hint=f"for the file or folder write './{ref}'")
        return BindError(f"there is no model named {ref}", hint=name_hint(ref, {*self._entries(), *self._built_ins}))

    def _entries(self) -> dict[str, _Entry]:
        path = self.models_dir / "registry.json"
        models = read_json(path).get("models", {})
        if not isinstance(models, dict) or not all(
            isinstance(entry, dict) and "uri" in entry for entry in models.values()
        ):
            raise ConfigError(f"{path}: not a registry of models", hint="delete it and register your models again")
        return {name: _Entry(str(entry["uri"]), entry.get("options", {})) for name, entry in models.items()}

    def _write(self, entries: Mapping[str, _Entry]) -> None:
        models = {name: {"uri": entry.uri, "options": dict(entry.options)} for name, entry in sorted(entries.items())}
        handle, temporary = tempfile.mkstemp(dir=self.models_dir, prefix=".registry-")
        with os.fdopen(handle, "w") as file:
            json.dump({"version": 1, "models": models}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.models_dir / "registry.json")


def _is_path(ref: str) -> bool:
    looks = "/" in ref or os.sep in ref or ref.startswith((".", "~"))
    return not ref.startswith("hf:") and (looks or Path(ref).suffix in {".gguf", ".safetensors", *PICKLES})


def _absolute(ref: str, base_dir: Path | None) -> Path:
    return Path(os.path.abspath((base_dir or Path.cwd()) / Path(ref).expanduser()))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _checked_options(options: Mapping[str, object], base_dir: Path | None) -> dict[str, Any]:
    checked: dict[str, Any] = {}
    for name, value in options.items():
        kind = _OPTIONS.get(name)
        if kind is None:
            raise BindError(f"CREATE MODEL has no option {name}", hint=name_hint(name, _OPTIONS))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise BindError(f"{name} must be {'a whole number' if kind is int else 'the path of a file'}")
        checked[name] = str(_absolute(value, base_dir)) if isinstance(value, str) else value
    return checked


def _overrides(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as arguments of open_model; the chat template is read from its file."""
    overrides = {name: value for name, value in options.items() if name == "context_length"}
    if "chat_template" in options:
        try:
            overrides["template"] = Path(options["chat_template"]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the chat template {options['chat_template']} cannot be read: {error}") from error
    return overrides
