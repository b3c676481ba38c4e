"""Jinja for templates out of model files: code written by strangers, run with bounded time, memory and reach.

The sandbox of jinja2 keeps templates from Python's internals. What it does not bound is work: loops over huge ranges,
strings that double, macros that call themselves. Here every loop step, call and filter spends from one budget, and
every value an operation makes is measured, so that a template ends within about a second or is refused.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes, visitor
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from dql.errors import ConfigError

MAX_SOURCE = 256 << 10  # characters; the longest chat templates in the wild have some 30,000
_MAX_STEPS = 50_000
_MAX_SIZE = 1 << 20  # characters and elements of one value, nested ones counted each time they occur
_ELEMENT = 16  # what an element of a list counts, beside its characters
_MAX_INTEGER = 1 << 64
_MAX_SECONDS = 1.0
# fmt: off
_FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "int",
    "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace",
    "reverse", "round", "safe", "select", "selectattr", "sort", "string", "title", "trim", "unique", "upper",
})
_STRING_METHODS = frozenset({
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isspace",
    "isupper", "join", "lower", "lstrip", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rsplit",
    "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
})
# fmt: on
_SPEND_FILTER, _BOUND_FILTER = "_spend", "_bound"


class TemplateEnvironment(ImmutableSandboxedEnvironment):
    """Renders one template once: the budget is not renewed. Nothing can be loaded from outside."""

    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock])
        self._steps = 0
        self._deadline = time.monotonic() + _MAX_SECONDS
        self.filters = {name: self._counted(self.filters[name]) for name in _FILTERS}
        self.filters |= {"tojson": self._to_json, _SPEND_FILTER: self._spend_each, _BOUND_FILTER: self._bound}
        self.globals = {
            "range": self._range,
            "namespace": Namespace,
            "dict": dict,
            "raise_exception": _raise,
            "strftime_now": lambda pattern: datetime.now().strftime(pattern[:64]),
        }

    def render(self, source: str, variables: Mapping[str, Any]) -> str:
        """The template's text. Raises ConfigError for anything the template does wrong, limits included."""
        if len(source) > MAX_SOURCE:
            raise ConfigError(f"the model's chat template has {len(source)} characters; the limit is {MAX_SOURCE}")
        self._deadline = time.monotonic() + _MAX_SECONDS
        try:
            template = jinja2.Template.from_code(self, _compiled(source), self.globals)
            pieces: list[str] = []
            size = 0
            for piece in template.generate(variables):
                size += len(piece)
                if size > _MAX_SIZE:
                    raise _too_much(f"text of more than {_MAX_SIZE} characters")
                pieces.append(piece)
            return "".join(pieces)
        except ConfigError:
            raise
        except (jinja2.TemplateError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            what = "it calls itself without end" if isinstance(error, RecursionError) else str(error)
            raise ConfigError(f"the model's chat template failed: {what}") from error

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._spend()
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name not in _STRING_METHODS:
            raise SecurityError(f"templates may not use the string method {name!r}")
        if isinstance(owner, str):
            self._check_growth(name, (owner, *args))
        return self._bound(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> None:
        if getattr(value, "__name__", "") in ("format", "format_map") and isinstance(value.__self__, str):
            raise SecurityError("templates may not use the string method 'format'")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._spend()
        numbers = all(isinstance(side, int | float) and abs(side) < _MAX_INTEGER for side in (left, right))
        if operator == "**" and not (numbers and abs(right) < 64):
            raise _too_much("a power that large")
        if operator == "*" and not numbers and _factor(left) * _factor(right) > _MAX_SIZE:
            raise _too_much("a product that large")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("templates may not format with %")
        return self._bound(super().call_binop(context, operator, left, right))

    def _spend(self) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS or time.monotonic() > self._deadline:
            raise _too_much(f"more than {_MAX_STEPS} steps or {_MAX_SECONDS:g} s")

    def _spend_each(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._spend()
            yield value

    def _bound(self, value: Any) -> Any:
        self._spend()
        _size(value, _MAX_SIZE)
        return value

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The filter with its arguments and its result measured; jinja's pass_… marks are carried over."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._spend()
            self._check_growth(function.__name__.removeprefix("do_"), args)
            result = function(*args, **kwargs)
            return self._spend_each(result) if isinstance(result, Iterator) else self._bound(result)

        for mark, value in getattr(function, "__dict__", {}).items():
            setattr(counted, mark, value)
        return counted

    def _check_growth(self, name: str, args: tuple[Any, ...]) -> None:
        """Join and replace multiply two lengths; refuse before they do."""
        texts = [arg for arg in args if isinstance(arg, str | list | tuple)]
        if name in ("join", "replace") and len(texts) >= 2:
            first, last = _size(texts[0], _MAX_SIZE), _size(texts[-1], _MAX_SIZE)
            if (first + 1) * (last + 1) > _MAX_SIZE * 64:
                raise _too_much("a joined text that long")

    def _to_json(self, value: Any, indent: int | None = None, ensure_ascii: bool = False, **_: Any) -> str:
        self._bound(value)
        width = indent if isinstance(indent, int) and 0 <= indent <= 16 else None
        return json.dumps(value, ensure_ascii=bool(ensure_ascii), indent=width)

    def _range(self, *bounds: int) -> range:
        values = range(*bounds)
        if len(values) > _MAX_STEPS:
            raise _too_much(f"a range of {len(values)} numbers")
        return values


@lru_cache(maxsize=8)
def _compiled(source: str) -> CodeType:
    """The code of a template, which no rendering changes; a model's is asked for with each of its prompts."""
    environment = TemplateEnvironment()
    code: CodeType = environment.compile(_Guard().visit(environment.parse(source)))
    return code


class _GenerationBlock(Extension):
    """{% generation %} … {% endgeneration %}: marks the assistant's text for training; here only its body counts."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Guard(visitor.NodeTransformer):
    """Routes loops through the budget, and literals and `~`, which no hook of the sandbox sees, through the measure."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _SPEND_FILTER, [], [], None, None, lineno=node.lineno)
        return node

    def _visit_literal(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        stores = isinstance(node, nodes.Tuple) and node.ctx == "store"
        return node if stores else nodes.Filter(node, _BOUND_FILTER, [], [], None, None, lineno=node.lineno)

    visit_Concat = visit_List = visit_Tuple = visit_Dict = _visit_literal

    def visit_Include(self, node: nodes.Node) -> nodes.Node:
        raise ConfigError("the model's chat template tries to load another file")

    visit_Import = visit_FromImport = visit_Extends = visit_Include


def _size(value: Any, limit: int) -> int:
    """Characters and elements of a value, nested values each time they occur. Raises ConfigError past the limit."""
    total = 0
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, Mapping):
            pending += item.keys()
            pending += item.values()
        elif isinstance(item, list | tuple | set | frozenset):
            pending += item
        elif isinstance(item, int) and abs(item) >= _MAX_INTEGER:
            raise _too_much("a number that large")
        total += len(item) + _ELEMENT if isinstance(item, str) else _ELEMENT
        if total + len(pending) > limit:
            raise _too_much(f"a value of more than {limit} characters")
    return total


def _factor(value: Any) -> int:
    return max(abs(value), 1) if isinstance(value, int) else _size(value, _MAX_SIZE)


def _too_much(what: str) -> ConfigError:
    return ConfigError(f"the model's chat template asks for {what} and was stopped")


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
