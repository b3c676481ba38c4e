"""Shapes of well-known models, and a small machine with round figures, for tests of the planner."""

from dql.models.shape import ModelShape
from dql.planner.hardware import Curve, Hardware, Operators


def _llama(
    layers: int, hidden: int, heads: int, kv_heads: int, inner: int, vocabulary: int, *, tied: bool
) -> ModelShape:
    return ModelShape(
        architecture="llama",
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate_size=inner,
        vocab_size=vocabulary,
        context_length=8192,
        tie_embeddings=tied,
    )


SHAPES = {
    "smollm2": _llama(30, 576, 9, 3, 1536, 49_152, tied=True),
    "llama-8b": _llama(32, 4096, 32, 8, 14_336, 128_256, tied=False),
    "llama-70b": _llama(80, 8192, 64, 8, 28_672, 128_256, tied=False),
}


def small_cpu(price: float | None = None) -> Hardware:
    """Two cores at 100 GFLOP/s and 10 GB/s, every operator at half the speed of light."""
    half = Curve(((1.0, 0.5),))
    return Hardware(
        name="cpu",
        kind="cpu",
        cores=2,
        memory=16e9,
        bandwidth=1e10,
        peak={"fp32": 1e11},
        operators={"fp32": Operators(half, half, half, half, half)},
        step_seconds=1e-3,
        row_seconds=1e-5,
        start_seconds=1e-4,
        price=price,
        source="measured",
        spread=0.1,
        sway=0.35,
        notes="fake",
    )
