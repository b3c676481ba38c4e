"""The one door to Triton, so that every op can be imported where Triton does not exist (macOS)."""

import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch


def _installed(name: str) -> Any:
    """A module of Triton's, or Triton itself; None where it is not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


triton = _installed("triton")
tl: Any = None if triton is None else importlib.import_module("triton.language")
_asynchronous = None if triton is None else _installed("triton.runtime._async_compile")

if TYPE_CHECKING or triton is None:
    Pointer: TypeAlias = Any
    Scalar: TypeAlias = Any
    Block: TypeAlias = Any
    constexpr: TypeAlias = Any
else:  # what Triton accepts as the annotation of a kernel's parameter
    Pointer = Scalar = Block = tl.tensor
    constexpr = tl.constexpr


class _Kernel(object if triton is None else triton.JITFunction):  # type: ignore[misc]
    """A kernel whose launches only compile inside `compiling_ahead`."""

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        if _asynchronous is not None and _asynchronous.active_mode.get() is not None:
            return partial(self.warmup, grid=grid)
        launch: Callable[..., Any] = super().__getitem__(grid)
        return launch


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`triton.jit`, or the undecorated function where Triton is missing (it can then not be launched)."""

    def decorate(function: Callable[..., Any]) -> Any:
        if triton is None:
            return function
        return triton.jit(function, **options) if interpreting() else _Kernel(function, **options)

    return decorate


@contextmanager
def compiling_ahead(threads: int, told: Callable[[int, int], None] = lambda done, known: None) -> Iterator[None]:
    """Inside, this thread's launches compile what they would run, side by side in so many threads, and run nothing.

    Outputs of kernels hold whatever their memory held: nothing may be read from them. At the end all is compiled;
    `told`: how many kernels are, of how many. Triton before 3.5 cannot do this: there, and in the interpreter, launches
    run as ever, and compile one by one.
    """
    if _asynchronous is None or interpreting():
        yield
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="dql-compile") as pool:
        try:
            mode = _asynchronous.AsyncCompileMode(pool)
            before = _asynchronous.active_mode.set(mode)
            try:
                yield
            finally:  # Triton's own way out leaves launches off where a compilation fails
                _asynchronous.active_mode.reset(before)
            begun = {kernel.future: kernel for kernel in mode.future_kernels.values()}
            for done, future in enumerate(as_completed(begun), 1):
                begun[future].result()
                told(done, len(begun))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def interpreting() -> bool:
    """Whether Triton kernels run in the interpreter, on CPU tensors (TRITON_INTERPRET=1)."""
    return triton is not None and bool(triton.knobs.runtime.interpret)


def uses_triton(tensor: torch.Tensor) -> bool:
    """Whether an op on this tensor runs its Triton kernel rather than its CPU path.

    Raises RuntimeError for a CUDA tensor where Triton is not installed.
    """
    if tensor.is_cuda and triton is None:
        raise RuntimeError("CUDA tensors need Triton: pip install triton")
    return tensor.is_cuda or interpreting()


def power_of_two(extent: int) -> int:
    """The smallest power of two that is at least `extent`: the extent of a Triton block that covers it."""
    return 1 << max(0, extent - 1).bit_length()


def cdiv(extent: int, block: int) -> int:
    """How many blocks cover the extent."""
    return -(-extent // block)


def compute_type(dtype: torch.dtype) -> Any:
    """The type that matrix products take: `dtype` itself, or float32 in the interpreter, which miscomputes bf16."""
    if interpreting():
        return tl.float32
    return {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}[dtype]
