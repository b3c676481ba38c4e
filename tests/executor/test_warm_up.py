"""What is compiled before the first step is all that the steps of real runs launch, told without a GPU.

Runs are scheduled on the CPU, and each of their steps is launched once more on fake CUDA tensors. Triton tells what it
would have to compile for a launch, with which types, alignments and constants, and compiles none of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from dql.executor.backend import CpuBackend
from dql.executor.calibrate import TINY
from dql.executor.decode_graphs import DecodeGraphs, Recorded
from dql.executor.engine import Engine
from dql.executor.models.decoder import Decoder
from dql.executor.models.linear import Layout
from dql.executor.options import EngineOptions
from dql.executor.quantize import CodesLayout, DenseLayout, layout
from dql.executor.requests import Generate, Request, Sampling, Score, Task
from dql.executor.step import Step
from dql.executor.triton_backend import launched
from dql.executor.warm_up import use_head, warm_up
from dql.executor.weights import dummy_weights
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import interpreting, triton
from dql.kernels.layout import FP8
from dql.models.shape import ModelShape
from tests.kernels.fake_driver import hopper

pytestmark = pytest.mark.skipif(triton is None or interpreting(), reason="needs Triton's compiler")

CONTEXT, SLOTS = 4096, 30_000
LLAMA = replace(
    TINY, num_layers=3, hidden_size=256, num_heads=8, num_kv_heads=2, head_dim=64, intermediate_size=256, vocab_size=256
)
GEMMA = replace(
    LLAMA, num_layers=4, sliding_window=40, sliding_layers=frozenset({0, 2}), attention_softcap=30.0,
    logit_softcap=30.0, sandwich_norms=True, qk_norm=True, num_heads=2, num_kv_heads=1,
)  # fmt: skip
Launch = tuple[str, str]  # the kernel, and all that it is compiled for


class Inline:
    """Threads that are none: fake tensors belong to the thread that made them."""

    def __init__(self, _: int) -> None: ...
    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None: ...
    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        return map(function, items)


class Indexing(TorchFunctionMode):
    """What a torch without CUDA refuses fake tensors: Python's indexing and copies. Nothing is written."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.Tensor.__setitem__, torch.Tensor.copy_):
            return args[0]
        if func is torch.Tensor.contiguous:
            return torch.empty_like(args[0], memory_format=torch.contiguous_format)
        if func is not torch.Tensor.__getitem__:
            return func(*args, **(kwargs or {}))
        tensor, index = args
        at = 0
        for part in index if isinstance(index, tuple) else (index,):
            if isinstance(part, slice):
                start, end, _ = part.indices(tensor.shape[at])
                tensor = tensor.narrow(at, start, max(end - start, 0))
            elif part is Ellipsis:
                at = tensor.ndim - 1  # all that follows makes room for one more
            elif part is None:
                tensor = tensor.unsqueeze(at)
            elif isinstance(part, int):
                tensor, at = tensor.select(at, part), at - 1
            else:
                tensor = tensor.index_select(at, part)
            at += 1
        return tensor


def on_fake_device(array: Any, device: torch.device) -> torch.Tensor:
    return torch.empty(array.shape, dtype=torch.from_numpy(array[:0]).dtype, device=device)


@contextmanager
def launches() -> Iterator[set[Launch]]:
    """Inside, CUDA tensors are fake; the set fills with what would be compiled for the launches."""
    found: set[Launch] = set()

    def note(*, key: str, fn: Any, **_: Any) -> bool:
        found.add((f"{fn.module}.{fn.name}", key))
        return True  # nothing is to be done

    modules = ("transfer", "sampler", "decode_graphs")
    with ExitStack() as stack:
        stack.enter_context(hopper())
        stack.enter_context(Indexing())
        for module in modules:
            stack.enter_context(mock.patch(f"dql.executor.{module}.to_device", on_fake_device))
        stack.enter_context(mock.patch("dql.executor.models.decoder.ThreadPoolExecutor", Inline))
        stack.enter_context(mock.patch("dql.executor.warm_up.working_on", lambda device: nullcontext()))
        stack.enter_context(mock.patch("dql.executor.decode_graphs.SEEN", 0))
        stack.enter_context(mock.patch.object(triton.knobs.runtime, "jit_cache_hook", note))
        yield found


