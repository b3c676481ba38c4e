"""How long a device works on a call, and how long the processor takes to ask for it."""

from collections.abc import Callable
from time import perf_counter
from typing import Protocol

import torch

from dql.executor.decode_graphs import recorder
from dql.executor.windows import out_of_memory


class Timer(Protocol):
    """Tells how long a device works on a call."""

    def __call__(self, work: Callable[[], object], repeats: int) -> float:
        """Least seconds of a call, after one that compiles what it needs."""
        ...

    def host(self, work: Callable[[], object], repeats: int) -> float:
        """Least seconds until a call returns, whatever it left an idle device to do."""
        ...


class DeviceTimer:
    """By CUDA's events, the calls repeated from a graph; by the processor's clock on any other device."""

    def __init__(self, device: torch.device) -> None:
        self._record = recorder(device)

    def __call__(self, work: Callable[[], object], repeats: int) -> float:
        """See Timer."""
        if self._record is None:
            work()
            return min(ticked(work) for _ in range(repeats))

        def run() -> torch.Tensor:
            work()
            return torch.empty(0)

        try:
            again = self._record(run).again
        except RuntimeError as error:  # what cannot be recorded can still be launched
            if out_of_memory(error):
                raise
            again = run
        spans = []
        for _ in range(repeats):
            begin, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
            begin.record()
            again()
            end.record()
            spans.append((begin, end))
        torch.cuda.synchronize()
        return min(begin.elapsed_time(end) for begin, end in spans) / 1e3

    def host(self, work: Callable[[], object], repeats: int) -> float:
        """See Timer."""
        work()
        spans = []
        for _ in range(repeats):
            self._wait()
            spans.append(ticked(work))
        self._wait()
        return min(spans)

    def _wait(self) -> None:
        if self._record is not None:
            torch.cuda.synchronize()


def ticked(work: Callable[[], object]) -> float:
    """Seconds until a call returns."""
    began = perf_counter()
    work()
    return perf_counter() - began
