"""Moving a step's small arrays to its device and back without waiting for the work that is queued there."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

_ALIGNED = 4  # int32s: every array begins at 16 bytes, so that kernels are compiled for one alignment only


class Transfer:
    """Integer arrays that go to a device together, as int32, in one copy."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.integer]] = []

    def add(self, array: NDArray[np.integer]) -> int:
        """Take an array along; returns its number among the tensors that `send` returns."""
        self._arrays.append(array)
        return len(self._arrays) - 1

    def send(self, device: torch.device) -> list[torch.Tensor]:
        """The arrays on the device, in the order they were added, with their shapes."""
        sizes = [-(-array.size // _ALIGNED) * _ALIGNED for array in self._arrays]
        starts = np.cumsum([0, *sizes])
        staged = np.zeros(int(starts[-1]), np.int32)
        for array, start in zip(self._arrays, starts.tolist(), strict=False):
            staged[start : start + array.size] = array.reshape(-1)
        sent = to_device(staged, device)
        pairs = zip(self._arrays, starts.tolist(), strict=False)
        return [sent[start : start + array.size].view(array.shape) for array, start in pairs]


def to_device(array: NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """The array on a device, queued behind the work there; on the CPU the array itself."""
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)  # the pinned pages live until the copy is done


def working_on(device: torch.device) -> AbstractContextManager[object]:
    """Inside, kernels are launched and events recorded on this device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class Fetch:
    """Tensors on their way to the CPU, behind the work queued so far; `arrays` waits for these copies alone."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._event: torch.cuda.Event | None = None
        if not tensors or not tensors[0].is_cuda:
            self._tensors = list(tensors)
            return
        self._tensors = [
            torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
            for tensor in tensors
        ]
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def arrays(self) -> list[NDArray[np.generic]]:
        """The tensors as arrays."""
        if self._event is not None:
            self._event.synchronize()
        return [tensor.numpy() for tensor in self._tensors]
