"""Slabs: rows of about one size decode together, whichever of them comes first, unless memory is too short for that."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dql.executor.admission import Admission
from dql.executor.block_pool import BlockPool
from dql.executor.requests import Generate, Request
from dql.executor.rows import Row, plan_window
from dql.models import open_model

NEW = 33  # tokens, of which the last takes no slot


def rows_of(lengths: list[int]) -> list[Row]:
    """Decoding rows that share nothing, in this order."""
    texts = [np.full(length, 5 + number, np.int32) for number, length in enumerate(lengths)]
    window = plan_window([Request(i, text, Generate(NEW)) for i, text in enumerate(texts)], [], 512, 500)
    return sorted(window.rows, key=lambda row: row.ids)


@pytest.mark.parametrize(
    ("slots", "widths"),
    [(1000, [79]), (160, [75]), (75, [75])],
    ids=["as wide as the widest of the class", "as many as fit, like the first", "the first alone"],
)
def test_rows_of_one_class_share_a_slab(model_file: Path, slots: int, widths: list[int]) -> None:
    shape = open_model(model_file, name="tiny", uri="tiny").shape
    rows = rows_of([43, 47, 40, 20])
    admission = Admission(BlockPool(shape, slots, torch.float32, torch.device("cpu")), max_rows=8, quota=slots)
    placed = [admission.place_row(row, rows[place + 1 :]) for place, row in enumerate(rows)]
    assert placed[0]
    assert [slab.width for slab in admission.slabs] == widths
    assert sum(placed) == min(slots // widths[0], len(rows) - (widths[0] < rows[1].lane))
    for row, taken in zip(rows, placed, strict=True):
        if taken:
            admission.release(row)
    assert not admission.slabs