def requests() -> list[Request]:
    """Rows alone and below short, dense and long shared runs; labels of one and more tokens; a few and many at once."""
    draw = np.random.default_rng(3)

    def text(length: int) -> list[int]:
        return [int(token) for token in draw.integers(3, 250, length)]

    tasks: list[Task] = [
        Score(((5, 2), (6, 7, 2), (6, 8, 2), (9,))),
        Score(((5,), (6,))),
        Generate(3),
        Generate(5, sampling=Sampling(temperature=0.8, top_k=9, seed=3)),
    ]
    prompts = [text(1), text(90), text(300), text(1500)]
    for shared, rows in ((0, 40), (20, 3), (40, 30), (400, 3), (700, 80)):
        above = text(shared)
        prompts += [above + text(1 + 7 * i % 30) for i in range(rows)]
    return [Request(i, np.array(prompt, np.int32), tasks[i % 4]) for i, prompt in enumerate(prompts)]


def steps_of(shape: ModelShape, asked: Sequence[Request], *, max_rows: int, step_tokens: int) -> list[Step]:
    """The steps of a run on the CPU, as they were planned."""
    found: list[Step] = []
    forward = CpuBackend.forward

    def noted(self: CpuBackend, step: Step, cancelled: Callable[[], bool]) -> torch.Tensor:
        found.append(deepcopy(step))
        return forward(self, step, cancelled)

    cpu = torch.device("cpu")
    decoder = Decoder(shape, dummy_weights(shape), context=CONTEXT, layout=layout("fp32", cpu))
    size = int(SLOTS * shape.kv_bytes_per_token(4))
    options = EngineOptions(kv_bytes=size, max_rows=max_rows, step_tokens=step_tokens)
    with mock.patch.object(CpuBackend, "forward", noted):
        answers = list(Engine(decoder, options).run(asked))
    assert all(answer.failure is None for answer in answers)
    return found


HELD: dict[str, Callable[[torch.device], Layout]] = {
    "bf16": lambda device: DenseLayout(device, torch.bfloat16),
    **{name: lambda device, name=name: CodesLayout(device, name) for name in ("fp8", "int8", "int4")},  # type: ignore[misc]
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "held", "keys"),
    [(LLAMA, "bf16", torch.bfloat16), (LLAMA, "int8", FP8), (GEMMA, "fp8", torch.bfloat16), (GEMMA, "int4", FP8)],
    ids=lambda value: getattr(value, "architecture", str(value)),
)
def test_no_step_launches_what_was_not_compiled_before(shape: ModelShape, held: str, keys: torch.dtype) -> None:
    steps = steps_of(shape, requests()[:12], max_rows=1, step_tokens=32)
    steps += steps_of(shape, requests(), max_rows=128, step_tokens=2048)
    device, size = torch.device("cuda", 0), (SLOTS + 1, shape.num_kv_heads, shape.head_dim)
    with launches() as found:
        decoder = Decoder(shape, dummy_weights(shape, device), context=CONTEXT, layout=HELD[held](device))
        caches = [KVCache.allocate(*size, keys, device) for _ in range(shape.num_layers)]
        newest = torch.zeros(SLOTS + 1, dtype=torch.int32, device=device)
        found.clear()  # quantising the weights is part of loading them
        warm_up(decoder, caches, CONTEXT)
        ahead = found.copy()
        found.clear()
        run_all(steps, decoder, caches, newest)
    met = found
    assert met <= ahead
    assert len(ahead - met) <= 4, "more is compiled than these runs, which have most of what there is, take"


def run_all(steps: Sequence[Step], decoder: Decoder, caches: Sequence[KVCache], newest: torch.Tensor) -> None:
    """Every step launch by launch, and from a graph where it is one of decoding rows alone; then what is drawn."""
    pool = cast(Any, SimpleNamespace(slots=SLOTS, caches=caches))
    graphs = DecodeGraphs(decoder, pool, newest, lambda run: Recorded(run, 0))
    for step in steps:
        hidden = launched(step, decoder, caches, newest)
        graphs.forward(step)
        if len(hidden):
            use_head(decoder, hidden)
    assert graphs.reason is None
