"""A checkpoint folder of a family that only transformers knows: from SQL, the same text that transformers generates."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dql.config import Config
from dql.executor.engine import Engine
from dql.executor.requests import Answer, Request
from dql.session import Session
from tests.executor.checkpoints import Checkpoint, checkpoint
from tests.models.vocabularies import json_tokenizers

NEW_TOKENS = 6
CHAT = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}<|im_start|>"


@pytest.fixture
def folder(tmp_path: Path) -> Checkpoint:
    """Granite in several shards, with a byte-level tokenizer and a chat template."""
    files = checkpoint(tmp_path / "granite", "granite", vocab_size=272, max_shard_size="40KB")
    assert len(files.model.files) > 1
    (files.model.path / "tokenizer.json").write_text(json.dumps(json_tokenizers()["byte-level"]))
    settings = {"eos_token": "</s>", "chat_template": CHAT}
    (files.model.path / "tokenizer_config.json").write_text(json.dumps(settings))
    return files


@pytest.mark.slow
def test_a_folder_answers_as_transformers_generates(
    tmp_path: Path, folder: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []
    run = Engine.run

    def noting(self: Engine, requests: Iterable[Request], **options: Any) -> Iterator[Answer]:
        def noted() -> Iterator[Request]:
            for request in requests:
                asked.append(request)
                yield request

        return run(self, noted(), **options)

    monkeypatch.setattr(Engine, "run", noting)
    monkeypatch.chdir(folder.model.path.parent)
    texts = ["the first of the rows", "and the second"]
    with Session(config=Config(home=tmp_path / "home")) as session:
        rows = "FROM (VALUES (1, 'the first of the rows'), (2, 'and the second')) t(id, x) ORDER BY id"
        generate = f"AI_GENERATE('{{x}}', model => './granite', max_tokens => {NEW_TOKENS})"
        answers = session.query(f"SELECT {generate} AS a {rows}").arrow()["a"].to_pylist()
        requests = sorted(asked, key=lambda request: request.id)
        labels = session.query(f"SELECT AI_CLASSIFY(x, ['the', 'and']) AS a {rows} USING './granite'").arrow()["a"]

    tokenizer = folder.model.tokenizer
    for text, answer, request in zip(texts, answers, requests, strict=True):
        assert text in tokenizer.decode_batch([request.tokens.tolist()])[0]
        ids = torch.from_numpy(request.tokens.astype("int64"))[None]
        with torch.no_grad():
            whole = folder.oracle.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),  # else the prompt's own pad tokens would be hidden
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=sorted(tokenizer.eos_ids),
            )
        expected = tokenizer.decode_batch([whole[0, len(request.tokens) :].tolist()])[0]
        assert answer.strip() == expected.strip()
    assert set(labels.to_pylist()) <= {"the", "and"} and len(labels) == 2
