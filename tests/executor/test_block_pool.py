"""Slots of KV memory: every slot is in one block at most, and all come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dql.executor.block_pool import Block, SlotAllocator


@given(st.integers(0, 60), st.lists(st.tuples(st.integers(1, 25), st.integers(0, 9)), max_size=60))
def test_blocks_never_overlap_and_all_slots_return(slots: int, steps: list[tuple[int, int]]) -> None:
    """Each step allocates a block, or where its second number says so frees one of those held."""
    allocator = SlotAllocator(slots)
    held: list[Block] = []
    for length, choice in steps:
        if choice < 4 and held:
            allocator.free(held.pop(choice % len(held)))
        elif (block := allocator.allocate(length)) is not None:
            held.append(block)
        else:
            assert all(gap < length for gap in gaps(slots, held))
        taken = [slot for block in held for slot in range(block.start, block.start + block.length)]
        assert len(taken) == len(set(taken)) == slots - allocator.free_slots
        assert all(0 <= slot < slots for slot in taken)
    for block in held:
        allocator.free(block)
    assert allocator.free_slots == slots
    assert slots == 0 or allocator.allocate(slots) == Block(0, slots)


def gaps(slots: int, held: list[Block]) -> list[int]:
    """Lengths of the free runs between blocks."""
    edges = sorted((block.start, block.start + block.length) for block in held)
    starts, ends = [0, *(end for _, end in edges)], [*(start for start, _ in edges), slots]
    return [end - start for start, end in zip(starts, ends, strict=True)]


def test_freeing_twice_is_noticed() -> None:
    allocator = SlotAllocator(10)
    block = allocator.allocate(4)
    assert block is not None
    allocator.free(block)
    with pytest.raises(RuntimeError, match="freed twice"):
        allocator.free(block)
