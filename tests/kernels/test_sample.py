"""Sampling: what is kept, that draws follow the renormalised softmax, and that noise depends on (seed, step, token)."""

from dataclasses import dataclass

import pytest
import torch

from dql.kernels import sample as sample_module
from dql.kernels.language import interpreting
from dql.kernels.sample import SamplingRows, greedy, sample
from tests.kernels.reference import double

VOCABULARY = 77


@dataclass(frozen=True)
class Settings:
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0


def rows_of(settings: list[Settings], seeds: list[int], steps: list[int], device: str) -> SamplingRows:
    def column(values: list[float] | list[int], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return SamplingRows(
        column([s.temperature for s in settings], torch.float32),
        column([s.top_k for s in settings], torch.int32),
        column([s.top_p for s in settings], torch.float32),
        column([s.min_p for s in settings], torch.float32),
        column(seeds, torch.int64),
        column(steps, torch.int32),
    )


def distribution(logits: torch.Tensor, settings: Settings, allowed: torch.Tensor) -> torch.Tensor:
    """The probabilities [vocabulary] that a row is to be drawn from, in float64."""
    z = double(logits).masked_fill(~allowed, -torch.inf) / settings.temperature
    order = z.argsort(descending=True)
    kept = order[: settings.top_k or len(z)]
    mass = z[kept].softmax(0).cumsum(0)
    kept = kept[: int((mass < settings.top_p).sum()) + 1]
    out = torch.zeros_like(z)
    out[kept] = z[kept].softmax(0)
    return torch.where(out >= settings.min_p * out.max(), out, 0) / out[out >= settings.min_p * out.max()].sum()


def packed(allowed: torch.Tensor) -> torch.Tensor:
    """allowed [rows, vocabulary] bool → mask words [rows, words] int32."""
    rows, vocabulary = allowed.shape
    bits = torch.zeros(rows, (vocabulary + 31) // 32 * 32, dtype=torch.int64)
    bits[:, :vocabulary] = allowed
    words = (bits.view(rows, -1, 32) << torch.arange(32)).sum(-1)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).int()


def random_mask(rows: int, random: torch.Generator) -> torch.Tensor:
    return torch.rand(rows, VOCABULARY, generator=random) < 0.5


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_greedy_takes_the_largest_allowed_logit(
    device: str, dtype: torch.dtype, random: torch.Generator, masked: bool
) -> None:
    logits = (torch.randn(3, VOCABULARY, generator=random) * 3).to(dtype)
    allowed = random_mask(3, random) if masked else torch.ones(3, VOCABULARY, dtype=torch.bool)
    tied = int(allowed[0].nonzero()[0]), int(allowed[0].nonzero()[-1])
    logits[0, tied[0]] = logits[0, tied[1]] = 30.0
    mask = packed(allowed).to(device) if masked else None
    expected = double(logits).masked_fill(~allowed, -torch.inf).argmax(-1)
    assert expected[0] == tied[0]
    cold = rows_of([Settings(0.0, top_k=2, top_p=0.5)] * 3, [1, 2, 3], [0, 0, 0], device)
    for tokens, log_probs in (greedy(logits.to(device), mask=mask), sample(logits.to(device), cold, mask=mask)):
        assert tokens.tolist() == expected.tolist()
        probabilities = double(logits).log_softmax(-1).gather(1, expected[:, None])[:, 0]
        assert (double(log_probs) - probabilities).abs().max() < 1e-4


CUTS = [
    Settings(),
    Settings(0.5),
    Settings(top_k=5),
    Settings(top_p=0.6),
    Settings(2.0, top_k=40, top_p=0.8),
    Settings(min_p=0.2),
    Settings(1.5, top_k=9, top_p=0.95, min_p=0.3),
    Settings(top_k=1),
    Settings(top_p=1e-4),
]


@pytest.mark.parametrize("masked", [False, True], ids=["free", "masked"])
def test_draws_follow_the_renormalised_softmax(device: str, random: torch.Generator, masked: bool) -> None:
    """Every draw lies in the kept set, and a chi-square statistic stays below its 1 − 1e-7 quantile."""
    draws = 2 if interpreting() else 1000
    logits = torch.randn(len(CUTS), VOCABULARY, generator=random) * 2
    allowed = random_mask(len(CUTS), random) if masked else torch.ones(len(CUTS), VOCABULARY, dtype=torch.bool)
    mask = packed(allowed).repeat_interleave(draws, 0).to(device) if masked else None
    seeds = torch.randint(-(2**62), 2**62, (len(CUTS) * draws,), generator=random).tolist()
    rows = rows_of([s for s in CUTS for _ in range(draws)], seeds, [3] * len(seeds), device)
    tokens, _ = sample(logits.repeat_interleave(draws, 0).to(device), rows, mask=mask)
    for index, settings in enumerate(CUTS):
        expected = distribution(logits[index], settings, allowed[index])
        found = torch.bincount(tokens.cpu().view(-1, draws)[index], minlength=VOCABULARY).double()
        assert not found[expected == 0].any()
        common = expected * draws >= 5
        if int(common.sum()) > 1:
            statistic = ((found - expected * draws) ** 2 / (expected * draws))[common].sum()
            degrees = int(common.sum())
            assert statistic < degrees + 6 * (2 * degrees) ** 0.5 + 25


def test_noise_is_of_seed_step_and_token_alone(device: str, random: torch.Generator) -> None:
    logits = torch.randn(1, VOCABULARY, generator=random)
    settings, seeds, steps = [Settings()] * 6, [5, -9, 5, 5, 1 << 40, -9], [0, 0, 0, 1, 0, 0]
    together, _ = sample(logits.expand(6, -1).contiguous().to(device), rows_of(settings, seeds, steps, device))
    assert together[0] == together[2] and together[1] == together[5]
    for row in range(6):
        alone, _ = sample(logits.to(device), rows_of(settings[:1], [seeds[row]], [steps[row]], device))
        assert alone[0] == together[row]


def test_every_path_draws_the_same_tokens(device: str) -> None:
    """Tokens of fixed seeds, so that the CPU path, the interpreter and a GPU agree with one another."""
    logits = torch.linspace(-2, 2, VOCABULARY)[None].repeat(8, 1)
    settings = [Settings(), Settings(top_k=20), Settings(top_p=0.5), Settings(0.7, min_p=0.1)] * 2
    tokens, _ = sample(logits.to(device), rows_of(settings, [7] * 4 + [1 << 50] * 4, list(range(8)), device))
    assert tokens.tolist() == [52, 74, 73, 59, 59, 65, 74, 76]


@pytest.mark.parametrize(
    "settings",
    [Settings(0.7, top_k=9), Settings(1.3, top_p=0.6), Settings(1.0, min_p=0.2), Settings(0.9, 40, 0.8, 0.01)],
)
def test_the_cpu_draws_the_same_however_few_logits_are_looked_at_first(
    settings: Settings, random: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(16, VOCABULARY, generator=random) * 3
    rows = rows_of([settings] * 16, list(range(16)), [3] * 16, "cpu")
    drawn = []
    for looked_at in (1, 5, VOCABULARY):
        monkeypatch.setattr(sample_module, "HEAD", looked_at)
        drawn.append(sample_module._cpu(logits, rows, None)[0].tolist())
    assert drawn[0] == drawn[1] == drawn[2]
