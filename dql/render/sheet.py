"""What every output mode is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Sheet:
    """A table and how to lay it out: see `render`."""

    table: pa.Table
    types: Sequence[str]
    null: str
    width: int
    max_rows: int
    name: str
