"""Statement verbs as the SELECT they stand for."""

from dql.errors import ParseError
from dql.grammar import ast

_CALLS = {
    "GENERATE": "AI_GENERATE",
    "CLASSIFY": "AI_CLASSIFY",
    "SCORE": "AI_SCORE",
    "EXTRACT": "AI_EXTRACT",
    "EMBED": "AI_EMBED",
}


def desugar(verb: ast.VerbQuery) -> ast.Select:
    """Every column of FROM, then one call per item; unnamed ones are called after the verb."""
    taken: set[str] = set()
    items: list[ast.SelectItem] = [ast.SelectItem(ast.Star(span=verb.span))] if verb.from_ else []
    for item in verb.items:
        name = item.alias or _free(verb.verb.lower(), taken)
        if name.lower() in taken:
            raise ParseError(f"{name} is given twice", span=item.span, hint="write AS and another name")
        taken.add(name.lower())
        items.append(ast.SelectItem(_call(verb.verb, item), name, span=item.span))
    return ast.Select(
        items=tuple(items),
        from_=verb.from_,
        where=verb.where,
        group_by=verb.group_by,
        having=verb.having,
        windows=verb.windows,
        qualify=verb.qualify,
        sample=verb.sample,
        span=verb.span,
    )


def _call(verb: str, item: ast.VerbItem) -> ast.Call:
    args: list[ast.Argument] = [item.input]
    if item.type is not None and verb == "GENERATE":
        args = [ast.ReturningArg(item.input, item.type, span=item.span)]
    elif item.type is not None:
        args.append(ast.TypeArg(item.type, span=item.type.span))
    args += [arg for arg in (item.labels, item.low, item.high) if arg is not None]
    return ast.Call((_CALLS[verb],), tuple(args), span=item.span)


def _free(name: str, taken: set[str]) -> str:
    """`generate`, then `generate_1`, as DuckDB numbers columns of one name."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
