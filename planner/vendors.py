"""Forms of other systems, as dql's own: prompts of several parts, options in one object, names of arguments.

docs/vendors.md says form by form what runs unchanged and what differs.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dql.errors import BindError, name_hint
from dql.grammar import ast
from dql.planner.constants import constant
from dql.planner.logical import Prompt

_ARGUMENTS = {
    "categories": "labels",
    "content": "text",
    "endpoint": "model",
    "input": "text",
    "prompt": "text",
    "request": "text",
}
_OBJECTS = ("model_parameters", "modelparameters", "options")  # arguments that hold options
_OPTIONS = {"task_description": "instruction", "stop_sequences": "stop"}
_IGNORED = ("connection_id",)  # where a remote model is reached
# Functions of other systems that dql spells otherwise, lower case: what to write.
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(("complete", "try_complete"), "AI_COMPLETE('smollm2', body)"),
    **dict.fromkeys(("prompt", "llm_complete"), "AI_GENERATE('Summarise: {body}')"),
    **dict.fromkeys(("classify_text", "ml_classify"), "AI_CLASSIFY(body, ['a', 'b'])"),
    **dict.fromkeys(
        ("sentiment", "ai_sentiment", "ai_analyze_sentiment"), "AI_CLASSIFY(body, ['positive', 'neutral', 'negative'])"
    ),
    **dict.fromkeys(("summarize", "ai_summarize", "summarize_text"), "AI_GENERATE('Summarise: {body}')"),
    **dict.fromkeys(("translate", "ai_translate"), "AI_GENERATE('Translate into German: {body}')"),
    **dict.fromkeys(("extract_answer", "ai_extract_answer"), "AI_GENERATE('{question} Answer from this text: {body}')"),
    **dict.fromkeys(("ai_mask", "ai_redact"), "AI_GENERATE('Repeat this text without names and addresses: {body}')"),
    "ai_fix_grammar": "AI_GENERATE('Correct the grammar: {body}')",
    "llm_filter": "AI_FILTER('{body} is angry')",
    "llm_reduce": "AI_AGG(body, 'what they have in common')",
    **dict.fromkeys(("embed_text_768", "embed_text_1024", "llm_embedding", "embedding"), "AI_EMBED(body)"),
    **dict.fromkeys(("ai_bool", "generate_bool"), "AI_FILTER('{body} is angry')"),
}
_PLACE = re.compile(r"\{(\d+)\}")
_MODES = {"single": False, "multi": True}


def own_form(node: ast.Call, text: int, params: Mapping[str, object]) -> ast.Call:
    """The call with dql's names for its arguments and each option by name. Raises BindError for unknown ones.

    text: number of the positional argument that is the prompt.
    """
    args: list[ast.Argument] = []
    for i, arg in enumerate(node.args):
        if isinstance(arg, ast.NamedArg):
            args += _named(arg, params)
        elif isinstance(arg, ast.StructExpr) and i == 2:
            args += _options(arg, params)
        else:
            args.append(_prompt(arg) if i == text else arg)
    return replace(node, args=tuple(args))


def described(labels: object) -> object:
    """Labels given as `[{'label': 'a', 'description': '…'}]` or `[('a', '…')]` as label → description."""
    if not isinstance(labels, list) or not labels:
        return labels
    if all(isinstance(item, dict) and "label" in item for item in labels):
        return {item["label"]: item.get("description") for item in labels}
    if all(isinstance(item, list) and len(item) == 2 for item in labels):
        return dict(labels)
    return labels


def _named(arg: ast.NamedArg, params: Mapping[str, object]) -> Iterator[ast.Argument]:
    name = arg.name.lower()
    if name in _OBJECTS:
        yield from _options(arg.value, params)
    elif name not in _IGNORED:
        known = _ARGUMENTS.get(name, arg.name)
        yield replace(arg, name=known, value=_prompt(arg.value) if known == "text" else arg.value)


def _options(node: ast.Node, params: Mapping[str, object]) -> Iterator[ast.NamedArg]:
    """Options in an object: `{'output_mode': 'multi'}`, `named_struct('max_tokens', 20)`."""
    for key, value in _entries(node, params):
        name = _OPTIONS.get(key.lower(), key.lower())
        if name == "output_mode":
            mode = str(constant(value, params)).lower()
            if mode not in _MODES:
                raise BindError(f"no output_mode {mode}", span=value.span, hint=name_hint(mode, _MODES))
            name, value = "multi", ast.Constant(str(_MODES[mode]).upper(), span=value.span)
        elif name == "examples":
            value = _examples(value, params)
        yield ast.NamedArg(name, value, span=node.span)


def _entries(node: ast.Node, params: Mapping[str, object]) -> Iterator[tuple[str, ast.Expr]]:
    if isinstance(node, ast.StructExpr):
        for entry in node.entries:
            key = entry.key.path[-1] if isinstance(entry.key, ast.Column) else str(constant(entry.key, params))
            yield key, entry.value
    elif isinstance(node, ast.Call) and node.name[-1].lower() in ("named_struct", "object_construct"):
        values = [arg for arg in node.args if isinstance(arg, ast.Expr)]
        for key_node, value in zip(values[::2], values[1::2], strict=False):
            yield str(constant(key_node, params)), value
    else:
        raise BindError("options are an object", span=node.span, hint="write {'max_tokens': 20}, or max_tokens => 20")


def _examples(node: ast.Expr, params: Mapping[str, object]) -> ast.Expr:
    """`[{'input': 'text', 'labels': ['a'], …}]` as pairs of a text and its answer."""
    if not isinstance(node, ast.ListExpr):
        return node
    pairs: list[ast.Expr] = []
    for item in node.items:
        given = (
            {key.lower(): value for key, value in _entries(item, params)} if isinstance(item, ast.StructExpr) else {}
        )
        labels = given.get("labels")
        if "input" in given and isinstance(labels, ast.ListExpr) and len(labels.items) == 1:
            item = ast.Row((given["input"], labels.items[0]), span=item.span)
        pairs.append(item)
    return replace(node, items=tuple(pairs))


def _prompt(arg: Any) -> Any:
    """A prompt of several parts: `PROMPT('{0} is rude', body)`, `('is it rude? ', body)`."""
    if isinstance(arg, ast.Call) and arg.name[-1].lower() == "prompt" and arg.args:
        return Prompt(tuple(_numbered(arg)), span=arg.span)
    if isinstance(arg, ast.Row) and any(isinstance(item, ast.String) for item in arg.items):
        return Prompt(tuple(i.value if isinstance(i, ast.String) else i for i in arg.items), span=arg.span)
    return arg


def _numbered(call: ast.Call) -> Iterator[str | ast.Expr]:
    template, *values = call.args
    if not isinstance(template, ast.String):
        raise BindError("PROMPT begins with its text", span=call.span, hint="write PROMPT('{0} is rude', body)")
    for i, piece in enumerate(_PLACE.split(template.value)):
        if i % 2 == 0:
            if piece:
                yield piece
            continue
        value = values[int(piece)] if int(piece) < len(values) else None
        if not isinstance(value, ast.Expr):
            raise BindError(f"PROMPT has no argument {{{piece}}}", span=call.span, hint="they are counted from {0}")
        yield value
