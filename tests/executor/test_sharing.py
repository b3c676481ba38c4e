"""What prompts share is computed once, on every level of the prefix tree: counters prove it."""

from pathlib import Path

import numpy as np
import pytest

from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request, Score, Task, Tokens
from dql.executor.rows import plan_window
from dql.models import open_model
from tests.models.real import real_model
from tests.models.tiny import TinySizes, tiny_model

LABELS = ((5, 2), (9,))


def prompts(rows: int, instruction: int, groups: int, group_text: int, own: int, vocabulary: int) -> list[Tokens]:
    """Instruction, the text of the row's group, its own: no two rows share more, since a row's own begins with it."""
    draw = np.random.default_rng(4)
    first = draw.integers(3, vocabulary, instruction)
    texts = [np.append(3 + group, draw.integers(3, vocabulary, group_text - 1)) for group in range(groups)]
    rest = draw.integers(3, vocabulary, (rows, own))
    rest[:, 0] = 3 + np.arange(rows) // groups
    return [
        np.concatenate((first, texts[row % groups], rest[row]), dtype=np.int32)
        if groups
        else np.concatenate((first, rest[row]), dtype=np.int32)
        for row in range(rows)
    ]


@pytest.mark.parametrize("task", [Score(LABELS), Generate(3)])
def test_groups_share_on_their_own_level_and_are_read_densely(model_file: Path, task: Task) -> None:
    asked = [Request(i, tokens, task) for i, tokens in enumerate(prompts(60, 50, 3, 40, 5, 250))]
    window = plan_window(asked, [], 512, 500)
    levels = [(node.start, node.end, node.rows, node.dense) for node in window.nodes]
    assert levels == [(0, 50, 60, True)] + [(50, 90, 20, True)] * 3
    assert all(row.dense_parent is not None and row.dense_end == 90 for row in window.rows)
    engine = Engine.load(open_model(model_file, name="tiny", uri="tiny"), EngineOptions(kv_bytes=1 << 22))
    assert all(answer.failure is None for answer in engine.run(asked))
    assert engine.counters.prefilled == 50 + 3 * 40 + 60 * 5
    assert engine.counters.prefilled + engine.counters.reused == 60 * 95


@pytest.mark.parametrize("task", [Score(LABELS), Generate(6)])
def test_plain_products_give_the_answers_of_the_fused_kernel(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, task: Task
) -> None:
    asked = [Request(i, tokens, task) for i, tokens in enumerate(prompts(60, 50, 3, 40, 5, 250))]
    answers = []
    for used in (True, False):
        monkeypatch.setattr("dql.executor.attention.products_pay", lambda rows, keys, used=used: used)
        engine = Engine.load(open_model(model_file, name="tiny", uri="tiny"), EngineOptions(kv_bytes=1 << 22))
        answers.append(sorted(engine.run(asked), key=lambda answer: answer.id))
    for one, other in zip(*answers, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert np.allclose(one.logprobs, other.logprobs, atol=1e-4)


@pytest.mark.slow
def test_a_long_instruction_over_thousands_of_rows_costs_its_prefix_once(tmp_path: Path) -> None:
    path = tiny_model(tmp_path, TinySizes(context=2048))
    engine = Engine.load(open_model(path, name="tiny", uri="tiny"), EngineOptions(kv_bytes=1 << 23))
    rows = 4096
    own = np.stack(np.unravel_index(np.arange(rows), (16, 16, 16)), axis=1) + 3
    instruction = np.random.default_rng(1).integers(3, 250, 2000)
    texts = [np.concatenate((instruction, text), dtype=np.int32) for text in own]
    assert all(a.failure is None for a in engine.run(Request(i, text, Score(LABELS)) for i, text in enumerate(texts)))
    assert engine.counters.prefilled <= 2000 + 3 * rows
    assert engine.counters.prefilled + engine.counters.reused == 2003 * rows
    assert engine.counters.forced == rows


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_shares_alike() -> None:
    engine = Engine.load(real_model("smollm2"), EngineOptions(kv_bytes=1 << 28))
    asked = [Request(i, t, Score(LABELS)) for i, t in enumerate(prompts(24, 300, 2, 40, 4, 40_000))]
    assert all(answer.failure is None for answer in engine.run(asked))
    assert engine.counters.prefilled == 300 + 2 * 40 + 24 * 4
