"""The benchmarks of single matrices: every kind multiplies, and all kinds of layers are timed and printed."""

from pathlib import Path

import pytest
import torch

from benchmarks.precision_layers import kinds, measured, report
from benchmarks.precision_layouts import chosen, passed_over
from dql.executor.weights import open_weights
from dql.models import open_model

ERROR = {"fp32": 1e-5, "int4 weight-only": 0.12}  # of the product's norm; others have 7 bits or more


@pytest.mark.parametrize("name", [*chosen(), *passed_over()])
def test_a_kind_multiplies(name: str) -> None:
    held, generator = (chosen() | passed_over())[name], torch.Generator().manual_seed(0)
    weight, x = (torch.randn(size, generator=generator) for size in ((64, 96), (5, 96)))
    bias, residual = torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 5 * 64).view(5, 64)
    exact = x @ weight.t() + bias
    linear, gated = held.linear("o", weight, bias), held.gated(weight[:32], weight[32:], bias, "silu")
    pairs = [
        (linear(x), exact),
        (linear.plus(x, residual.clone()), exact + residual),
        (gated(x).float(), torch.nn.functional.silu(exact[:, :32]) * exact[:, 32:]),
    ]
    for found, wanted in pairs:
        assert torch.linalg.norm(found - wanted) < ERROR.get(name, 0.02) * torch.linalg.norm(wanted)


@pytest.mark.slow
def test_layers_are_timed_in_every_kind(model_file: Path) -> None:
    model = open_model(model_file, name="tiny", uri=str(model_file))
    with torch.inference_mode():
        stacks = kinds(model.shape, open_weights(model))
        seconds = {tokens: measured(model.shape, stacks, tokens, 0.0) for tokens in (1, 16)}
    assert {*chosen(), *passed_over()} <= stacks.keys()
    table = report(seconds).splitlines()
    assert len(table) == len(stacks) + 2 and {line.count("|") for line in table} == {4}
