"""The LM head over label rows only, and the log-softmax normaliser over the vocabulary without its logits.

logit[t, l] = cap(hidden[t] · weight[l]), cap(x) = softcap · tanh(x / softcap) where capped;
log p[t, l] = logit[t, l] − log Σ_v exp(logit[t, v]).
"""

from __future__ import annotations

import torch

from dql.kernels.layout import FLOATS, INTEGERS, check

CHUNK_ELEMENTS = 1 << 24  # logits held at once on the CPU


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
    return _cpu(hidden, weight, softcap)


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
