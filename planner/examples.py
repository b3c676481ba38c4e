"""`examples => […]`: texts with the answers they should get, checked against what the call can answer."""

from collections.abc import Mapping, Sequence

from dql.errors import BindError, name_hint
from dql.grammar import ast
from dql.planner.constants import constant
from dql.planner.logical import InferCall

_MAX = 64  # every example is read with every row
_HINT = "write examples => [('I was charged twice', 'billing'), …]"


def bind_examples(node: ast.Node, call: InferCall, params: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Text and answer of each example. Raises BindError for an answer that the call never gives."""
    found = constant(node, params)
    pairs = [_pair(item) for item in found] if isinstance(found, Sequence) and not isinstance(found, str) else [None]
    if any(pair is None for pair in pairs):
        raise BindError("examples are a list of pairs of a text and its answer", span=node.span, hint=_HINT)
    if len(pairs) > _MAX:
        raise BindError(f"at most {_MAX} examples, not {len(pairs)}", span=node.span)
    return tuple((text, _answer(answer, call, node)) for text, answer in (p for p in pairs if p is not None))


def _pair(item: object) -> tuple[str, object] | None:
    values = list(item.values()) if isinstance(item, Mapping) else item
    if isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 2 and isinstance(values[0], str):
        return values[0], values[1]
    return None


def _answer(answer: object, call: InferCall, node: ast.Node) -> str:
    if call.op == "filter":
        if not isinstance(answer, bool):
            raise BindError(f"the answer of a filter is TRUE or FALSE, not {answer!r}", span=node.span)
        return "Yes" if answer else "No"
    if answer not in call.labels.names:
        raise BindError(
            f"{answer!r} is none of the labels", span=node.span, hint=name_hint(str(answer), call.labels.names)
        )
    return str(answer)
