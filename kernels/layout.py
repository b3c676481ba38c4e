"""What every launcher checks before it hands a pointer to a kernel: shape, dtype, device and strides."""

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

    contiguous=True wants the whole tensor dense; False wants only the last dimension dense (a view into a fused
    projection, or a slice of a cache).
    """
    if len(tensor.shape) != len(shape) or any(w not in (None, g) for g, w in zip(tensor.shape, shape, strict=True)):
        raise LayoutError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
    if dtypes and tensor.dtype not in dtypes:
        raise LayoutError(f"{name} is {tensor.dtype}, expected one of {dtypes}")
    if like is not None and tensor.device != like.device:
        raise LayoutError(f"{name} is on {tensor.device}, expected {like.device}")
    dense = tensor.is_contiguous() if contiguous else tensor.shape[-1] <= 1 or tensor.stride(-1) == 1
    if not dense:
        raise LayoutError(f"{name} has strides {tensor.stride()}: {'all' if contiguous else 'last'} must be dense")


FLOATS = (torch.float32, torch.float16, torch.bfloat16)
INTEGERS = (torch.int32, torch.int64)
FP8 = torch.float8_e4m3fn
