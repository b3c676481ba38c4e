"""What a module of transformers asks of attention, and proof that dql gives it: both before the model is used."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dql.errors import DqlError, UnsupportedError
from dql.executor.backend import CpuBackend
from dql.executor.block_pool import BlockPool
from dql.executor.models.decoder import CausalModel
from dql.executor.models.generic import ATTENTION, base_of, run_base
from dql.executor.step import Segment, StepBuilder
from dql.models.shape import ModelShape

# What some families pass to attention and dql's attention does not take.
_REASONS = {
    "s_aux": "attention sinks",
    "sinks": "attention sinks",
    "indices": "sparse attention",
    "block_indices": "sparse attention",
    "attention_mask": "attention masks of their own",
    "position_bias": "position biases on attention scores",
}
_CLOSE = 1e-4  # ‖logits − eager logits‖ ÷ ‖eager logits‖ in fp32


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of attention: heads, key-value heads, widths of keys and of values, and what was asked."""

    layer: int
    sizes: tuple[int, int, int, int]
    scale: float
    window: int | None
    softcap: float | None
    reasons: frozenset[str]


class _Observer:
    """LayerCalls that only looks."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, options: Mapping[str, Any]
    ) -> torch.Tensor:
        """Note the call; zeros."""
        reasons = {reason for name, reason in _REASONS.items() if options.get(name) is not None}
        if options.get("is_causal") is False:
            reasons.add("attention to later tokens")
        sizes = (q.shape[1], k.shape[1], q.shape[2], v.shape[2])
        window, softcap = options.get("sliding_window") or None, options.get("softcap")
        self.calls.append(_Call(layer, sizes, scale, window, softcap, frozenset(reasons)))
        return torch.zeros(q.shape[0], q.shape[1] * v.shape[2], dtype=q.dtype)


def observe(module: Any, shape: ModelShape) -> ModelShape:
    """`shape` with the layers, heads, scale, windows and softcap that the module, on the CPU, asks attention for.

    Raises UnsupportedError naming what dql's attention cannot do.
    """
    observer = _Observer()
    with _blamed(shape):
        run_base(base_of(module), torch.arange(2) % shape.vocab_size, torch.arange(2), observer)
    calls = sorted(observer.calls, key=lambda call: call.layer)
    _refuse(shape, calls)
    num_heads, num_kv_heads, *widths = calls[0].sizes
    windows = {call.layer: call.window for call in calls if call.window is not None}
    return replace(
        shape,
        num_layers=len(calls),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=max(widths),
        query_scale=calls[0].scale,
        attention_softcap=calls[0].softcap,
        sliding_window=next(iter(windows.values()), None),
        sliding_layers=frozenset(windows),
    )


def check_equal(module: Any, decoder: CausalModel) -> None:
    """Two texts packed into one step, the longer in two parts, must get the logits that eager attention gives each.

    Raises UnsupportedError where they do not: the family mixes tokens in a way that dql does not see.
    """
    shape = decoder.shape
    draw = np.random.default_rng(0)
    long, short = (draw.integers(0, shape.vocab_size, length).astype(np.int32) for length in (9, 6))
    backend = CpuBackend(decoder, BlockPool(shape, 16, torch.float32, torch.device("cpu")))
    first, second = StepBuilder(), StepBuilder()
    first.add_segment(Segment(long[:4], 0, 0, 0, (), None))
    second.add_segment(Segment(long[4:], 4, 4, 4, (), None))
    second.add_segment(Segment(short, 0, 10, 0, (), None))
    with _blamed(shape):
        steps = [builder.build() for builder in (first, second)]
        hidden = [backend.forward(replace(step, outputs=np.arange(len(step.ids))), lambda: False) for step in steps]
        found = decoder.head.logits(torch.cat(hidden))
        expected = torch.cat([_eager(module, text) for text in (long, short)])
    difference = float((found - expected).norm() / expected.norm())
    if not difference < _CLOSE:
        raise UnsupportedError(
            f"models of family {shape.architecture!r} mix tokens in ways that dql's attention does not follow "
            f"(logits differ from transformers' by {difference:.1%})"
        )


@contextmanager
def _blamed(shape: ModelShape) -> Iterator[None]:
    """Whatever the family's own code stumbles over means that dql cannot run it."""
    try:
        yield
    except DqlError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UnsupportedError(
            f"models of family {shape.architecture!r} do not run on packed tokens ({reason})"
        ) from error


def _refuse(shape: ModelShape, calls: list[_Call]) -> None:
    reasons = sorted(set[str]().union(*(call.reasons for call in calls)))
    sizes = {call.sizes for call in calls}
    windows = {call.window for call in calls} - {None}
    if not calls or [call.layer for call in calls] != list(range(len(calls))):
        reasons.append("layers without attention, or with several")
    if len(sizes) > 1:
        reasons.append("heads of different sizes")
    if len(windows) > 1:
        reasons.append("sliding windows of different sizes")
    if shape.sliding_layers and not windows and (shape.sliding_window or 0) < shape.context_length:
        reasons.append("sliding windows that its attention is not told of")
    if len({call.softcap for call in calls}) > 1:
        reasons.append("a softcap on some layers only")
    if reasons:
        raise UnsupportedError(f"models of family {shape.architecture!r} need {', '.join(reasons)}, which dql lacks")


def _eager(module: Any, text: np.ndarray) -> torch.Tensor:
    """Logits [tokens, vocabulary] of one text alone by the module's own attention."""
    module.set_attn_implementation("eager")
    try:
        logits: torch.Tensor = module(input_ids=torch.from_numpy(text.astype(np.int64))[None], use_cache=False).logits
    finally:
        module.set_attn_implementation(ATTENTION)
    return logits[0]
