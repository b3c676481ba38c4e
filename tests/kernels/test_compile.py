"""Every shipped configuration compiles for Hopper: no spills, shared memory within limits, `wgmma` where claimed."""

import pytest

from dql.kernels.configs import CONFIGS
from dql.kernels.language import compiling_ahead, interpreting, triton
from tests.kernels.fake_driver import SHARED_LIMIT, hopper
from tests.kernels.launches import LAUNCHES, WGMMA

pytestmark = pytest.mark.skipif(triton is None or interpreting(), reason="needs Triton's compiler")


def test_every_configuration_has_a_launch() -> None:
    assert {(op, shape_class) for op, shape_class, architecture in CONFIGS if architecture} == set(LAUNCHES)
    for op, shape_class in LAUNCHES:
        assert (op, shape_class, 0) in CONFIGS, "the interpreter needs a row of its own"


@pytest.mark.slow
@pytest.mark.parametrize("row", LAUNCHES, ids=lambda row: f"{row[0]} {row[1]}")
def test_configuration_compiles_for_hopper(row: tuple[str, str]) -> None:
    with hopper() as compiled:
        LAUNCHES[row]()
    assert compiled
    for kernel in compiled:
        assert kernel.local_bytes == 0, (kernel.kernel, kernel.constants)
        assert kernel.shared_bytes <= SHARED_LIMIT, (kernel.kernel, kernel.constants)
        assert row[0] != "int4_linear" or ".ftz" not in kernel.ptx, "its codes pass through subnormal numbers"
    products = [kernel for kernel in compiled if kernel.uses_tensor_cores]
    assert all(kernel.uses_wgmma for kernel in products) or row not in WGMMA
    assert bool(products) >= (row in WGMMA)


@pytest.mark.slow
def test_what_was_compiled_ahead_is_what_launches_take() -> None:
    """Side by side, in threads, nothing launched; afterwards the same calls compile nothing."""
    rows = ("scale_sums", "any"), ("quantize_rows", "any"), ("join_parts", "any")
    told: list[tuple[int, int]] = []
    with hopper() as compiled:
        with compiling_ahead(2, lambda done, known: told.append((done, known))):
            for row in rows:
                LAUNCHES[row]()
        ahead = len(compiled)
        assert len({kernel.kernel for kernel in compiled}) >= len(rows)
        for row in rows:
            LAUNCHES[row]()
        assert len(compiled) == ahead
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)] and len(told) >= len(rows)


def test_an_error_while_compiling_ahead_leaves_launches_on() -> None:
    with hopper() as compiled:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError), compiling_ahead(1):
                raise ZeroDivisionError
        LAUNCHES["quantize_rows", "any"]()
        assert compiled
