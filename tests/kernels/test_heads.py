"""What reads the last hidden states: the label head with its normaliser, and pooling."""

import pytest
import torch

from dql.kernels.label_head import label_log_probs, label_logits, vocabulary_logsumexp
from dql.kernels.pooling import Pooling, pool
from tests.kernels.reference import double, error, tolerance


@pytest.mark.parametrize(("tokens", "width"), [(5, 24), (33, 40)], ids=["few", "many"])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_label_log_probs(
    device: str,
    product_dtype: torch.dtype,
    random: torch.Generator,
    tokens: int,
    width: int,
    softcap: float | None,
) -> None:
    hidden = torch.randn(tokens, width, generator=random).to(product_dtype)
    weight = (torch.randn(77, width, generator=random) / 2).to(product_dtype)
    labels = torch.tensor([3, 76, 3, 0])
    logits = double(hidden) @ double(weight).t()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    on, head, ids = hidden.to(device), weight.to(device), labels.to(device)
    assert error(label_logits(on, head, ids, softcap=softcap), logits[:, labels]) < tolerance(product_dtype)
    bound = 10 * tolerance(product_dtype)
    normaliser = vocabulary_logsumexp(on, head, softcap=softcap)
    assert (double(normaliser) - logits.logsumexp(-1)).abs().max() < bound
    expected = logits.log_softmax(-1)[:, labels]
    assert (double(label_log_probs(on, head, ids, softcap=softcap)) - expected).abs().max() < bound


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("normalize", [False, True])
def test_pool(device: str, dtype: torch.dtype, random: torch.Generator, pooling: Pooling, normalize: bool) -> None:
    lengths = [1, 7, 4]
    hidden = torch.randn(sum(lengths), 37, generator=random).to(dtype)
    rows = torch.split_with_sizes(double(hidden), lengths)
    expected = torch.stack([{"mean": row.mean(0), "first": row[0], "last": row[-1]}[pooling] for row in rows])
    if normalize:
        expected = expected / expected.norm(dim=-1, keepdim=True)
    offsets = torch.tensor([0, 1, 8, 12], dtype=torch.int32).to(device)
    out = pool(hidden.to(device), offsets, pooling, normalize=normalize)
    assert out.dtype == torch.float32
    assert error(out, expected) < tolerance(torch.float32)
