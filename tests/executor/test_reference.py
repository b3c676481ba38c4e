"""The real models against transformers in fp32 (make_reference.py), all rows in one batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dql.executor.engine import Engine
from dql.executor.requests import Generate, Request, Score
from tests.models.real import real_model

FIXTURES = Path(__file__).parent / "fixtures"


def rows(flat: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    return np.split(flat, np.cumsum(lengths)[:-1])


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_greedy_tokens_and_label_scores_are_those_of_transformers(name: str) -> None:
    reference = np.load(FIXTURES / f"{name}.npz")
    prompts = rows(reference["prompts"], reference["prompt_lengths"])
    labels = tuple(tuple(label.tolist()) for label in rows(reference["labels"], reference["label_lengths"]))
    engine = Engine.load(real_model(name))

    new_tokens = reference["tokens"].shape[1]
    generated = engine.run(Request(i, prompt, Generate(new_tokens)) for i, prompt in enumerate(prompts))
    same = [np.array_equal(answer.tokens, reference["tokens"][answer.id]) for answer in generated]
    assert len(same) == len(prompts) and np.mean(same) >= 0.99

    expected = torch.from_numpy(reference["scores"]).log_softmax(-1).numpy()
    asked = [Request(i, prompt, Score(labels)) for i, prompt in enumerate(prompts[::5][: len(expected)])]
    scored = {answer.id: answer for answer in engine.run(asked)}
    np.testing.assert_allclose([scored[i].logprobs for i in range(len(expected))], expected, atol=1e-3)
