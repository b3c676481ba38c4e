"""An inference call as written → what it asks of a model: operator, prompt, labels, options, all checked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import cast

from dql.errors import BindError, DqlError, UnsupportedError, name_hint
from dql.grammar import ast
from dql.grammar.names import INFERENCE_NAMES
from dql.grammar.template import parse_template
from dql.grammar.unparse import to_sql
from dql.planner.constants import constant
from dql.planner.contract import setting_value
from dql.planner.environment import Environment
from dql.planner.examples import bind_examples
from dql.planner.guards import Inference
from dql.planner.logical import Column, Decoding, InferCall, Labels, Operator, Prompt
from dql.planner.vendors import described, own_form

CASCADED = ("classify", "filter")  # calls whose model knows how sure it is
_DECODING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "stop", "seed")
_EVERY = ("system", "model", "details", *_DECODING)
DETAILS = (
    "STRUCT(value {}, confidence DOUBLE, margin DOUBLE, runner_up VARCHAR, finish VARCHAR, prompt_tokens INTEGER, "
    "output_tokens INTEGER, cached_tokens INTEGER, latency_ms DOUBLE, error VARCHAR)"
)
_MAX_SCALE = 101
_MAX_LABELS = 1000


@dataclass(frozen=True, slots=True)
class Signature:
    """One inference function: its arguments by position, the type it yields, the options it takes by name."""

    name: str
    op: Operator
    positional: tuple[str, ...]
    required: int
    type: str
    options: tuple[str, ...] = ()
    usage: str = ""


_GENERATE = Signature("AI_GENERATE", "generate", ("text",), 1, "VARCHAR", (), "AI_GENERATE('Summarise: {body}')")
_COMPLETE = Signature("AI_COMPLETE", "generate", ("model", "text"), 2, "VARCHAR", (), "AI_COMPLETE('smollm2', body)")
_CLASSIFY = Signature(
    "AI_CLASSIFY",
    "classify",
    ("text", "labels"),
    2,
    "VARCHAR",
    ("multi", "instruction", "examples", "calibrate"),
    "AI_CLASSIFY(body, ['billing', 'bug'])",
)
_FILTER = Signature(
    "AI_FILTER", "filter", ("text",), 1, "BOOLEAN", ("examples", "calibrate"), "AI_FILTER('{body} is angry')"
)
_SCORE = Signature("AI_SCORE", "score", ("text", "low", "high"), 1, "DOUBLE", (), "AI_SCORE('Urgent? {body}', 1, 5)")
_COUNT = Signature("AI_COUNT_TOKENS", "count_tokens", ("text",), 1, "BIGINT", (), "AI_COUNT_TOKENS(body)")
SIGNATURES: Mapping[str, Signature] = {
    "AI_GENERATE": _GENERATE,
    "AI.GENERATE": _GENERATE,
    "AI_GEN": _GENERATE,
    "AI_COMPLETE": _COMPLETE,
    "AI_QUERY": _COMPLETE,
    "AI_CLASSIFY": _CLASSIFY,
    "AI.CLASSIFY": _CLASSIFY,
    "AI_FILTER": _FILTER,
    "AI.IF": _FILTER,
    "AI_SCORE": _SCORE,
    "AI.SCORE": _SCORE,
    "AI_COUNT_TOKENS": _COUNT,
}


def is_inference(node: ast.Node, env: Environment) -> bool:
    """Whether a call runs a model: a built-in inference function, or a macro whose body holds one."""
    return isinstance(node, ast.Call) and (
        node.name[-1].upper() in INFERENCE_NAMES or node.name[-1].lower() in env.macros
    )


def is_aggregate(node: ast.Node, env: Environment) -> bool:
    """Whether a call is an aggregate function over a group, not over a window."""
    if not isinstance(node, ast.Call) or node.over is not None or len(node.name) > 1:
        return False
    name = node.name[0].lower()
    return name in env.catalog.aggregates or name in ("grouping", "grouping_id")


def bind_call(node: ast.Call, env: Environment, prepare: Callable[[ast.Expr], ast.Expr]) -> Inference:
    """Check one call. `prepare` binds the calls inside template holes. Raises BindError or UnsupportedError."""
    signature = SIGNATURES.get(node.name[-1].upper())
    if signature is None:
        raise UnsupportedError(f"{node.name[-1]} does not run yet", span=node.span, hint="see SHOW FUNCTIONS")
    if node.over is not None or node.filter is not None or node.distinct or node.order_by:
        raise BindError(f"{signature.name} is no aggregate or window function", span=node.span)
    args, options = _arguments(own_form(node, _text_place(node, signature), env.params), signature)
    values = {name: _option(name, value, env) for name, value in options.items()}
    named = args.get("model") or options.get("model")
    call = InferCall(
        op=signature.op,
        prompt=_prompt(args["text"], env, prepare),
        model=_model(named, env),
        cascade=env.cascade if named is None and signature.op in CASCADED else (),
        alternatives=env.alternatives if named is None and signature.op != "count_tokens" else (),
        draft=env.draft if named is None and signature.op == "generate" else None,
        decoding=_decoding(values, env, node.span),
        system=cast("str | None", values.get("system")),
        instruction=cast("str | None", values.get("instruction")),
        calibrate=bool(values.get("calibrate", False)),
        details=bool(values.get("details", False)),
        text=_display(node),
        span=node.span,
    )
    call = _operator_arguments(call, args, options, values, env)
    if "examples" in options:
        call = replace(call, examples=bind_examples(options["examples"], call, env.params))
    sql_type = "VARCHAR[]" if call.multi else signature.type
    out = Column("", DETAILS.format(sql_type) if call.details else sql_type)
    return Inference(call.prompt, replace(call, out=out), span=node.span)


def _text_place(node: ast.Call, signature: Signature) -> int:
    """Number of the positional argument that is the text; a lone one is, even where a model may come first."""
    positional = [a for a in node.args if not isinstance(a, ast.NamedArg)]
    return 0 if len(positional) == 1 else signature.positional.index("text")


def _arguments(node: ast.Call, signature: Signature) -> tuple[dict[str, ast.Node], dict[str, ast.Node]]:
    args: dict[str, ast.Node] = {}
    options: dict[str, ast.Node] = {}
    allowed = (*signature.options, *(_EVERY if signature.op != "count_tokens" else ("model",)))
    positional = [a for a in node.args if not isinstance(a, ast.NamedArg)]
    if positional and isinstance(positional[0], ast.ReturningArg):
        what = f"RETURNING in {signature.name}"
        raise UnsupportedError(f"{what} does not run yet", span=positional[0].type.span)
    if signature is _COMPLETE and len(positional) == 1:
        signature = _GENERATE
    for name, value in zip(signature.positional, positional, strict=False):
        args[name] = value
    if len(positional) > len(signature.positional):
        extra = positional[len(signature.positional)]
        number = len(signature.positional)
        what = f"{_display(node)} takes {number} argument{'' if number == 1 else 's'}"
        raise BindError(what, span=extra.span, hint=_usage(signature))
    for arg in node.args:
        if isinstance(arg, ast.NamedArg):
            name = arg.name.lower()
            into = args if name in signature.positional else options
            if into is options and name not in allowed:
                hint = name_hint(name, {*allowed, *signature.positional})
                raise BindError(f"{_display(node)} has no option {arg.name}", span=arg.span, hint=hint)
            if name in into:
                raise BindError(f"{arg.name} is given twice", span=arg.span)
            into[name] = arg.value
    for name in signature.positional[: signature.required]:
        if name not in args:
            raise BindError(f"{_display(node)} needs {name}", span=node.span, hint=_usage(signature))
    return args, options


def _usage(signature: Signature) -> str:
    return f"write {signature.usage}"


def _prompt(node: ast.Node, env: Environment, prepare: Callable[[ast.Expr], ast.Expr]) -> Prompt:
    """The one rule of text arguments: a string literal is a template, anything else a value."""
    if isinstance(node, Prompt):
        return node
    if isinstance(node, ast.String):
        parts = parse_template(node, inference_names=frozenset(env.macros))
        bound = tuple(prepare(p) if isinstance(p, ast.Expr) else p for p in parts)
        return Prompt(bound, span=node.span)
    if not isinstance(node, ast.Expr):
        raise BindError("this must be a text", span=node.span)
    return Prompt((node,), bare=True, span=node.span)


def _option(name: str, value: ast.Node, env: Environment) -> object:
    if name in _DECODING:
        return setting_value(name, constant(value, env.params), span=value.span)
    if name == "examples":
        return None  # read when the labels are known
    found = constant(value, env.params)
    if name in ("multi", "details", "calibrate"):
        if not isinstance(found, bool):
            raise BindError(f"{name} is TRUE or FALSE", span=value.span)
    elif not isinstance(found, str):
        raise BindError(f"{name} is a text", span=value.span)
    return found


def _model(node: ast.Node | None, env: Environment) -> str:
    if node is None:
        return env.model
    name = constant(node, env.params)
    if not isinstance(name, str):
        raise BindError("a model is named by a text", span=node.span, hint="write model => 'smollm2'")
    return env.check_model(ast.ModelRef(name, literal=True, span=node.span))


def _decoding(values: Mapping[str, object], env: Environment, span: ast.Span) -> Decoding:
    found = {name: values[name] if name in values else env.settings.get(name) for name in _DECODING}
    return Decoding(**{name: value for name, value in found.items() if value is not None})  # type: ignore[arg-type]


def _operator_arguments(
    call: InferCall,
    args: Mapping[str, ast.Node],
    options: Mapping[str, ast.Node],
    values: Mapping[str, object],
    env: Environment,
) -> InferCall:
    if call.op == "classify":
        return replace(call, labels=_labels(args["labels"], env), multi=bool(values.get("multi", False)))
    if call.op == "score":
        low, high = (_whole(args[n], env) if n in args else d for n, d in (("low", 0), ("high", 10)))
        if not low < high or high - low >= _MAX_SCALE:
            span = args["high"].span if "high" in args else call.span
            hint = f"write whole numbers, at most {_MAX_SCALE} points: AI_SCORE(body, 1, 5)"
            raise BindError(f"no scale from {low} to {high}", span=span, hint=hint)
        return replace(call, low=low, high=high)
    return call


def _whole(node: ast.Node, env: Environment) -> int:
    value = constant(node, env.params)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BindError("a scale runs between whole numbers", span=node.span, hint="write AI_SCORE(body, 1, 5)")
    return value


def _labels(node: ast.Node, env: Environment) -> Labels:
    if isinstance(node, ast.Subquery):
        found: object = _texts(node, env)
    else:
        found = constant(node, env.params)
    found = described(found)
    names = list(found) if isinstance(found, list | tuple | dict) else None
    if names is None or not all(isinstance(name, str) for name in names):
        hint = "write ['billing', 'bug'], {'billing': 'about money', …} or (SELECT name FROM topics)"
        raise BindError("labels are a list of texts", span=node.span, hint=hint)
    if len(names) < 2 or any(not name.strip() for name in names):
        raise BindError("a classification needs at least two labels, none empty", span=node.span)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BindError(f"label '{twice}' is given twice", span=node.span)
    if len(names) > _MAX_LABELS:
        raise BindError(f"at most {_MAX_LABELS} labels, not {len(names)}", span=node.span)
    return Labels(tuple(names), tuple(str(v or "") for v in found.values()) if isinstance(found, dict) else ())


def _texts(node: ast.Subquery, env: Environment) -> list[str]:
    try:
        return env.catalog.texts(to_sql(node.query), env.params)
    except DqlError as error:
        error.span = error.span or (node.span if error.excerpt is None else None)
        raise


def _display(node: ast.Call) -> str:
    return node.name[-1].upper()
