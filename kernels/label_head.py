"""The LM head over label rows only, and the log-softmax normaliser over the vocabulary without its logits.

logit[t, l] = cap(hidden[t] · weight[l]), cap(x) = softcap · tanh(x / softcap) where capped;
log p[t, l] = logit[t, l] − log Σ_v exp(logit[t, v]).
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.device import tanh
from dql.kernels.language import Pointer, Scalar, cdiv, compute_type, constexpr, jit, tl, uses_triton
from dql.kernels.layout import FLOATS, INTEGERS, check, check_device_type

CHUNK_ELEMENTS = 1 << 24  # logits held at once on the CPU
FEW = 32  # tokens up to which reading the weight is the whole cost


def label_logits(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, softcap: float | None = None
) -> torch.Tensor:
    """hidden [tokens, width], weight [vocabulary, width], labels [labels] ids → logits [tokens, labels] float32."""
    _check(hidden, weight)
    check("labels", labels, (None,), dtypes=INTEGERS, like=hidden)
    return _cap(torch.nn.functional.linear(hidden, weight[labels]).float(), softcap)


def vocabulary_logsumexp(hidden: torch.Tensor, weight: torch.Tensor, *, softcap: float | None = None) -> torch.Tensor:
    """hidden [tokens, width], weight [vocabulary, width] → [tokens] float32; the logits are never held whole."""
    _check(hidden, weight)
    check_device_type("hidden", hidden)
    return _triton(hidden, weight, softcap) if uses_triton(hidden) else _cpu(hidden, weight, softcap)


def label_log_probs(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, *, softcap: float | None = None
) -> torch.Tensor:
    """Log-probability under the whole vocabulary of each label id after each token: [tokens, labels] float32."""
    normaliser = vocabulary_logsumexp(hidden, weight, softcap=softcap)
    return label_logits(hidden, weight, labels, softcap=softcap) - normaliser[:, None]


def _check(hidden: torch.Tensor, weight: torch.Tensor) -> None:
    check("hidden", hidden, (None, None), dtypes=FLOATS)
    check("weight", weight, (None, hidden.shape[1]), dtypes=(hidden.dtype,), like=hidden)


def _cap(logits: torch.Tensor, softcap: float | None) -> torch.Tensor:
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def _cpu(hidden: torch.Tensor, weight: torch.Tensor, softcap: float | None) -> torch.Tensor:
    chunk = max(1, CHUNK_ELEMENTS // weight.shape[0])
    parts = [
        torch.logsumexp(_cap(torch.nn.functional.linear(hidden[at : at + chunk], weight).float(), softcap), dim=-1)
        for at in range(0, hidden.shape[0], chunk)
    ]
    return torch.cat(parts) if parts else torch.empty(0)


def _triton(hidden: torch.Tensor, weight: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Tiles of logits reduced where they are computed to (largest, Σ exp), then joined along the vocabulary."""
    (tokens, width), vocabulary = hidden.shape, weight.shape[0]
    config = choose("vocabulary_logsumexp", "few" if tokens <= FEW else "many")
    columns = cdiv(vocabulary, config.blocks["BLOCK_N"])
    largest, total = (torch.empty((columns, tokens), device=hidden.device) for _ in range(2))
    grid = (cdiv(tokens, config.blocks["BLOCK_M"]), columns)
    _kernel[grid](
        hidden, weight, largest, total, tokens, vocabulary, width, 1.0 if softcap is None else softcap,
        CAPPED=softcap is not None, EVEN=width % config.blocks["BLOCK_K"] == 0, COMPUTE=compute_type(hidden.dtype),
        **config.options(),
    )  # fmt: skip
    lse = torch.empty(tokens, device=hidden.device)
    joined = choose("join_logsumexp", "any")
    _join_kernel[(cdiv(tokens, joined.blocks["BLOCK"]),)](largest, total, lse, columns, tokens, **joined.options())
    return lse


@jit(do_not_specialize=["tokens", "softcap"])
def _kernel(
    hidden: Pointer, weight: Pointer, largest: Pointer, total: Pointer,
    tokens: Scalar, vocabulary: Scalar, width: Scalar, softcap: Scalar,
    CAPPED: constexpr, EVEN: constexpr, COMPUTE: constexpr,
    BLOCK_M: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr,
) -> None:  # fmt: skip
    """Axis 0 runs fastest: the token blocks of one stretch of the vocabulary follow each other and share its rows."""
    token = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    entry = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    # rows beyond the edge read the last real one: their results are masked below, and no load needs a mask
    token_row = tl.minimum(token, tokens - 1).to(tl.int64)
    entry_row = tl.minimum(entry, vocabulary - 1).to(tl.int64)
    left = hidden + token_row[:, None] * width + inner[None, :]
    right = weight + entry_row[:, None] * width + inner[None, :]
    logits = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, width, BLOCK_K):
        if EVEN:
            a, b = tl.load(left + k), tl.load(right + k)
        else:
            inside = (k + inner < width)[None, :]
            a, b = tl.load(left + k, mask=inside, other=0.0), tl.load(right + k, mask=inside, other=0.0)
        logits = tl.dot(a.to(COMPUTE), tl.trans(b.to(COMPUTE)), logits, input_precision="tf32x3")
    if CAPPED:
        logits = softcap * tanh(logits / softcap)
    logits = tl.where((entry < vocabulary)[None, :], logits, float("-inf"))
    peak = tl.max(logits, axis=1)
    sums = tl.sum(tl.exp(logits - peak[:, None]), axis=1)
    at = tl.program_id(1).to(tl.int64) * tokens + token
    tl.store(largest + at, peak, mask=token < tokens)
    tl.store(total + at, sums, mask=token < tokens)


@jit(do_not_specialize=["columns", "tokens"])
def _join_kernel(
    largest: Pointer, total: Pointer, lse: Pointer, columns: Scalar, tokens: Scalar,
    BLOCK: constexpr, BLOCK_C: constexpr,
) -> None:  # fmt: skip
    token = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    present = token < tokens
    peak = tl.full((BLOCK,), float("-inf"), tl.float32)
    sums = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, columns, BLOCK_C):
        column = start + tl.arange(0, BLOCK_C)
        inside = (column < columns)[:, None] & present[None, :]
        at = column[:, None].to(tl.int64) * tokens + token[None, :]
        part = tl.load(largest + at, mask=inside, other=float("-inf"))
        weight = tl.load(total + at, mask=inside, other=0.0)
        raised = tl.maximum(peak, tl.max(part, axis=0))
        base = tl.where(raised == float("-inf"), 0.0, raised)
        sums = sums * tl.exp(peak - base) + tl.sum(weight * tl.exp(part - base[None, :]), axis=0)
        peak = raised
    tl.store(lse + token, peak + tl.log(tl.where(present, sums, 1.0)), mask=present)
