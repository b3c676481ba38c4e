"""One entry per shipped configuration: a call of the public op, at the shapes of real models, that uses it.

Llama 3.1 8B (width 4096, 32 heads over 8, head 128), SmolLM2-135M (576, 9 over 3, head 64), Gemma 3 (head 256).
"""

from collections.abc import Callable
from functools import partial

import torch

from dql.kernels.activation import gated, gated_quantized
from dql.kernels.attention import QueryRows, packed_attention, paged_attention, prefix_attention
from dql.kernels.decode_attention import decode_attention
from dql.kernels.eight_bit_linear import quantized_linear, weight_only_linear
from dql.kernels.int4_linear import int4_linear
from dql.kernels.kv_cache import KVCache
from dql.kernels.label_head import vocabulary_logsumexp
from dql.kernels.lora import lora_add
from dql.kernels.merge_states import merge_states
from dql.kernels.pooling import pool
from dql.kernels.quantize import Int4Weight, quantize_rows
from dql.kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_quantized
from dql.kernels.rope import HeadNorm, rope
from dql.kernels.sample import SamplingRows, greedy, sample
from dql.kernels.scale_sums import scale_sums

FP8 = torch.float8_e4m3fn
KV_HEADS = {64: (9, 3), 128: (32, 8), 256: (4, 1)}


def halves(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="cuda")


def floats(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="cuda")


def integers(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int32, device="cuda")


def codes(*shape: int, dtype: torch.dtype = FP8) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="cuda")


def cache(head_dim: int, quantised: bool) -> KVCache:
    shape = (100_000, KV_HEADS[head_dim][1], head_dim)
    if not quantised:
        return KVCache(halves(*shape), halves(*shape))
    return KVCache(codes(*shape), codes(*shape), floats(*shape[:2]), floats(*shape[:2]))


def norms(width: int) -> None:
    x, weight = halves(128, width), halves(width)
    rms_norm(x, weight, eps=1e-6)
    add_rms_norm(x, x, weight, eps=1e-6, offset=1.0)
    rms_norm_quantized(x, weight, FP8, eps=1e-6)
    rms_norm_quantized(x, weight, torch.int8, eps=1e-6, residual=x)


def activations() -> None:
    gated(halves(128, 28672), "silu")
    gated(halves(128, 4096), "gelu_tanh")


def quantized_activations() -> None:
    gated_quantized(halves(128, 28672), "silu", FP8)
    gated_quantized(halves(128, 28672), "gelu_tanh", torch.int8)


def quantized_rows() -> None:
    quantize_rows(halves(128, 4096), FP8)
    quantize_rows(halves(128, 14336), torch.int8)


def scaled_sums() -> None:
    for outputs in (6144, 28672):
        factors = floats(512), floats(outputs)
        scale_sums(integers(512, outputs), *factors, torch.bfloat16)
        scale_sums(integers(512, outputs), *factors, torch.bfloat16, halves(outputs))


