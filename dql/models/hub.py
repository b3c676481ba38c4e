"""Models of the Hugging Face hub: 'hf:org/repo' or 'hf:org/repo@revision', through its own cache.

HF_HOME, HF_TOKEN and HF_HUB_OFFLINE keep the meaning that huggingface_hub gives them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from dql.errors import BindError, ConfigError

_REFERENCE = re.compile(r"hf:(?://)?(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_FILES = ["*.safetensors", "*.json", "*.jinja"]  # no pickle file is even downloaded


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
    if match is None:
        raise BindError(f"{text!r} is not a model of the hub", hint="write 'hf:org/repo' or 'hf:org/repo@revision'")
    return HubReference(match["repo"], match["revision"])


def cached_snapshot(reference: HubReference) -> Path | None:
    """The folder of this model in the local cache; None where it is not there, or not whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            reference.repo, revision=reference.revision, allow_patterns=_FILES, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    return Path(folder) if (Path(folder) / "config.json").exists() else None


def download_snapshot(reference: HubReference) -> Path:
    """Fetch what is missing of this model into the cache. Raises ConfigError with the hub's reason."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(reference.repo, revision=reference.revision, allow_patterns=_FILES))
    except Exception as error:  # the hub's errors and those of its transports share no base
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{reference} could not be fetched: {reason}",
            hint="check the name and the network; gated models need HF_TOKEN and their terms accepted on the hub",
        ) from error


def snapshot_root(folder: Path) -> Path:
    """The part of the cache that a snapshot's links may point into: its own repository's folder."""
    return folder.parent.parent if folder.parent.name == "snapshots" else folder
