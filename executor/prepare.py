"""What a call needs to know of a window of rows before it asks about it: which rows, their texts, their prompts.

Nothing here reads or changes what the run has learnt, so that a window can be prepared beside another's answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dql.models import Model
from dql.planner.physical import CallExec
from dql.planner.prompts import prompts
from dql.planner.statistics import prompt_key, read_texts
from dql.prompts import CompiledPrompt, TokenBatch

Texts = Sequence[Sequence[str]]  # one sequence per hole


@dataclass(frozen=True, slots=True)
class Prompted:
    """One prompt about every distinct input. keys: what their answers are remembered by, empty where none is.

    truncated: rows whose data was cut in the middle until their prompt fitted.
    """

    batch: TokenBatch
    keys: Sequence[bytes]
    truncated: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A window as one call sees it: `rows` are those it runs for, `places` the distinct inputs of each of them.

    members: the places among `rows` of each distinct input. texts: those inputs. prompted: per prompt of the call.
    counted: tokens of each distinct input's text, where that is all the call wants.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    members: Sequence[NDArray[np.int64]]
    texts: Texts
    prompted: Sequence[Prompted]
    counted: Sequence[int]


class Preparer:
    """Makes windows of rows into prompts, from any thread."""

    def __init__(self, call: CallExec, model: Model, *, truncates: bool) -> None:
        """truncates: data is cut where a prompt would not fit the model's context."""
        self._call = call
        self._truncates = truncates
        self._tokenizer = model.tokenizer
        self._context_length = model.shape.context_length
        self.prompts = prompts(call, model)

    def __call__(self, window: pa.RecordBatch) -> Prepared:
        """What the call would ask about a window, whatever was answered before."""
        call = self._call
        rows = wanted(window, call)
        holes = [window.column(hole).take(pa.array(rows)) for hole in call.holes]
        first, places = distinct(holes, len(rows)) if self.reuses else (np.arange(len(rows)), np.arange(len(rows)))
        texts = [read_texts(hole.take(pa.array(first))) for hole in holes]
        if call.op == "count_tokens":
            return Prepared(rows, places, [], texts, [], self._count(texts, len(first)))
        members = np.split(np.argsort(places, kind="stable"), np.cumsum(np.bincount(places))[:-1]) if len(rows) else []
        sizes = np.array([len(same) for same in members], np.int64)
        prompted = [self._prompted(prompt, texts, sizes) for prompt in self.prompts] if len(rows) else []
        return Prepared(rows, places, members, texts, prompted, [])

    @property
    def reuses(self) -> bool:
        """Whether equal inputs are asked about once."""
        return self._call.decoding.is_function and self._call.placement.reuse

    def tokens(self, window: pa.RecordBatch) -> float:
        """Tokens that asking about a row of the window takes, on average: those of its prompts and of their answers."""
        rows = pa.array(wanted(window, self._call))
        if not len(rows) or self._call.op == "count_tokens":
            return 0.0
        texts = [read_texts(window.column(hole).take(rows)) for hole in self._call.holes]
        batches = [_encoded(prompt, texts, len(rows)) for prompt in self.prompts]
        new = sum(self._new_tokens(prompt) for prompt in self.prompts)
        return (sum(int(batch.lengths.sum()) for batch in batches) + len(rows) * new) / int(window.num_rows)

    def _prompted(self, prompt: CompiledPrompt, texts: Texts, sizes: NDArray[np.int64]) -> Prompted:
        """`sizes` are how many rows each distinct input stands for."""
        batch, truncated = _encoded(prompt, texts, len(sizes)), 0
        if self._truncates:
            limit = self._context_length - self._new_tokens(prompt)
            batch, cut = prompt.truncate(batch, limit)
            truncated = int(sizes[cut & (batch.lengths <= limit)].sum())
        keys = [prompt_key(batch.row(i).tobytes()) if self.reuses else b"" for i in range(len(sizes))]
        return Prompted(batch, keys, truncated)

    def _count(self, texts: Texts, rows: int) -> list[int]:
        """Tokens of the rendered text of each row; no model runs."""
        parts = [[part] * rows if isinstance(part, str) else texts[part] for part in self._call.template]
        _, offsets = self._tokenizer.encode_data(
            ["".join(row) for row in zip(*parts, strict=True)] if parts else [""] * rows
        )
        counts: list[int] = np.diff(offsets).tolist()
        return counts

    def _new_tokens(self, prompt: CompiledPrompt) -> int:
        """Most tokens after a prompt: those drawn, or of a label but its last, which nothing follows."""
        return self._call.decoding.max_tokens if self._call.op == "generate" else max(map(len, prompt.label_ids)) - 1


def wanted(batch: pa.RecordBatch, call: CallExec) -> NDArray[np.int64]:
    """Rows for which the call runs: the guard is TRUE and no hole is NULL."""
    mask = np.ones(batch.num_rows, dtype=bool)
    for hole in call.holes:
        mask &= np.asarray(pc.is_valid(batch.column(hole)).to_numpy(zero_copy_only=False))
    if call.guard is not None:
        guard = pc.fill_null(batch.column(call.guard), False)
        mask &= np.asarray(guard.to_numpy(zero_copy_only=False))
    return np.flatnonzero(mask)


def distinct(columns: Sequence[pa.Array], rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first row of each distinct combination of values, in order, and each row's combination.

    The columns have `rows` values and no NULLs.
    """
    codes = np.zeros(rows, np.int64)
    for column in columns:
        encoded = column.dictionary_encode()
        codes = codes * max(len(encoded.dictionary), 1) + encoded.indices.to_numpy(zero_copy_only=False)
        codes = np.unique(codes, return_inverse=True)[1]  # small again, so that many columns do not overflow
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return first[order].astype(np.int64), ranks[inverse]


def _encoded(prompt: CompiledPrompt, texts: Texts, rows: int) -> TokenBatch:
    """A prompt about each of the rows; a call that reads no column asks the same about all."""
    if texts:
        return prompt.encode(texts)
    batch = prompt.encode(())
    lengths = np.full(rows, len(batch.ids), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return TokenBatch(np.tile(batch.ids, rows), offsets, np.zeros((rows, 0, 2), np.int64))
