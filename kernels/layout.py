"""What every launcher checks before it hands a pointer to a kernel: shape, dtype, device and strides."""

import math

import torch

Shape = tuple[int | None, ...]


class LayoutError(TypeError):
    """A tensor whose shape, dtype, device or strides the op does not take: the caller's bug, never the user's."""


def check(
    name: str,
    tensor: torch.Tensor,
    shape: Shape,
    *,
    dtypes: tuple[torch.dtype, ...] = (),
    like: torch.Tensor | None = None,
    contiguous: bool = True,
) -> None:
    """Raise LayoutError unless `tensor` has this shape (None: any extent), one of `dtypes`, and `like`'s device.

    contiguous=True wants the whole tensor dense; False wants all but the first dimension dense (a view into a fused
    projection, some columns of a table).
    """
    if len(tensor.shape) != len(shape) or any(w not in (None, g) for g, w in zip(tensor.shape, shape, strict=True)):
        raise LayoutError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
    if dtypes and tensor.dtype not in dtypes:
        raise LayoutError(f"{name} is {tensor.dtype}, expected one of {dtypes}")
    if like is not None and tensor.device != like.device:
        raise LayoutError(f"{name} is on {tensor.device}, expected {like.device}")
    extents, strides = tensor.shape[1:], tensor.stride()[1:]
    expected = tuple(math.prod(extents[i + 1 :]) for i in range(len(extents)))
    rows_dense = all(e <= 1 or s == x for e, s, x in zip(extents, strides, expected, strict=True))
    if not (tensor.is_contiguous() if contiguous else rows_dense):
        raise LayoutError(f"{name} has strides {tensor.stride()}: {'it' if contiguous else 'each row'} must be dense")


FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64)
FP8 = torch.float8_e4m3fn


def check_device_type(name: str, tensor: torch.Tensor) -> None:
    """Raise LayoutError for float32 on CUDA, where the tiles of the large kernels are sized for 16-bit types."""
    if tensor.is_cuda and tensor.dtype == torch.float32:
        raise LayoutError(f"{name} is float32: on CUDA this op takes float16 and bfloat16")


def check_queries(q: torch.Tensor, kv_heads: int) -> None:
    """Raise LayoutError unless q is [tokens, heads, head_dim] of floats and its heads share `kv_heads` evenly."""
    check("q", q, (None, None, None), dtypes=FLOATS, contiguous=False)
    check_device_type("q", q)
    if q.shape[1] % kv_heads:
        raise LayoutError(f"{q.shape[1]} query heads do not share {kv_heads} key heads evenly")
