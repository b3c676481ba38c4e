"""Models of the hub, fetched from a server on the loopback interface in a process of its own, as its users have it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dql.errors import BindError
from dql.models.hub import HubReference, parse_reference
from tests.models.fake_hub import COMMIT, FakeHub, serve
from tests.models.test_checkpoint import checkpoint

PROGRAM = """
import sys
from pathlib import Path
from dql.errors import DqlError
from dql.models.registry import Registry
registry = Registry(Path(sys.argv[1]), offline=len(sys.argv) > 3)
try:
    steps = []
    model = registry.pull(sys.argv[2], steps.append)
    print(model.uri, len(model.files), model.digest[:8], steps[-1].done if steps else "-")
except DqlError as error:
    print(f"{type(error).__name__}: {error}")
"""


class Hub:
    """Runs pulls against the server."""

    def __init__(self, server: FakeHub, home: Path) -> None:
        self.server = server
        self.home = home

    def pull(self, reference: str, *flags: str, **variables: str) -> str:
        own = {"HF_ENDPOINT": self.server.url, "HF_HOME": str(self.home), "HF_HUB_ETAG_TIMEOUT": "5", "NO_PROXY": "*"}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(self.home / "models"), reference, *flags],
            env={**clean, **own, **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def cached(self) -> set[str]:
        snapshots = self.home / "hub" / "models--org--name" / "snapshots" / COMMIT
        return {file.name for file in snapshots.iterdir()} if snapshots.exists() else set()


@pytest.mark.parametrize(
    "text",
    ["hf:", "hf:name", "hf:a/b/c", "hf:../name", "hf:-x/y", "hf:org/a--b", "hf:org/a..b", "hf:org/a.git", "hf:org/a."]
    + [f"hf:org/name@{revision}" for revision in ("", "../main", "a/../../b", "/etc", "refs/", ".", "a//b", "-x")]
    + ["hf:org/" + "a" * 97],
)
def test_a_name_that_the_hub_or_a_path_would_stumble_over_is_refused(text: str) -> None:
    with pytest.raises(BindError, match="is not a model of the hub"):
        parse_reference(text)


def test_names_and_revisions_of_the_hub_are_taken() -> None:
    for repo in ("Qwen/Qwen3-0.6B", "a/b", "_x/y_", "01-ai/Yi-1.5-6B"):
        for revision in (None, "main", "v1.0", "refs/pr/12", "feature/a--b"):
            text = f"hf:{repo}" + (f"@{revision}" if revision else "")
            assert parse_reference(text) == HubReference(repo, revision) and str(parse_reference(text)) == text


@pytest.mark.slow
def test_only_what_makes_up_the_model_is_fetched_and_only_once(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source", shards=3)
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "modeling_name.py").write_text("raise SystemExit")
    (source / "consolidated.safetensors").write_bytes(b"the same weights once more")
    (source / "onnx").mkdir()
    (source / "onnx" / "other.json").write_text("{}")
    with serve(source) as server:
        hub = Hub(server, tmp_path / "home")
        first = hub.pull("hf:org/name")
        assert first.startswith(f"hf:org/name@{COMMIT} 3 ")
        names = {f"model-{n}.safetensors" for n in range(3)}
        assert hub.cached() == {
            "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json", *names
        }  # fmt: skip
        assert int(first.split()[-1]) == sum((source / name).stat().st_size for name in names)
        server.fetched.clear()
        again = hub.pull(f"hf:org/name@{COMMIT}", "offline", HF_HUB_OFFLINE="1")
        assert again.split()[:3] == first.split()[:3] and not server.fetched
        assert "hf:org/other is not installed and dql is offline" in hub.pull("hf:org/other", "offline")


@pytest.mark.slow
def test_a_gated_model_needs_its_token(tmp_path: Path) -> None:
    with serve(checkpoint(tmp_path / "source")) as server:
        server.token = "secret"
        hub = Hub(server, tmp_path / "home")
        refused = hub.pull("hf:org/name@main")
        assert refused.startswith("ConfigError: hf:org/name@main could not be fetched") and "HF_TOKEN" in refused
        assert hub.pull("hf:org/name@main", HF_TOKEN="secret").startswith(f"hf:org/name@{COMMIT} 1 ")


@pytest.mark.slow
def test_a_download_that_is_cut_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    with serve(checkpoint(tmp_path / "source", shards=2)) as server:
        server.broken.add("model-1.safetensors")
        hub = Hub(server, tmp_path / "home")
        assert "could not be fetched" in hub.pull("hf:org/name")
        assert "config.json" not in hub.cached()
        server.broken.clear()
        server.fetched.clear()
        assert hub.pull("hf:org/name").startswith(f"hf:org/name@{COMMIT} 2 ")
        assert "model-0.safetensors" not in server.fetched


@pytest.mark.slow
def test_a_repository_without_safetensors_says_so(tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "source")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with serve(source) as server:
        found = Hub(server, tmp_path / "home").pull("hf:org/name")
    assert "does not hold config.json with model.safetensors" in found and "never opened" in found
    assert server.fetched == []
