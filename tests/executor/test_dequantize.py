"""Block formats of GGUF against the gguf package, value for value."""

import gguf
import numpy as np
import pytest

from dql.errors import ExecutionError
from dql.executor.dequantize import dequantize
from dql.models.gguf import BLOCKS, GgmlType

READABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


@pytest.mark.parametrize("name", READABLE)
def test_values_equal_those_of_the_gguf_package(name: str) -> None:
    kind = GgmlType[name]
    values, size = BLOCKS[kind]
    raw = np.random.default_rng(1).integers(0, 256, (3, 4097 * size), dtype=np.uint8)
    for at in range(0, size, 2):  # no infinities or NaN among what may be a half-precision scale
        raw[:, at + 1 :: size] &= 0x3B
    out = np.full((3, 4097 * values), np.nan, np.float32)

    dequantize(raw.reshape(-1), kind, out)

    expected = gguf.dequantize(raw, gguf.GGMLQuantizationType[name]).reshape(out.shape)
    np.testing.assert_array_equal(out, expected.astype(np.float32))


def test_a_type_that_cannot_be_read_is_named_with_those_that_can() -> None:
    with pytest.raises(ExecutionError, match="IQ2_XS") as caught:
        dequantize(np.zeros(74, np.uint8), GgmlType.IQ2_XS, np.zeros(256, np.float32))
    assert "Q4_K" in (caught.value.hint or "")
