"""Models of the Hugging Face hub: 'hf:org/repo' or 'hf:org/repo@revision', through its own cache.

HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE keep the meaning that huggingface_hub gives them. Of a repository only
the safetensors that make up the model are fetched, and the JSON files and chat template at its top: no pickle, no code,
no second copy of the weights in another layout.
"""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dql.errors import BindError, ConfigError
from dql.models.checkpoint import INDEX, PICKLE_HINT, PICKLES, is_complete, shards_of
from dql.models.fetch import PullProgress, Report

_REFERENCE = re.compile(r"hf:(?://)?(?P<repo>[\w.-]{1,96}/[\w.-]{1,96})(?:@(?P<revision>[\w./-]+))?")
_NO_REPO = re.compile(r"(?:^|/)[.-]|[.-](?:/|$)|--|\.\.|\.git$")  # what the hub refuses as a name
_NO_REVISION = re.compile(r"(?:^|/)[./-]|/$|\.\.")  # what git does; the cache makes a path of it
_SMALL = re.compile(r"\w[\w.-]*\.(?:json|jinja)")
_CONFIG = "config.json"
_WHOLE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class HubReference:
    """A repository and, where pinned, its branch, tag or commit."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f"@{self.revision}" if self.revision else "")


def parse_reference(text: str) -> HubReference:
    """Raises BindError where the text is no hub reference."""
    match = _REFERENCE.fullmatch(text)
    if match is None or _NO_REPO.search(match["repo"]) or _NO_REVISION.search(match["revision"] or ""):
        raise BindError(f"{text!r} is not a model of the hub", hint="write 'hf:org/repo' or 'hf:org/repo@revision'")
    return HubReference(match["repo"], match["revision"])


def cached_snapshot(reference: HubReference) -> Path | None:
    """The folder of this model in the local cache; None where it is not there, or not whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            reference.repo, revision=reference.revision, allow_patterns=[_CONFIG], local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if is_complete(Path(folder)) else None


def download_snapshot(reference: HubReference, name: str, report: Report | None = None) -> Path:
    """Fetch what is missing of this model into the cache; `name`: what progress calls it.

    Raises ConfigError with the hub's reason, or where the repository holds no safetensors.
    """
    try:
        return _Download(reference, name, report or (lambda _: None)).run()
    except ConfigError:
        raise
    except Exception as error:  # the hub's errors and those of its transports share no base
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"{reference} could not be fetched: {reason}",
            hint="check the name and the network; gated models need HF_TOKEN and their terms accepted on the hub",
        ) from error


class _Download:
    """One pull of one commit of a repository."""

    def __init__(self, reference: HubReference, name: str, report: Report) -> None:
        self._reference = reference
        self._name = name
        self._report = report
        self._done = 0
        self._total: int | None = None

    def run(self) -> Path:
        """The folder of the snapshot."""
        sizes = self._sizes()
        small = [file for file in sizes if _SMALL.fullmatch(file) and file not in (_CONFIG, INDEX)]
        if _CONFIG not in sizes or not {INDEX, _WHOLE} & sizes.keys():
            raise self._unusable(sizes)
        commit, weights = self._reference.revision, [_WHOLE]
        if INDEX in sizes:
            folder = self._fetch(INDEX, commit)
            commit, weights = folder.name, shards_of(folder / INDEX)
        self._total = sum(sizes.get(file, 0) for file in weights)
        for file in (*weights, *small):
            commit = self._fetch(file, commit).name  # all of the commit that the branch pointed to at first
        return self._fetch(_CONFIG, commit)  # last, so that an interrupted download is never taken for whole

    def _sizes(self) -> dict[str, int]:
        """Bytes of all files of the repository by name."""
        from huggingface_hub import HfApi

        reference = self._reference
        found = HfApi().model_info(reference.repo, revision=reference.revision, files_metadata=True).siblings
        return {file.rfilename: file.size or 0 for file in found or ()}

    def _fetch(self, file: str, revision: str | None) -> Path:
        """Fetch one file at the top of the repository; returns the folder that it lies in."""
        from huggingface_hub import hf_hub_download

        options: dict[str, Any] = {}
        if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
            options["tqdm_class"] = self._bar(counted=file.endswith(".safetensors"))
        self._report(PullProgress(self._name, self._done, self._total))
        return Path(hf_hub_download(self._reference.repo, file, revision=revision, **options)).parent

    def _bar(self, *, counted: bool) -> type:
        """What huggingface_hub takes for a progress bar; it reports bytes and draws nothing."""
        download = self

        class Bar:
            def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
                self.update(initial)

            def __enter__(self) -> "Bar":
                return self

            def __exit__(self, *_: object) -> None: ...

            def update(self, count: float | None = 1) -> None:
                download._advance(int(count or 0) if counted else 0)

            def close(self) -> None: ...

            def refresh(self, *_: object, **__: object) -> None: ...

            def set_description(self, *_: object, **__: object) -> None: ...

        return Bar

    def _advance(self, count: int) -> None:
        self._done += count
        self._report(PullProgress(self._name, self._done, self._total))

    def _unusable(self, files: Iterable[str]) -> ConfigError:
        pickled = any(Path(file).suffix in PICKLES for file in files)
        what = f"{_CONFIG} with {_WHOLE} or its shards"
        return ConfigError(
            f"{self._reference}: the repository does not hold {what}",
            hint=PICKLE_HINT if pickled else "GGUF files of the hub are fetched by hand and used by their path",
        )
