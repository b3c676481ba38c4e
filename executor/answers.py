"""The engine's answers as an Arrow column of the call's SQL type."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dql.executor.requests import Answer, Failure
from dql.planner.physical import CallExec

_TYPES = {
    "generate": pa.string(),
    "classify": pa.string(),
    "filter": pa.bool_(),
    "score": pa.float64(),
    "count_tokens": pa.int64(),
}
_YES = 0.5  # probability from which a yes is a yes

Row = tuple[Answer | None, ...] | None


class Reader:
    """Reads the answers to one call."""

    def __init__(self, call: CallExec) -> None:
        self._call = call
        self._type = pa.list_(pa.string()) if call.multi else _TYPES[call.op]

    @property
    def type(self) -> pa.DataType:
        """The column's type."""
        return details_type(self._type) if self._call.details else self._type

    def column(self, rows: Sequence[Row]) -> pa.Array:
        """One value per row; NULL where there is no answer or it failed."""
        values = [self._value(row) for row in rows]
        if not self._call.details:
            return pa.array(values, self.type)
        return pa.array([self._details(row, value) for row, value in zip(rows, values, strict=True)], self.type)

    def _value(self, row: Row) -> object:
        if not _ok(row) or row is None or row[0] is None:
            return None
        match self._call.op:
            case "generate":
                assert row[0].text is not None, "nobody read what was generated"
                return row[0].text.strip()
            case "count_tokens":
                return row[0].prompt_tokens
            case "filter":
                return bool(probabilities(row[0])[0] >= _YES)
            case "score":
                points = np.arange(self._call.low, self._call.high + 1)
                return float(probabilities(row[0]) @ points)
        if self._call.multi:
            chances = [probabilities(a)[0] for a in row if a is not None]
            return [name for name, p in zip(self._call.labels.names, chances, strict=True) if p >= _YES]
        return self._call.labels.names[int(np.argmax(row[0].logprobs))]

    def _details(self, row: Row, value: object) -> dict[str, object] | None:
        if row is None or row[0] is None:
            return None
        first = row[0]
        failure = next((a.failure for a in row if a is not None and a.failure is not None), None)
        confidence, margin, runner_up = self._confidence(row) if failure is None else (None, None, None)
        return {
            "value": value,
            "confidence": confidence,
            "margin": margin,
            "runner_up": runner_up,
            "finish": first.finish if self._call.op == "generate" and failure is None else None,
            "prompt_tokens": sum(a.prompt_tokens for a in row if a is not None),
            "output_tokens": sum(len(a.tokens) for a in row if a is not None),
            "cached_tokens": sum(a.cached_tokens for a in row if a is not None),
            "latency_ms": 1e3 * sum(a.seconds for a in row if a is not None),
            "error": f"{failure.kind}: {failure.message}" if failure is not None else None,
        }

    def _confidence(self, row: tuple[Answer | None, ...]) -> tuple[float | None, float | None, str | None]:
        """Confidence of the value, its lead over the next best, and what that is."""
        first = row[0]
        assert first is not None
        if self._call.op == "generate":
            return (float(np.exp(first.logprobs.mean())) if len(first.logprobs) else None), None, None
        if self._call.multi:
            return min(float(max(p, 1 - p)) for a in row if a is not None for p in probabilities(a)[:1]), None, None
        chances = probabilities(first)
        best, second = np.argsort(-chances)[:2]
        names = self._names()
        return float(chances[best]), float(chances[best] - chances[second]), names[second]

    def _names(self) -> Sequence[str]:
        if self._call.op == "filter":
            return ("true", "false")
        if self._call.op == "score":
            return [str(point) for point in range(self._call.low, self._call.high + 1)]
        return self._call.labels.names


def probabilities(found: Answer) -> NDArray[np.float64]:
    """Softmax over the labels' log-probabilities."""
    scores = found.logprobs.astype(np.float64)
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def answer(number: int, *, prompt_tokens: int = 0, failure: Failure | None = None) -> Answer:
    """An answer that took no model."""
    none = np.empty(0, np.int32), np.empty(0, np.float32)
    return Answer(number, *none, prompt_tokens=prompt_tokens, failure=failure)


def details_type(value: pa.DataType) -> pa.DataType:
    """The struct that `details => true` yields."""
    return pa.struct(
        [
            ("value", value),
            ("confidence", pa.float64()),
            ("margin", pa.float64()),
            ("runner_up", pa.string()),
            ("finish", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("output_tokens", pa.int32()),
            ("cached_tokens", pa.int32()),
            ("latency_ms", pa.float64()),
            ("error", pa.string()),
        ]
    )


def _ok(row: Row) -> bool:
    return row is not None and all(a is not None and a.failure is None for a in row)
