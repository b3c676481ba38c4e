"""Attention over packed rows, shared prefixes and paged caches, and the cascade that joins them."""

from dataclasses import dataclass

import pytest
import torch

from dql.kernels import attention
from dql.kernels.attention import QueryRows, packed_attention, paged_attention, prefix_attention
from dql.kernels.decode_attention import decode_attention
from dql.kernels.kv_cache import KVCache
from dql.kernels.merge_states import merge_states
from dql.kernels.quantize import encode
from tests.kernels import reference
from tests.kernels.reference import double, error, tolerance

SLOTS, HEADS, KV_HEADS = 48, 6, 2


@dataclass(frozen=True)
class Rule:
    """What a layer's attention differs in."""

    name: str
    head_dim: int = 16
    window: int | None = None
    softcap: float | None = None


RULES = [Rule("plain"), Rule("narrow head", 12), Rule("window", window=7), Rule("softcap", softcap=3.0)]
SCALE = 0.3
HALF = torch.float16


def integers(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def filled_cache(head_dim: int, dtype: torch.dtype, random: torch.Generator) -> KVCache:
    k, v = (torch.randn(SLOTS, KV_HEADS, head_dim, generator=random) for _ in range(2))
    if dtype != torch.float8_e4m3fn:
        return KVCache(k.to(dtype), v.to(dtype))
    (k, k_scales), (v, v_scales) = encode(k, dtype), encode(v, dtype)
    return KVCache(k, v, k_scales, v_scales)


def moved(cache: KVCache, device: str) -> KVCache:
    scales = [x if x is None else x.to(device) for x in (cache.k_scales, cache.v_scales)]
    return KVCache(cache.k.to(device), cache.v.to(device), *scales)


def check(state: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    out, lse = state
    assert error(out, expected[0]) < tolerance(out.dtype)
    seen = ~expected[1].isinf()
    assert torch.equal(lse.cpu().isinf(), ~seen)
    assert (double(lse)[seen] - expected[1][seen]).abs().max() < 10 * tolerance(out.dtype)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
def test_packed(device: str, product_dtype: torch.dtype, random: torch.Generator, rule: Rule, causal: bool) -> None:
    lengths = [1, 19, 0, 7]
    fused = torch.randn(sum(lengths), HEADS + 2 * KV_HEADS, rule.head_dim, generator=random).to(product_dtype)
    parts = (slice(0, HEADS), slice(HEADS, HEADS + KV_HEADS), slice(HEADS + KV_HEADS, None))
    offsets = integers(0, *torch.tensor(lengths).cumsum(0).tolist())
    rows = []
    for begin, length in zip(offsets.tolist(), lengths, strict=False):
        q, k, v = (double(fused[begin : begin + length, part]) for part in parts)
        at = torch.arange(length)
        rows.append(
            reference.attention(
                q,
                k,
                v,
                SCALE,
                query_positions=at,
                key_positions=at,
                causal=causal,
                window=rule.window,
                softcap=rule.softcap,
            )
        )
    on = fused.to(device)
    state = packed_attention(
        on[:, parts[0]], on[:, parts[1]], on[:, parts[2]], offsets.to(device), max_length=19, scale=SCALE,
        causal=causal, window=rule.window, softcap=rule.softcap,
    )  # fmt: skip
    check(state, (torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("cached", ["float", "fp8"])
def test_prefix_groups(
    device: str, product_dtype: torch.dtype, random: torch.Generator, rule: Rule, cached: str
) -> None:
    cache = filled_cache(rule.head_dim, product_dtype if cached == "float" else torch.float8_e4m3fn, random)
    bounds, starts, lengths, bases = [0, 3, 3, 5], [2, 0, 9], [18, 5, 33], [0, 0, 4]
    q = torch.randn(5, HEADS, rule.head_dim, generator=random).to(product_dtype)
    positions = integers(18, 19, 60, 37, 41)  # the third query's window has left the prefix behind
    expected = []
    for group, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        rows = slice(bounds[group], bounds[group + 1])
        k, v = cache.dense(slice(start, start + length))
        expected.append(
            reference.attention(
                double(q[rows]),
                double(k),
                double(v),
                SCALE,
                query_positions=positions[rows],
                key_positions=bases[group] + torch.arange(length),
                causal=False,
                window=rule.window,
                softcap=rule.softcap,
            )
        )
    state = prefix_attention(
        q.to(device), moved(cache, device), QueryRows.packed(integers(*bounds).to(device), 3),
        integers(*starts).to(device), integers(*lengths).to(device), max_length=33, scale=SCALE, window=rule.window,
        softcap=rule.softcap,
        positions=positions.to(device), key_positions=integers(*bases).to(device),
    )  # fmt: skip
    check(state, (torch.cat([row[0] for row in expected]), torch.cat([row[1] for row in expected])))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("cached", ["float", "fp8"])
def test_paged_chunks_and_decode(
    device: str, product_dtype: torch.dtype, random: torch.Generator, rule: Rule, cached: str
) -> None:
    cache = filled_cache(rule.head_dim, product_dtype if cached == "float" else torch.float8_e4m3fn, random)
    lengths, chunks = [40, 3, 17], [5, 3, 1]
    slots = torch.stack([torch.randperm(SLOTS, generator=random) for _ in lengths]).int()
    q = torch.randn(sum(chunks), HEADS, rule.head_dim, generator=random).to(product_dtype)
    bounds = [0, 5, 8, 9]
    expected = []
    for row, (length, chunk) in enumerate(zip(lengths, chunks, strict=True)):
        k, v = cache.dense(slots[row, :length].long())
        expected.append(
            reference.attention(
                double(q[bounds[row] : bounds[row + 1]]),
                double(k),
                double(v),
                SCALE,
                query_positions=torch.arange(length - chunk, length),
                key_positions=torch.arange(length),
                window=rule.window,
                softcap=rule.softcap,
            )
        )
    on, table, ends = moved(cache, device), slots.to(device), integers(*lengths).to(device)
    state = paged_attention(
        q.to(device), on, QueryRows.packed(integers(*bounds).to(device), 5), table, ends, scale=SCALE,
        window=rule.window, softcap=rule.softcap,
    )  # fmt: skip
    check(state, (torch.cat([row[0] for row in expected]), torch.cat([row[1] for row in expected])))

    last = torch.tensor(bounds[1:]) - 1
    tail = (torch.stack([row[0][-1] for row in expected]), torch.stack([row[1][-1] for row in expected]))
    for stretch in (None, 16):
        state = decode_attention(
            q[last].to(device), on, table, ends, max_length=40, scale=SCALE,
            window=rule.window, softcap=rule.softcap, keys_per_split=stretch,
        )  # fmt: skip
        check(state, tail)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
@pytest.mark.parametrize("cached", ["float", "fp8"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_dense_runs_of_scattered_rows_joined_by_what_they_share(
    device: str,
    product_dtype: torch.dtype,
    random: torch.Generator,
    rule: Rule,
    cached: str,
    split: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two chunks with a gap between them and a decoding row, each over a run of its own; two then read a prefix too."""
    monkeypatch.setattr(attention, "MIN_BLOCKS", 1)
    monkeypatch.setattr(attention, "processors", lambda: 64 if split else 1)
    cache = filled_cache(rule.head_dim, product_dtype if cached == "float" else torch.float8_e4m3fn, random)
    q = torch.randn(12, HEADS, rule.head_dim, generator=random).to(product_dtype)
    prefix, first = 21, torch.tensor([21, 2, 30])  # slots 0…20 are shared; each row's own run begins at `first`
    tokens = [torch.arange(0, 5), torch.arange(7, 10), torch.tensor([11])]
    lengths, below = [17, 3, 18], [True, False, True]
    expected = []
    for row, places in enumerate(tokens):
        own = first[row] + torch.arange(lengths[row])
        k, v = cache.dense(torch.cat((torch.arange(prefix), own)) if below[row] else own)
        at = torch.arange(len(k))
        expected.append(
            reference.attention(
                double(q[places]), double(k), double(v), SCALE, query_positions=at[-len(places) :], key_positions=at,
                window=rule.window, softcap=rule.softcap,
            )
        )  # fmt: skip

    def sent(*values: int) -> torch.Tensor:
        return integers(*values).to(device)

    on, queries = moved(cache, device), q.to(device)
    out, lse = torch.empty_like(queries), torch.empty(q.shape[:2], device=device)
    chunks = QueryRows(sent(0, 7), sent(5, 10), 5)
    paged_attention(
        queries, on, chunks, sent(21, 2), sent(17, 3), into=(out, lse), scale=SCALE, softcap=rule.softcap,
        window=rule.window,
    )  # fmt: skip
    out[11:], lse[11:] = decode_attention(
        queries[11:], on, sent(30), sent(18), max_length=18, scale=SCALE, softcap=rule.softcap, window=rule.window
    )  # fmt: skip
    places = sent(0, 1, 2, 3, 4, 11)
    positions = sent(*range(prefix + 12, prefix + 17), 0, 0, 0, 0, 0, 0, prefix + 17)
    prefix_attention(
        queries, on, QueryRows(sent(0), sent(6), 6, places), sent(0), sent(prefix), max_length=prefix,
        positions=positions,
        key_positions=sent(0), joined=(out, lse), scale=SCALE,
        softcap=rule.softcap, window=rule.window,
    )  # fmt: skip
    real = torch.cat(tokens)
    check((out[real], lse[real]), (torch.cat([x[0] for x in expected]), torch.cat([x[1] for x in expected])))


def test_decode_of_a_row_without_keys_sees_nothing(device: str, random: torch.Generator) -> None:
    cache = moved(filled_cache(16, HALF, random), device)
    q = torch.randn(2, HEADS, 16, generator=random).to(device, HALF)
    slots = torch.arange(4, dtype=torch.int32).repeat(2, 1).to(device)
    out, lse = decode_attention(q, cache, slots, integers(0, 4).to(device), max_length=4, scale=SCALE)
    assert not out[0].any() and bool(lse[0].isneginf().all()) and bool(lse[1].isfinite().all())


def test_decode_with_fixed_stretches_ignores_its_neighbours(device: str, random: torch.Generator) -> None:
    cache = moved(filled_cache(16, HALF, random), device)
    q = torch.randn(3, HEADS, 16, generator=random).to(device, HALF)
    slots = torch.stack([torch.randperm(SLOTS, generator=random) for _ in range(3)]).int().to(device)
    lengths = integers(20, 48, 33).to(device)
    together, _ = decode_attention(q, cache, slots, lengths, max_length=48, scale=SCALE, keys_per_split=16)
    alone, _ = decode_attention(q[:1], cache, slots[:1], lengths[:1], max_length=20, scale=SCALE, keys_per_split=16)
    if device == "cuda":
        assert torch.equal(together[:1], alone)
    assert torch.allclose(together[:1], alone, atol=1e-3)


def test_cascade_equals_attention_over_the_whole_text(
    device: str, product_dtype: torch.dtype, random: torch.Generator
) -> None:
    prefix, lengths = 21, [4, 9, 1]
    own = sum(lengths)
    cache = filled_cache(16, product_dtype, random)
    q = torch.randn(own, HEADS, 16, generator=random).to(product_dtype)
    k, v = (torch.randn(own, KV_HEADS, 16, generator=random).to(product_dtype) for _ in range(2))
    offsets = integers(0, 4, 13, 14)
    shared_k, shared_v = cache.dense(slice(3, 3 + prefix))
    expected = []
    for begin, length in zip(offsets.tolist(), lengths, strict=False):
        rows = slice(begin, begin + length)
        text = torch.cat([double(shared_k), double(k[rows])]), torch.cat([double(shared_v), double(v[rows])])
        at = torch.arange(prefix + length)
        expected.append(
            reference.attention(double(q[rows]), *text, SCALE, query_positions=at[prefix:], key_positions=at)
        )
    on = q.to(device)
    whole = QueryRows.packed(integers(0, own).to(device), own), integers(3).to(device), integers(prefix).to(device)
    shared = prefix_attention(on, moved(cache, device), *whole, max_length=prefix, scale=SCALE)
    state = packed_attention(on, k.to(device), v.to(device), offsets.to(device), max_length=9, scale=SCALE)
    unseen = torch.full_like(state[0], torch.nan), torch.full_like(state[1], -torch.inf)
    merged = state[0].clone(), state[1].clone()
    merge_states(*merged, *(torch.stack(both) for both in zip(unseen, shared, strict=True)))
    check(merged, (torch.cat([row[0] for row in expected]), torch.cat([row[1] for row in expected])))
    first = unseen[0].clone(), unseen[1].clone()
    merge_states(*first, merged[0][None], merged[1][None])
    check(first, (double(merged[0]), double(merged[1])))
    nothing = unseen[0].clone(), unseen[1].clone()
    merge_states(*nothing, unseen[0][None], unseen[1][None])
    assert not nothing[0].any() and bool(nothing[1].isneginf().all())
