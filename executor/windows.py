"""What every kind of run does with its requests: pull them in windows, and tell a lack of memory from a bug."""

from collections.abc import Iterator

import torch

from dql.executor.options import EngineOptions
from dql.executor.requests import Request

# beside torch's allocator: the CPU's, CUDA's driver (pinned pages, a kernel's code) and cuBLAS (its workspace)
_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def pull(requests: Iterator[Request], options: EngineOptions) -> tuple[list[Request], bool]:
    """The next window of requests, and whether they were the last."""
    window: list[Request] = []
    tokens = 0
    while len(window) < options.window and tokens < options.window_tokens:
        if (request := next(requests, None)) is None:
            return window, True
        window.append(request)
        tokens += len(request.tokens)
    return window, False


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that an allocation failed, on either kind of device."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _NO_MEMORY)