def ropes() -> None:
    for head_dim, (heads, kv_heads) in KV_HEADS.items():
        fused = halves(128, heads + 2 * kv_heads, head_dim)
        q, k, v = torch.split(fused, [heads, kv_heads, kv_heads], 1)
        angles, positions = floats(8192, head_dim // 2), integers(128)
        rope(q, k, positions, angles, angles)
        norm = HeadNorm(halves(head_dim), halves(head_dim), 1e-6)
        for quantised in (False, True):
            on = cache(head_dim, quantised)
            rope(q, k, positions, angles, angles, norm=norm, v=v, cache=on, slots=positions)


def attention(head_dim: int, quantised: bool, queries: int) -> None:
    heads, kv_heads = KV_HEADS[head_dim]
    q, k, v = torch.split(halves(2048, heads + 2 * kv_heads, head_dim), [heads, kv_heads, kv_heads], 1)
    on, bounds, one, starts = cache(head_dim, quantised), integers(65), integers(1), integers(2)
    if not quantised:
        packed_attention(q, k, v, bounds, max_length=queries, scale=0.1)
        packed_attention(q, k, v, bounds, max_length=queries, scale=0.1, window=512, softcap=50.0)
    group, rows = QueryRows(one, one, queries, integers(2048)), QueryRows.packed(bounds, queries)
    state = torch.empty_like(q, memory_format=torch.contiguous_format), floats(2048, heads)
    prefix_attention(q, on, QueryRows.packed(starts, queries), one, one, max_length=2048, scale=0.1)
    for slots in (integers(64, 4096), integers(64)):
        for window, softcap in ((None, None), (512, 50.0)):
            paged_attention(q, on, rows, slots, integers(64), scale=0.1, window=window, softcap=softcap, into=state)
    positions = integers(2048)
    many = QueryRows(integers(256), integers(256), queries, integers(2048))  # enough programs, so not split over keys
    for asked, keys in ((group, one), (many, integers(256))):
        for window, softcap in ((None, None), (512, 50.0)):
            prefix_attention(
                q, on, asked, keys, keys, max_length=2048, scale=0.1, window=window, softcap=softcap,
                positions=positions, key_positions=keys, joined=state,
            )  # fmt: skip


def decodes(head_dim: int, quantised: bool, dense: bool) -> None:
    heads, on = KV_HEADS[head_dim][0], cache(head_dim, quantised)
    for rows, longest in ((256, 1024), (1, 8192)):
        q, lengths = halves(rows, heads, head_dim), integers(rows)
        slots = lengths if dense else integers(rows, longest)
        for window, softcap in ((None, None), (4096, 50.0)):
            decode_attention(
                q, on, slots, lengths, max_length=longest, scale=0.1, window=window, softcap=softcap
            )  # fmt: skip


def joins() -> None:
    for head_dim, (heads, _) in KV_HEADS.items():
        q, table = halves(1, heads, head_dim), integers(1, 8192)
        decode_attention(q, cache(head_dim, False), table, integers(1), max_length=8192, scale=0.1)


def merges() -> None:
    for head_dim, (heads, _) in KV_HEADS.items():
        state = halves(4096, heads, head_dim), floats(4096, heads)
        merge_states(*state, floats(4, 4096, heads, head_dim), floats(4, 4096, heads))


def samples(every: bool) -> None:
    for vocabulary in (128256, 151669):
        logits, words = halves(128, vocabulary), integers(128, (vocabulary + 31) // 32)
        seeds = torch.empty(128, dtype=torch.int64, device="cuda")
        rows = SamplingRows(floats(128), integers(128), floats(128), floats(128), seeds, integers(128))
        for mask in (None, words):
            sample(logits, rows, mask=mask)
            if every:
                greedy(logits, mask=mask)


def normalisers(tokens: int) -> None:
    for vocabulary, width, softcap in ((128256, 4096, None), (49152, 576, None), (256000, 2304, 30.0)):
        vocabulary_logsumexp(halves(tokens, width), halves(vocabulary, width), softcap=softcap)


def pools() -> None:
    pool(halves(1000, 1024), integers(9), "mean", normalize=True)
    pool(halves(1000, 4096), integers(9), "mean")
    pool(halves(1000, 4096), integers(9), "last", normalize=True)


SITES = ((4096, 12288), (6144, 4096), (28672, 4096), (1536, 576))  # outputs, inputs


def eight_bits(kind: str) -> None:
    for outputs, inputs in SITES:
        for rows in (1, 32, 64):
            if kind == "w8a16":
                weight_only_linear(halves(rows, inputs), codes(outputs, inputs, dtype=torch.int8), floats(outputs))
            else:
                dtype = FP8 if kind == "fp8" else torch.int8
                x, weight = codes(rows, inputs, dtype=dtype), codes(outputs, inputs, dtype=dtype)
                quantized_linear(x, floats(rows), weight, floats(outputs), torch.bfloat16)


def int4s(rows: int) -> None:
    for outputs, inputs in SITES[:3]:
        groups = inputs // 128
        weight = Int4Weight(integers(groups, outputs, 16), floats(groups, outputs), floats(groups, outputs))
        int4_linear(halves(rows, inputs), weight)


def adapters() -> None:
    for rank in (8, 16, 64):
        a, b = halves(8, rank, 4096), halves(8, 4096, rank)
        lora_add(halves(2048, 4096), halves(2048, 4096), a, b, integers(9), integers(8), max_length=1024)


def _attention_rows() -> dict[tuple[str, str], Callable[[], None]]:
    rows: dict[tuple[str, str], Callable[[], None]] = {}
    for head_dim in KV_HEADS:
        for quantised in (False, True):
            name = f"d{head_dim}{' fp8' if quantised else ''}"
            rows["attention", f"short {name}"] = partial(attention, head_dim, quantised, 8)
            rows["attention", f"long {name}"] = partial(attention, head_dim, quantised, 1024)
            rows["decode_attention", name] = partial(decodes, head_dim, quantised, False)
            rows["decode_attention", f"{name} dense"] = partial(decodes, head_dim, quantised, True)
    return rows


LAUNCHES: dict[tuple[str, str], Callable[[], None]] = {
    ("rms_norm", "narrow"): partial(norms, 576),
    ("rms_norm", "wide"): partial(norms, 4096),
    ("gated", "any"): activations,
    ("gated_quantized", "any"): quantized_activations,
    ("quantize_rows", "any"): quantized_rows,
    ("scale_sums", "any"): scaled_sums,
    ("rope", "any"): ropes,
    ("merge_states", "any"): merges,
    ("join_splits", "any"): joins,
    ("sample", "any"): partial(samples, True),
    ("sample_threshold", "any"): partial(samples, False),
    ("sample_finish", "any"): partial(samples, False),
    ("vocabulary_logsumexp", "few"): partial(normalisers, 16),
    ("vocabulary_logsumexp", "many"): partial(normalisers, 4096),
    ("join_logsumexp", "any"): partial(normalisers, 16),
    ("pool", "any"): pools,
    ("eight_bit_linear", "fp8"): partial(eight_bits, "fp8"),
    ("eight_bit_linear", "int8"): partial(eight_bits, "int8"),
    ("eight_bit_linear", "w8a16"): partial(eight_bits, "w8a16"),
    **{("int4_linear", f"{rows} rows"): partial(int4s, rows) for rows in (16, 32, 64)},
    ("join_parts", "any"): partial(eight_bits, "fp8"),
    ("lora_shrink", "any"): adapters,
    ("lora_expand", "any"): adapters,
    **_attention_rows(),
}

WGMMA = {  # the configurations whose products must use Hopper's warp-group instructions
    *(key for key in LAUNCHES if key[0] in ("attention", "eight_bit_linear", "int4_linear")),
    ("vocabulary_logsumexp", "many"),
}
