"""What `benchmarks.kernels` measures: each op at the shapes of an 8B Llama, with the bytes and operations it needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from dql.kernels.activation import gated, gated_quantized
from dql.kernels.attention import QueryRows, packed_attention, paged_attention, prefix_attention
from dql.kernels.decode_attention import decode_attention
from dql.kernels.eight_bit_linear import quantized_linear, weight_only_linear
from dql.kernels.int4_linear import int4_linear
from dql.kernels.kv_cache import KVCache
from dql.kernels.label_head import label_log_probs
from dql.kernels.layout import FP8
from dql.kernels.lora import lora_add
from dql.kernels.merge_states import merge_states
from dql.kernels.pooling import pool
from dql.kernels.quantize import Int4Weight, encode, quantize_rows
from dql.kernels.rms_norm import add_rms_norm, rms_norm_quantized
from dql.kernels.rope import rope
from dql.kernels.sample import SamplingRows, greedy, sample
from dql.kernels.scale_sums import scale_sums

WIDTH, HEADS, KV_HEADS, HEAD_DIM, FEED_FORWARD, VOCABULARY = 4096, 32, 8, 128, 14336, 128256
SITES = ((4096, 12288), (6144, 4096), (16384, 4096), (65536, 4096))  # outputs, inputs
DECODES = ((1, 1024), (1, 8192), (8, 4096), (32, 1024), (32, 4096), (128, 1024), (128, 4096), (256, 1024))
SCALE = HEAD_DIM**-0.5


@dataclass(frozen=True, slots=True)
class Case:
    """One op at one shape. bytes, flops: what it must move and compute; prepare() makes inputs and returns the call.

    kind: the type of its matrix products (bf16, fp8, int8), whose measured rate bounds the flops.
    """

    op: str
    shape: str
    bytes: int
    flops: int
    kind: str
    prepare: Callable[[], Callable[[], object]]


def _random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(shape, device="cuda").to(dtype)


def _integers(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32, device="cuda")


def _cache(slots: int, quantised: bool) -> KVCache:
    k, v = (torch.randn(slots, KV_HEADS, HEAD_DIM, device="cuda") for _ in range(2))
    if not quantised:
        return KVCache(k.bfloat16(), v.bfloat16())
    (k, k_scales), (v, v_scales) = encode(k, FP8), encode(v, FP8)
    return KVCache(k, v, k_scales, v_scales)


def elementwise(rows: int) -> Iterator[Case]:
    """Ops bound by memory: every byte read and written once."""
    wide = 2 * rows * WIDTH

    def add_norm() -> Callable[[], object]:
        x, residual, weight = _random(rows, WIDTH), _random(rows, WIDTH), _random(WIDTH)
        return lambda: add_rms_norm(x, residual, weight, eps=1e-6)

    def norm_fp8() -> Callable[[], object]:
        x, weight = _random(rows, WIDTH), _random(WIDTH)
        return lambda: rms_norm_quantized(x, weight, FP8, eps=1e-6)

    def swiglu() -> Callable[[], object]:
        x = _random(rows, 2 * FEED_FORWARD)
        return lambda: gated(x, "silu")

    def swiglu_fp8() -> Callable[[], object]:
        x = _random(rows, 2 * FEED_FORWARD)
        return lambda: gated_quantized(x, "silu", FP8)

    def rows_fp8() -> Callable[[], object]:
        x = _random(rows, WIDTH)
        return lambda: quantize_rows(x, FP8)

    def scaled() -> Callable[[], object]:
        sums = torch.randint(-100_000, 100_000, (rows, WIDTH), device="cuda", dtype=torch.int32)
        x_scales, scales, bias = torch.rand(rows, device="cuda"), torch.rand(WIDTH, device="cuda"), _random(WIDTH)
        return lambda: scale_sums(sums, x_scales, scales, torch.bfloat16, bias)

    def rotate() -> Callable[[], object]:
        fused = _random(rows, HEADS + 2 * KV_HEADS, HEAD_DIM)
        q, k, v = torch.split(fused, [HEADS, KV_HEADS, KV_HEADS], 1)
        angles, at = torch.randn(8192, HEAD_DIM // 2, device="cuda"), torch.arange(rows, device="cuda") % 8192
        cache = _cache(rows, False)
        slots = torch.randperm(rows, device="cuda")
        return lambda: rope(q, k, at, angles, angles, v=v, cache=cache, slots=slots)

    def pooled() -> Callable[[], object]:
        hidden, offsets = _random(rows, WIDTH), torch.arange(0, rows + 1, 64, device="cuda")
        return lambda: pool(hidden, offsets, "mean", normalize=True)

    state = rows * HEADS * (2 * HEAD_DIM + 4)

    def merge() -> Callable[[], object]:
        state = _random(rows, HEADS, HEAD_DIM), torch.randn(rows, HEADS, device="cuda")
        parts = torch.randn(4, rows, HEADS, HEAD_DIM, device="cuda"), torch.randn(4, rows, HEADS, device="cuda")
        return lambda: merge_states(*state, *parts)

    heads = 2 * rows * HEAD_DIM * (2 * HEADS + 5 * KV_HEADS)
    shape = f"{rows} rows"
    yield Case("add_rms_norm", shape, 4 * wide, 0, "bf16", add_norm)
    yield Case("rms_norm_quantized fp8", shape, wide + wide // 2, 0, "bf16", norm_fp8)
    yield Case("gated silu", shape, 6 * rows * FEED_FORWARD, 0, "bf16", swiglu)
    yield Case("gated_quantized fp8", shape, 5 * rows * FEED_FORWARD, 0, "bf16", swiglu_fp8)
    yield Case("quantize_rows fp8", shape, wide + wide // 2, 0, "bf16", rows_fp8)
    yield Case("scale_sums", shape, 3 * wide, 0, "bf16", scaled)
    yield Case("rope + KV write", shape, heads, 0, "bf16", rotate)
    yield Case("merge_states of 4 parts", shape, 2 * state + 16 * rows * HEADS * (HEAD_DIM + 1), 0, "bf16", merge)
    if rows >= 64:
        yield Case("pool mean", shape, wide, 0, "bf16", pooled)


def decode(rows: int, length: int, quantised: bool) -> Case:
    per_head = HEAD_DIM + 4 if quantised else 2 * HEAD_DIM

    def prepare() -> Callable[[], object]:
        cache = _cache(rows * length, quantised)
        q = _random(rows, HEADS, HEAD_DIM)
        slots = torch.randperm(rows * length, device="cuda").view(rows, length).int()
        lengths = _integers([length] * rows)
        return lambda: decode_attention(q, cache, slots, lengths, max_length=length, scale=SCALE)

    moved = 2 * rows * length * KV_HEADS * per_head + 4 * rows * (length + HEADS * HEAD_DIM)
    name = f"decode_attention {'fp8' if quantised else 'bf16'}"
    return Case(name, f"{rows} × {length} keys", moved, 4 * rows * length * HEADS * HEAD_DIM, "bf16", prepare)


def packed(rows: int, length: int) -> Case:
    def prepare() -> Callable[[], object]:
        fused = _random(rows * length, HEADS + 2 * KV_HEADS, HEAD_DIM)
        q, k, v = torch.split(fused, [HEADS, KV_HEADS, KV_HEADS], 1)
        offsets = _integers(list(range(0, rows * length + 1, length)))
        return lambda: packed_attention(q, k, v, offsets, max_length=length, scale=SCALE)

    moved = 2 * rows * length * HEAD_DIM * 2 * (HEADS + KV_HEADS)
    flops = 2 * rows * length * length * HEADS * HEAD_DIM  # the causal half
    return Case("packed_attention", f"{rows} × {length}", moved, flops, "bf16", prepare)


def prefix(queries: int, length: int, quantised: bool) -> Case:
    def prepare() -> Callable[[], object]:
        cache, q = _cache(length, quantised), _random(queries, HEADS, HEAD_DIM)
        rows, start, keys = QueryRows.packed(_integers([0, queries]), queries), _integers([0]), _integers([length])
        return lambda: prefix_attention(q, cache, rows, start, keys, max_length=length, scale=SCALE)

    name = f"prefix_attention {'fp8' if quantised else 'bf16'}"
    moved = 4 * queries * HEADS * HEAD_DIM + 2 * length * KV_HEADS * (HEAD_DIM + 4 if quantised else 2 * HEAD_DIM)
    return Case(name, f"{queries} over {length}", moved, 4 * queries * length * HEADS * HEAD_DIM, "bf16", prepare)


def chunk(rows: int, queries: int, length: int) -> Case:
    def prepare() -> Callable[[], object]:
        cache, q = _cache(rows * length, False), _random(rows * queries, HEADS, HEAD_DIM)
        slots = torch.randperm(rows * length, device="cuda").view(rows, length).int()
        chunks = QueryRows.packed(_integers(list(range(0, rows * queries + 1, queries))), queries)
        keys = _integers([length] * rows)
        return lambda: paged_attention(q, cache, chunks, slots, keys, scale=SCALE)

    pairs = rows * queries * (length - queries / 2)
    moved = 4 * rows * queries * HEADS * HEAD_DIM + 4 * rows * length * KV_HEADS * HEAD_DIM
    shape = f"{rows} × {queries} of {length}"
    return Case("paged_attention", shape, moved, int(4 * pairs * HEADS * HEAD_DIM), "bf16", prepare)


def linear(kind: str, rows: int, outputs: int, inputs: int) -> Case:
    def prepare() -> Callable[[], object]:
        x = _random(rows, inputs)
        if kind == "bf16":  # the library's, for comparison
            weight = _random(outputs, inputs)
            return lambda: torch.nn.functional.linear(x, weight)
        if kind == "int4":
            words = torch.randint(-(2**31), 2**31 - 1, (inputs // 128, outputs, 16), device="cuda").int()
            scales, minimums = (torch.randn(inputs // 128, outputs, device="cuda") for _ in range(2))
            packed_weight = Int4Weight(words, scales, minimums)
            return lambda: int4_linear(x, packed_weight)
        codes, scales = encode(_random(outputs, inputs), FP8 if kind == "fp8" else torch.int8)
        if kind == "w8a16":
            return lambda: weight_only_linear(x, codes, scales)
        x_codes, x_scales = encode(x, codes.dtype)
        return lambda: quantized_linear(x_codes, x_scales, codes, scales, torch.bfloat16)

    stored = {"bf16": 2.0, "int4": 0.5625}.get(kind, 1.0)
    moved = int(stored * outputs * inputs) + 2 * rows * (inputs + outputs)
    product = kind if kind in ("fp8", "int8") else "bf16"
    return Case(f"linear {kind}", f"{rows} × {outputs}×{inputs}", moved, 2 * rows * outputs * inputs, product, prepare)


def heads(tokens: int) -> Iterator[Case]:
    def labels() -> Callable[[], object]:
        hidden, weight = _random(tokens, WIDTH), _random(VOCABULARY, WIDTH)
        ids = torch.tensor([17, 4711], device="cuda")
        return lambda: label_log_probs(hidden, weight, ids)

    def drawing(cut: bool) -> Callable[[], object]:
        def column(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.full((tokens,), value, dtype=dtype, device="cuda")

        logits, words = _random(tokens, VOCABULARY), _integers([-1] * (tokens * VOCABULARY // 32))
        cuts = (column(50 if cut else 0, torch.int32), column(0.9 if cut else 1), column(0))
        rows = SamplingRows(column(0.8), *cuts, torch.arange(tokens, device="cuda"), column(3, torch.int32))
        mask = words.view(tokens, VOCABULARY // 32)
        return lambda: sample(logits, rows, mask=mask)

    def coldest() -> Callable[[], object]:
        logits = _random(tokens, VOCABULARY)
        return lambda: greedy(logits)

    read = 2 * tokens * VOCABULARY
    moved, flops = 2 * VOCABULARY * WIDTH + 2 * tokens * WIDTH, 2 * tokens * VOCABULARY * WIDTH
    yield Case("label_log_probs", f"{tokens} tokens", moved, flops, "bf16", labels)
    if tokens <= 256:
        yield Case("greedy", f"{tokens} rows", read, 0, "bf16", coldest)
        yield Case("sample masked", f"{tokens} rows", read, 0, "bf16", lambda: drawing(False))
        yield Case("sample top-k 50, top-p 0.9", f"{tokens} rows", read, 0, "bf16", lambda: drawing(True))


def adapters(rows: int, rank: int) -> Case:
    def prepare() -> Callable[[], object]:
        x, out = _random(rows, WIDTH), _random(rows, WIDTH)
        a, b = _random(8, rank, WIDTH), _random(8, WIDTH, rank)
        offsets, chosen = _integers([rows * s // 8 for s in range(9)]), _integers(list(range(8)))
        return lambda: lora_add(out, x, a, b, offsets, chosen, max_length=rows // 8 + 1)

    moved = 6 * rows * WIDTH + 32 * rank * WIDTH
    return Case("lora_add", f"{rows} rows, 8 × rank {rank}", moved, 4 * rows * rank * WIDTH, "bf16", prepare)


def cases() -> Iterator[Case]:
    """Every case, in the order of the report."""
    for rows in (128, 8192):
        yield from elementwise(rows)
    for rows, length in (
        (1, 1024),
        (1, 8192),
        (8, 4096),
        (32, 1024),
        (32, 4096),
        (128, 1024),
        (128, 4096),
        (256, 1024),
    ):
        for quantised in (False, True):
            yield decode(rows, length, quantised)
    for rows, length in ((8, 256), (8, 1024), (4, 4096), (1, 16384), (256, 24)):
        yield packed(rows, length)
    for queries, length in ((128, 1024), (8192, 155), (8192, 2048)):
        yield prefix(queries, length, False)
        yield prefix(queries, length, True)
    yield chunk(4, 2048, 4096)
    for outputs, inputs in SITES:
        for rows in (1, 16, 64):
            for kind in ("bf16", "fp8", "int8", "w8a16", "int4"):
                yield linear(kind, rows, outputs, inputs)
        for kind in ("bf16", "fp8", "int8"):  # the library's products, int8's scales applied after it
            yield linear(kind, 1024, outputs, inputs)
    for tokens in (1, 128, 4096):
        yield from heads(tokens)
    for rows in (128, 4096):
        yield adapters(rows, 16)
