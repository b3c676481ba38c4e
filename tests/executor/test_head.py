"""The LM head on the CPU: what its passes over chunks of the vocabulary find is what all logits say."""

import pytest
import torch

from dql.executor.models.head import Head
from dql.executor.quantize import layout


@pytest.mark.parametrize("vocabulary", [3, 4096 + 640, 4096 + 70], ids=["small", "whole spans", "a part of a span"])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_best_token_is_the_first_of_the_highest(vocabulary: int, softcap: float | None) -> None:
    draw = torch.Generator().manual_seed(vocabulary)
    weight = torch.randint(-2, 3, (vocabulary, 4), generator=draw).float()  # so that many logits are equal
    hidden = torch.randint(-2, 3, (9, 4), generator=draw).float()
    head = Head(weight, softcap, layout("fp32", torch.device("cpu")))
    logits = head.logits(hidden)
    tokens, logprobs = head.best(hidden)
    assert torch.equal(tokens, logits.max(dim=-1).indices)
    assert torch.allclose(logprobs, logits.log_softmax(dim=-1).amax(dim=-1), atol=1e-5)
