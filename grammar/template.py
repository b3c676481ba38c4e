"""Templates: string literals with `{expr}` holes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dql.errors import ParseError
from dql.grammar.ast import Argument, Call, Column, Comprehension, Expr, Lambda, Node, ReturningArg, Span, Star, String
from dql.grammar.literals import characters
from dql.grammar.names import INFERENCE_NAMES
from dql.grammar.parser import parse_hole
from dql.grammar.scanner import hole_end
from dql.grammar.unparse import to_sql
from dql.grammar.walk import children, transform, with_children

_BRACES = "for a brace in the text write {{ or }}"


def parse_template(
    literal: String, text: str | None = None, inference_names: frozenset[str] = frozenset()
) -> tuple[str | Expr | Star, ...]:
    """Literal text and holes of a template, in order: `'Hi {name}!'` gives `'Hi '`, `Column(('name',))`, `'!'`.

    `{{` and `}}` are braces. Spans of the holes are places in the text the literal stands in; `text`, if given, is that
    text and goes into errors. Raises ParseError for a hole that is empty, not closed or no expression.
    """
    place = _Place.of(literal)
    value, parts, words, i = literal.value, list[str | Expr | Star](), list[str](), 0
    while i < len(value):
        if value[i : i + 2] in ("{{", "}}"):
            words.append(value[i])
            i += 2
        elif value[i] == "{":
            if words:
                parts.append("".join(words))
                words.clear()
            hole, i = _hole(value, i, place, text, inference_names)
            parts.append(hole)
        elif value[i] == "}":
            raise ParseError("this } closes no hole", text=text, span=place.span(i, i + 1), hint=_BRACES)
        else:
            end = next((j for j in range(i, len(value)) if value[j] in "{}"), len(value))
            words.append(value[i:end])
            i = end
    if words:
        parts.append("".join(words))
    return tuple(parts)


def substitute(expr: Expr, values: Mapping[str, Expr]) -> Expr:
    """`expr` with columns of these names (lower case) replaced, in the templates of inference calls too.

    Names that a lambda or a list comprehension binds are left alone inside it.
    """
    found = _substitute(expr, values)
    assert isinstance(found, Expr)
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """Where each character of a literal's content stands in the text."""

    starts: tuple[int, ...]
    whole: Span

    @classmethod
    def of(cls, literal: String) -> "_Place":
        if not literal.raw:
            return cls((), literal.span)
        first, found = literal.span[0], list(characters(literal.raw))
        last = found[-1][1] + 1 if found else 1
        return cls((*(first + offset for _, offset in found), first + last), literal.span)

    def span(self, start: int, end: int) -> Span:
        """The place in the text of characters [start, end) of the content."""
        if not self.starts:
            return self.whole
        first = self.starts[min(start, len(self.starts) - 1)]
        return first, max(first, self.starts[min(end - 1, len(self.starts) - 2)] + 1) if end > start else first


def _hole(
    value: str, brace: int, place: _Place, text: str | None, inference_names: frozenset[str]
) -> tuple[Expr | Star, int]:
    """The expression of the hole at `brace`, and where the text goes on."""
    try:
        end = hole_end(value, brace + 1)
    except ParseError:  # a comment or dollar string runs past the end
        end = -1
    if end < 0:
        raise ParseError("this hole is not closed", text=text, span=place.span(brace, brace + 1), hint=_BRACES)
    inner = value[brace + 1 : end]
    if not inner.strip():
        hint = f"name a column, as {{body}}; {_BRACES}"
        raise ParseError("this hole is empty", text=text, span=place.span(brace, end + 1), hint=hint)
    try:
        found = parse_hole(inner, inference_names)
    except ParseError as error:
        first, last = error.span or (0, len(inner))
        span = place.span(brace + 1 + first, brace + 1 + max(last, first + 1))
        hint = f"{error.hint}; {_BRACES}" if error.hint else _BRACES
        raise ParseError(f"in this hole: {error.message}", text=text, span=span, hint=hint) from None

    def move(node: Node) -> Node:
        return replace(node, span=place.span(brace + 1 + node.span[0], brace + 1 + node.span[1]))

    moved = transform(found, move)
    assert isinstance(moved, Expr | Star)
    return moved, end + 1


def _substitute(node: Node, values: Mapping[str, Expr]) -> Node:
    if isinstance(node, Column) and len(node.path) == 1:
        return values.get(node.path[0].lower(), node)
    bound = node.params if isinstance(node, Lambda) else node.names if isinstance(node, Comprehension) else ()
    if bound:
        taken = {name.lower() for name in bound}
        values = {name: value for name, value in values.items() if name not in taken}
    if isinstance(node, Call) and node.name[-1].upper() in INFERENCE_NAMES:
        args = tuple(_in_template(arg, values) for arg in node.args)
        if any(new is not old for new, old in zip(args, node.args, strict=True)):
            node = replace(node, args=args)
    below = list(children(node))
    new = [_substitute(child, values) for child in below]
    return node if all(a is b for a, b in zip(below, new, strict=True)) else with_children(node, new)


def _in_template(arg: Argument, values: Mapping[str, Expr]) -> Argument:
    if isinstance(arg, ReturningArg) and isinstance(arg.expr, String):
        return replace(arg, expr=_fill(arg.expr, values))
    return _fill(arg, values) if isinstance(arg, String) else arg


def _fill(literal: String, values: Mapping[str, Expr]) -> String:
    try:
        parts = parse_template(literal)
    except ParseError:  # no template: a label or model name with a brace; the binder says so where it is one
        return literal
    texts = [part if isinstance(part, str) else _substitute(part, values) for part in parts]
    if all(a is b for a, b in zip(parts, texts, strict=True)):
        return literal
    return String("".join(_spell(part) for part in texts), span=literal.span)


def _spell(part: str | Node) -> str:
    if isinstance(part, str):
        return part.replace("{", "{{").replace("}", "}}")
    inner = to_sql(part)
    return f"{{ {inner} }}" if inner[0] == "{" or inner[-1] == "}" else f"{{{inner}}}"
