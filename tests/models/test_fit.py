"""Tokenizers that know more tokens than their models: refused where nothing can be read, told where a word cannot."""

import json
from pathlib import Path
from typing import Any

import pytest

from dql.config import Config
from dql.errors import ConfigError
from dql.executor.progress import Tracker
from dql.model_commands import pull
from dql.models import Model, open_model
from dql.models.registry import Registry
from dql.prompts.compiled import compile_prompt
from dql.prompts.spec import PromptSpec
from dql.session import Session
from tests.models.test_checkpoint import CONFIG, checkpoint
from tests.models.vocabularies import json_tokenizers


def grown(folder: Path, vocab_size: int, *added: str, bos: str | None = None, template: str | None = None) -> Path:
    """A folder of a model with so many tokens, whose tokenizer has 267, of which 'the' is the last, and these."""
    checkpoint(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": vocab_size}))
    source: dict[str, Any] = json_tokenizers()["byte-level"]
    source["added_tokens"] += [{**source["added_tokens"][0], "id": 267 + n, "content": c} for n, c in enumerate(added)]
    (folder / "tokenizer.json").write_text(json.dumps(source))
    settings = {"eos_token": "</s>", "bos_token": bos, "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def opened(folder: Path) -> Model:
    return open_model(folder, name="grown", uri="grown")


def test_a_tokenizer_that_fits_is_passed_over(tmp_path: Path) -> None:
    assert opened(grown(tmp_path / "more", 300)).notice is None
    assert opened(grown(tmp_path / "control", 267, "<image_soft_token>")).notice is None  # as Gemma 3 comes


def test_words_without_a_row_are_told_once(tmp_path: Path) -> None:
    folder = grown(tmp_path / "grown", 266)
    with Session(config=Config(home=tmp_path / "home")) as session:
        session.query(f"CREATE MODEL grown FROM '{folder}'")
        tracker = Tracker(None)
        for _ in range(2):
            session.runtime.model("grown", tracker)
    told = "grown: its tokenizer has 1 token more than the model ('the'); a row whose text holds one has no answer"
    assert tracker.notices == [told]


def test_a_fetch_tells_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DQL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Registry, "installed", lambda self, ref: False)
    pull(str(grown(tmp_path / "grown", 266)), quiet=True)
    assert "its tokenizer has 1 token more than the model ('the')" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("vocab_size", "added", "bos", "token"),
    [(120, (), None, "'~' is token 135"), (267, ("<start>",), "<start>", "'<start>' is token 267 of 268"),
     (4, (), None, "the model has 4")],
)  # fmt: skip
def test_another_models_tokenizer_is_refused(
    tmp_path: Path, vocab_size: int, added: tuple[str, ...], bos: str | None, token: str
) -> None:
    folder, registry = grown(tmp_path / "grown", vocab_size, *added, bos=bos), Registry(tmp_path / "models")
    with pytest.raises(ConfigError, match=f"{token}.*the tokenizer is another model's") as refused:
        registry.create("grown", str(folder))
    assert str(folder) in refused.value.message and refused.value.hint is not None
    assert "grown" not in {info.name for info in registry.list()}


def test_a_template_that_writes_more_than_the_model_reads_is_refused(tmp_path: Path) -> None:
    template = "{% for m in messages %}<turn>{{ m['content'] }}</s>{% endfor %}"
    model = opened(grown(tmp_path / "grown", 267, "<turn>", template=template))
    assert model.notice is None
    with pytest.raises(ConfigError, match="each prompt holds '<turn>', token 267, and grown has 267 tokens"):
        compile_prompt(model, PromptSpec(task="generate", template=("Say ", 0)))


def test_a_folder_without_a_tokenizer_is_no_model(tmp_path: Path) -> None:
    folder, registry = checkpoint(tmp_path / "bare"), Registry(tmp_path / "models")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"it has no tokenizer\.json"):
        registry.create("bare", str(folder))
    assert "bare" not in {info.name for info in registry.list()}
