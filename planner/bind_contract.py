"""`WITH …` as written → Contract: every name, unit, value and direction checked, errors at the word to blame."""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from dql.errors import BindError, ParseError, name_hint
from dql.grammar import ast
from dql.planner.contract import (
    BOUND_KINDS,
    OBJECTIVES,
    SETTING_KINDS,
    Bound,
    BoundKind,
    Contract,
    Value,
    setting_value,
)

_QUANTITY = re.compile(r"\s*([+-]?[\d._]+(?:e[+-]?\d+)?)\s*([A-Za-z%/]*)\s*", re.IGNORECASE)


def bind_contract(node: ast.Contract | None, params: Mapping[str, object], defaults: Mapping[str, Value]) -> Contract:
    """The contract of a query. `defaults` are the session's settings. Raises ParseError or BindError."""
    contract = Contract(defaults=dict(defaults))
    items = node.items if node is not None else ()
    for _, second in pairwise(item for item in items if isinstance(item, ast.Objective)):
        hint = "keep one of them, and write the other as a bound"
        raise ParseError("a query has one objective", span=second.span, hint=hint)
    for item in items:
        if isinstance(item, ast.Objective):
            contract = replace(contract, objective=_objective(item))
        elif isinstance(item, ast.Setting):
            contract = _with_setting(contract, item, params)
        else:
            contract = _with_bound(contract, item, params)
    return contract


def bind_value(node: ast.SettingValue, params: Mapping[str, object]) -> tuple[object, str]:
    """A setting's or bound's value as Python data, and its unit; a parameter may hold a number or `'200ms'`."""
    match node:
        case ast.Quantity():
            number = float(node.number.replace("_", ""))
            plain: object = int(number) if number.is_integer() and "." not in node.number else number
            return plain, node.unit.text if node.unit else ""
        case ast.String():
            return node.value, ""
        case ast.Constant():
            return {"TRUE": True, "FALSE": False}.get(node.word), ""
        case ast.Word():
            return {"true": True, "on": True, "false": False, "off": False}.get(node.text.lower(), node.text), ""
        case ast.SettingList():
            return [bind_value(item, params)[0] for item in node.items], ""
        case ast.Param():
            value = parameter(node, params)
            if isinstance(value, str) and (m := _QUANTITY.fullmatch(value)):
                return float(m[1]), m[2]
            return value, ""


def parameter(node: ast.Param, params: Mapping[str, object]) -> object:
    """The value bound to `$name`. Raises BindError that lists the parameters given."""
    if node.name not in params:
        raise BindError(f"no value for parameter ${node.name}", span=node.span, hint=name_hint(node.name, params))
    return params[node.name]


def _objective(item: ast.Objective) -> tuple[str, str]:
    pair = (item.direction.lower(), item.name.text.lower())
    if pair not in OBJECTIVES:
        known = ", ".join(f"{d.upper()} {n}" for d, n in sorted(OBJECTIVES))
        raise ParseError(
            f"no objective {item.direction.upper()} {item.name.text}", span=item.span, hint=f"there is {known}"
        )
    return pair


def _with_setting(contract: Contract, item: ast.Setting, params: Mapping[str, object]) -> Contract:
    name = item.name.text.lower()
    if name in BOUND_KINDS:
        raise ParseError(f"{name} takes a bound, not =", span=item.span, hint=f"write {BOUND_KINDS[name].example}")
    _check_known(item.name)
    if name in contract.pinned:
        raise ParseError(f"{name} is given twice", span=item.name.span)
    value, unit = bind_value(item.value, params)
    checked = setting_value(name, value, unit, span=item.value.span)
    places = {**contract.places, name: item.span} if item.span is not None else contract.places
    return replace(contract, pinned={**contract.pinned, name: checked}, places=places)


def _with_bound(contract: Contract, item: ast.Bound, params: Mapping[str, object]) -> Contract:
    name = item.name.text.lower()
    if name in SETTING_KINDS:
        raise ParseError(f"{name} is a setting, not a bound", span=item.span, hint=f"write {name} = …")
    _check_known(item.name)
    kind = BOUND_KINDS[name]
    _check_direction(kind, item)
    qualifier = _qualifier(kind, item)
    if any((b.name, b.qualifier) == (name, qualifier) for b in contract.bounds):
        raise ParseError(f"{name} is bounded twice", span=item.span)
    value, unit = bind_value(item.value, params)
    factor = _unit_factor(kind, item, unit)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParseError(f"{name} needs a number", span=item.value.span, hint=f"write {kind.example}")
    if value < 0 or (name == "quality" and not 0 < value * factor <= 1):
        what = "is a share between 0 and 1" if name == "quality" else "cannot be negative"
        raise ParseError(f"{name} {what}", span=item.value.span, hint=f"write {kind.example}")
    reference = item.of.name if item.of else ""
    bound = Bound(name, value * factor, unit, item.op, qualifier, reference, _confidence(item), item.span)
    return replace(contract, bounds=(*contract.bounds, bound))


def _check_known(word: ast.Word) -> None:
    if word.text.lower() not in BOUND_KINDS and word.text.lower() not in SETTING_KINDS:
        hint = name_hint(word.text, [*BOUND_KINDS, *SETTING_KINDS])
        raise ParseError(f"unknown bound or setting {word.text}", span=word.span, hint=hint)


def _check_direction(kind: BoundKind, item: ast.Bound) -> None:
    if item.op not in (("<", "<=") if kind.upper else (">", ">=")):
        side = "an upper" if kind.upper else "a lower"
        raise ParseError(f"{kind.name} takes {side} bound, not {item.op}", span=item.span, hint=f"write {kind.example}")


def _qualifier(kind: BoundKind, item: ast.Bound) -> str:
    if item.of is not None and kind.name != "quality":
        raise ParseError(f"{kind.name} takes no OF", span=item.of.span, hint=f"write {kind.example}")
    if item.qualifier is None:
        return "p95" if "p95" in kind.qualifiers else ""
    word = item.qualifier.text.lower()
    if word not in kind.qualifiers:
        forms = " or ".join(f"{kind.name} {q}" for q in kind.qualifiers)
        hint = f"write {forms}" if forms else f"write {kind.example}"
        raise ParseError(f"{kind.name} takes no {item.qualifier.text}", span=item.qualifier.span, hint=hint)
    return word


def _unit_factor(kind: BoundKind, item: ast.Bound, unit: str) -> float:
    by_lower = {known.lower(): factor for known, factor in kind.units.items()}
    if unit.lower() in by_lower:
        return by_lower[unit.lower()]
    units = ", ".join(u for u in kind.units if u)
    what = f"{unit} is no unit of {kind.name}" if unit else f"{kind.name} needs a unit"
    raise ParseError(what, span=item.value.span, hint=f"its units are {units}: {kind.example}")


def _confidence(item: ast.Bound) -> float:
    if item.confidence is None:
        return 0.95
    value, unit = bind_value(item.confidence, {})
    share = float(value) * (0.01 if unit == "%" else 1.0) if isinstance(value, int | float) else 0.0
    if not 0.5 <= share < 1:
        raise ParseError("CONFIDENCE is between 0.5 and 1", span=item.confidence.span, hint="write CONFIDENCE 0.95")
    return share
