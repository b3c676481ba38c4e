"""The shipped `h100` profile against AIConfigurator's measured H100-SXM tables, as a report in Markdown.

    pip download aiconfigurator-core==0.12.0 --no-deps && unzip -q aiconfigurator_core-*.whl 'aiconfigurator_core/*'
    python -m benchmarks.h100 aiconfigurator_core/systems/data/h100_sxm

The profile's shares of the speed of light were read off the vLLM tables; those of TensorRT-LLM and SGLang are other
kernels on the same card, which it has not seen. Layers are those of a model with 4,096 wide hidden states, 32 query and
8 key heads of 128 and an MLP of 12,288 (Qwen3-8B); a measured layer is the sum of its products.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from dql.models.shape import ModelShape
from dql.planner.hardware import hardware_named
from dql.planner.physical import Placement
from dql.planner.step_model import StepModel, Steps

ENGINES = {"vLLM": "vllm/0.24.0", "TensorRT-LLM": "trtllm/1.3.0rc20", "SGLang": "sglang/0.5.14"}
PRODUCTS = ((6144, 4096), (4096, 4096), (12_288, 4096), (12_288, 4096), (4096, 12_288))  # of a layer: outputs × inputs
TOKENS = (1, 16, 64, 128, 256, 1024, 4096, 8192)
PRECISIONS = {"bf16": "bfloat16", "fp8": "fp8"}
SHAPE = ModelShape(
    architecture="qwen3",
    num_layers=1,
    hidden_size=4096,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=12_288,
    vocab_size=151_936,
    context_length=32_768,
    tie_embeddings=False,
)


@dataclass(frozen=True, slots=True)
class Point:
    """One measured operator: what it is, at which size, seconds in each engine's table, seconds of the profile."""

    operator: str
    size: str
    measured: dict[str, float]
    predicted: float

    def ratio(self, engine: str) -> float | None:
        """Predicted ÷ measured; None where the engine has no such measurement."""
        return self.predicted / self.measured[engine] if engine in self.measured else None


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="systems/data/h100_sxm of the package")
    folder = parser.parse_args().folder
    points = [*layers(folder), *decoding(folder), *prompts(folder), *reductions(folder)]
    print(f"| operator | size | profile | {' | '.join(f'÷ {engine}' for engine in ENGINES)} |")
    print("|---|---|---|" + "---|" * len(ENGINES))
    for point in points:
        ratios = (point.ratio(engine) for engine in ENGINES)
        cells = " | ".join("–" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        print(f"| {point.operator} | {point.size} | {point.predicted * 1e6:,.0f} µs | {cells} |")
    print()
    for engine in ENGINES:
        errors = sorted(abs(ratio - 1) for point in points if (ratio := point.ratio(engine)) is not None)
        p90 = errors[int(0.9 * (len(errors) - 1))]
        print(f"{engine}: median error {statistics.median(errors):.0%}, p90 {p90:.0%} over {len(errors)} sizes.")


def layers(folder: Path) -> Iterator[Point]:
    """All products of a layer over the tokens of a step."""
    for precision, name in PRECISIONS.items():
        model = StepModel(hardware_named("h100"), SHAPE, Placement(precision, "bf16"))
        tables = {engine: read(folder, "gemm", path, "gemm") for engine, path in ENGINES.items()}
        for tokens in TOKENS:
            measured = {
                engine: sum(milliseconds)
                for engine, table in tables.items()
                if all(milliseconds := [product(table, name, tokens, n, k) for n, k in PRODUCTS])
            }
            taken = {engine: seconds / 1e3 for engine, seconds in measured.items()}
            predicted = float(model._layer(np.array([float(tokens)]))[0])
            yield Point(f"layer, {precision}", f"{tokens:,} tokens", taken, predicted)


def product(table: pl.DataFrame, dtype: str, m: int, n: int, k: int) -> float:
    """Milliseconds of a matrix product, 0 where it was not measured: the best of the kernels in the table."""
    found = table.filter(gemm_dtype=dtype, m=m, n=n, k=k)["latency"].min()
    return float(found) if isinstance(found, float) else 0.0


def decoding(folder: Path) -> Iterator[Point]:
    """Attention of decoding rows over their own keys, one layer."""
    tables = {engine: read(folder, "attention", path, "generation_attention") for engine, path in ENGINES.items()}
    model = StepModel(hardware_named("h100"), SHAPE, Placement("bf16", "bf16"))
    for rows, context in ((1, 1024), (8, 1024), (8, 4096), (32, 1024), (32, 4096), (128, 1024), (128, 4096)):
        step = Steps(*(np.zeros(1),) * 3, decode_keys=np.array([float(rows * context)]))
        measured = attention(tables, batch_size=rows, step=context - 1)
        yield Point("attention, decode", f"{rows} × {context:,} keys", measured, float(model._attention(step)[0]))


def prompts(folder: Path) -> Iterator[Point]:
    """Attention of prompts over themselves, one layer."""
    tables = {engine: read(folder, "attention", path, "context_attention") for engine, path in ENGINES.items()}
    model = StepModel(hardware_named("h100"), SHAPE, Placement("bf16", "bf16"))
    for rows, length in ((8, 256), (32, 256), (8, 1024), (4, 4096), (1, 16_384)):
        pairs = rows * length * (length + 1) / 2
        step = Steps(*(np.zeros(1),) * 3, own_pairs=np.array([pairs]), run=np.array([float(length)]))
        measured = attention(tables, batch_size=rows, isl=length)
        yield Point("attention, prompt", f"{rows} × {length:,} tokens", measured, float(model._attention(step)[0]))


def attention(tables: dict[str, pl.DataFrame], **size: int) -> dict[str, float]:
    """Seconds by engine of attention with the shape's heads at this size."""
    heads = {"num_heads": SHAPE.num_heads, "num_key_value_heads": SHAPE.num_kv_heads, "head_dim": SHAPE.head_dim}
    plain = {"kv_cache_dtype": "bfloat16", "attn_dtype": "bfloat16", "window_size": 0}
    found = {}
    for engine, table in tables.items():
        milliseconds = table.filter(**{k: v for k, v in {**heads, **plain, **size}.items() if k in table.columns})
        if isinstance(best := milliseconds["latency"].min(), float):
            found[engine] = best / 1e3
    return found


def reductions(folder: Path) -> Iterator[Point]:
    """All-reduce between two, four and eight cards: the profile has one curve for all, near the median of these."""
    tables = {engine: read(folder, "comm", path, "custom_allreduce") for engine, path in ENGINES.items()}
    hardware = hardware_named("h100:8")
    for size in (8192, 1 << 20, 8 << 20, 64 << 20):
        measured = {}
        for engine, table in tables.items():
            values = table.filter(pl.col("message_size") * 2 == size, num_gpus=8)["latency"]
            if isinstance(best := values.min(), float):
                measured[engine] = best / 1e3
        yield Point("all-reduce, 8 cards", f"{size / 2**20:g} MiB", measured, float(hardware.all_reduce(size)))


def read(folder: Path, kind: str, engine: str, name: str) -> pl.DataFrame:
    """One table of the package."""
    return pl.read_parquet(folder / kind / engine / f"{name}_perf.parquet")


if __name__ == "__main__":
    main()
