"""What the engine's bars are measured on: token ids drawn at random, in the shapes of an 8B Llama's day."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dql.executor.requests import Generate, Request, Score, Task, Tokens

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}
TINY = {
    **LLAMA_8B,
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
CONFIGS = {"llama-8b": LLAMA_8B, "tiny": TINY}


@dataclass(frozen=True, slots=True)
class Sizes:
    """One workload: rows of `shared` equal and `own` different prompt tokens, and new tokens, 0 to score labels."""

    rows: int
    shared: int
    own: int
    new: int

    def scaled(self, factor: int) -> "Sizes":
        """Everything a `factor`-th as large, for a machine on which only the program is tried."""
        return Sizes(*(-(-size // factor) for size in (self.rows, self.shared, self.own, self.new)))


@dataclass(frozen=True, slots=True)
class Workload:
    """A row of the table. figure: what is measured, from (sizes, seconds, seconds of the same prompts with one token).

    weights: the precision that the bar is for. against_prefill: whether the figure needs the second time.
    """

    name: str
    weights: str
    sizes: Sizes
    unit: str
    bar: float
    anchor: str
    figure: Callable[[Sizes, float, float], float]
    against_prefill: bool = False


def _prompts_per_second(sizes: Sizes, seconds: float, _: float) -> float:
    return sizes.rows * (sizes.shared + sizes.own) / seconds


def _decoded_per_second(sizes: Sizes, seconds: float, prefill: float) -> float:
    return sizes.rows * max(1, sizes.new - 1) / max(seconds - prefill, 1e-9)


def _new_per_second(sizes: Sizes, seconds: float, _: float) -> float:
    return sizes.rows * sizes.new / seconds


def _rows_per_second(sizes: Sizes, seconds: float, _: float) -> float:
    return sizes.rows / seconds


ALONE = "decode, batch 1"  # its bar is a share of the copy bandwidth, which the run itself measures
WORKLOADS: Sequence[Workload] = (
    Workload(
        ALONE, "bf16", Sizes(1, 0, 128, 257), "of bandwidth", 0.80, "vLLM 0.70, gpt-fast 0.83",
        _decoded_per_second, True,
    ),
    Workload(
        "decode, batch 128, 1k context", "bf16", Sizes(128, 0, 1024, 129), "tok/s", 9_000, "vLLM 6,600",
        _decoded_per_second, True,
    ),
    Workload("prefill", "bf16", Sizes(128, 0, 1024, 1), "prompt tok/s", 45_000, "vLLM 31k", _prompts_per_second),
    Workload(
        "prefill", "fp8", Sizes(128, 0, 1024, 1), "prompt tok/s", 60_000, "vLLM 45k, TRT-LLM 55k",
        _prompts_per_second,
    ),
    Workload(
        "offline 128 in, 128 out", "fp8", Sizes(2048, 0, 128, 128), "tok/s", 28_000, "TRT-LLM 28.3k",
        _new_per_second,
    ),
    Workload(
        "classify, 100 own tokens", "fp8", Sizes(4096, 512, 100, 0), "rows/s", 500, "none has the path",
        _rows_per_second,
    ),
)  # fmt: skip
AGAINST_TRANSFORMERS = Sizes(256, 512, 64, 64)


def requests(sizes: Sizes, vocabulary: int, *, seed: int, new: int | None = None) -> list[Request]:
    """The workload's requests; `new` tokens instead of its own, where given."""
    tokens = sizes.new if new is None else new
    task: Task = Generate(tokens) if tokens else Score(((5, 2), (6, 2), (7, 8, 2), (9, 2)))
    return [Request(number, prompt, task) for number, prompt in enumerate(prompts(sizes, vocabulary, seed=seed))]


def prompts(sizes: Sizes, vocabulary: int, *, seed: int) -> list[Tokens]:
    """Prompts of random ids, fresh ones for every seed."""
    draw = np.random.default_rng(seed)
    shared = draw.integers(10, vocabulary, sizes.shared)
    own = draw.integers(10, vocabulary, (sizes.rows, sizes.own))
    return [np.concatenate((shared, row)).astype(np.int32) for row in own]
