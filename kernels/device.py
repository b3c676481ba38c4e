"""Small device functions that several kernels call. All take and return float32."""

from dql.kernels.language import Block, constexpr, jit, tl


@jit()
def tanh(x: Block) -> Block:
    return 2 * tl.sigmoid(2 * x) - 1


@jit()
def row_scale(largest: Block, LARGEST_CODE: constexpr) -> Block:
    """The scale that maps the largest magnitude of a row to the largest code."""
    return tl.maximum(largest, 1e-12) / LARGEST_CODE


@jit()
def to_code(x: Block, dtype: constexpr) -> Block:
    """x as fp8, or rounded half to even as int8: adding 1.5 · 2²³ drops a float32's fraction."""
    if dtype == tl.int8:
        x = (x + 12582912.0) - 12582912.0
    return x.to(dtype)
