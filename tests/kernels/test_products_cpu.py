"""The CPU's plain products for attention: shared runs joined to what was attended to before, and lanes of one query."""

import pytest
import torch

from dql.kernels import shared_cpu
from dql.kernels.fused_cpu import HIDDEN
from dql.kernels.lanes_cpu import attend_lanes
from dql.kernels.shared_cpu import join_shared
from tests.kernels import reference
from tests.kernels.reference import double, error

SCALE = 0.3
KV_HEADS = 2


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("scores", [1 << 18, 100], ids=["one block", "several blocks"])
@pytest.mark.parametrize("lead", [0.0, 200.0, -200.0], ids=["alike", "own far above", "own far below"])
def test_a_joined_run_is_as_if_all_keys_were_read_at_once(
    random: torch.Generator, monkeypatch: pytest.MonkeyPatch, group: int, scores: int, lead: float
) -> None:
    monkeypatch.setattr(shared_cpu, "_SCORES", scores)
    own, shared, dim = 5, 13, 16
    q = torch.randn(19, KV_HEADS * group + 4, dim, generator=random)[:, : KV_HEADS * group]
    k, v = (torch.randn(own + shared, KV_HEADS, dim, generator=random) for _ in range(2))
    at = torch.zeros(own + shared)

    def attended(keys: slice) -> tuple[torch.Tensor, torch.Tensor]:
        states = (double(q), double(k[keys]), double(v[keys]))
        return reference.attention(*states, SCALE, query_positions=torch.zeros(19), key_positions=at[keys])

    (first, lse), (second, second_lse) = attended(slice(own)), attended(slice(own, None))
    out = first.float().contiguous()
    join_shared(q, k[own:], v[own:], out, (lse + lead).float().contiguous(), SCALE)
    share = torch.sigmoid(second_lse - lse - lead)[..., None]
    assert error(out, torch.lerp(first, second, share)) < 2e-5


@pytest.mark.parametrize("group", [1, 3])
def test_lanes_see_their_own_keys_and_no_others(random: torch.Generator, group: int) -> None:
    lanes, width, dim, heads = 7, 12, 16, KV_HEADS * group
    counts = torch.tensor([1, 9, 4, 9, 8, 2, 5])
    cache_k, cache_v = (torch.randn(lanes * width + 3, KV_HEADS, dim, generator=random) for _ in range(2))
    k = cache_k[3:].view(lanes, width, KV_HEADS, dim)[:, :9]
    slots = 3 + torch.arange(lanes)[:, None] * width + torch.arange(9)
    places = slots[:, None] * KV_HEADS + torch.arange(heads)[:, None] // group
    bias = torch.where(torch.arange(9) < counts[:, None], 0.0, HIDDEN)[:, None]
    q = torch.randn(lanes, heads + 4, dim, generator=random)[:, :heads]
    out, lse = attend_lanes(q, k, cache_v.view(-1, dim), places.view(-1, 9).int(), bias, SCALE)
    for lane, count in enumerate(counts.tolist()):
        at = torch.arange(count)
        texts = (double(q[lane : lane + 1]), double(k[lane, :count]), double(cache_v[slots[lane, :count]]))
        expected = reference.attention(*texts, SCALE, query_positions=at[-1:], key_positions=at)
        assert error(out[lane : lane + 1], expected[0]) < 2e-5
        assert (double(lse[lane]) - expected[1][0]).abs().max() < 1e-4
