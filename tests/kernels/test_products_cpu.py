"""The CPU's plain products for attention: shared runs joined to what was attended to before."""

import pytest
import torch

from dql.kernels import shared_cpu
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
