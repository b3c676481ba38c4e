"""USING → the models that the calls of a query run on."""

from dql.errors import BindError, DqlError, UnsupportedError
from dql.grammar import ast
from dql.planner.environment import Environment


def using(clause: ast.Using, env: Environment) -> Environment:
    """`env` with the models of a USING clause. Raises BindError for models that there are not."""
    model = clause.model
    match model:
        case ast.SingleModel():
            return env.with_models(_name(model, env), draft=_draft(model, env))
        case ast.AnyModel():
            first, *others = _names(model.models, env, "ANY")
            return env.with_models(first, alternatives=tuple(others))
        case ast.CascadeModel():
            *before, last = _names(model.models, env, "CASCADE")
            if not before:
                hint = f"name a smaller model before it, USING CASCADE (small, {last}), or write USING {last}"
                raise BindError("a cascade takes two models or more", span=model.span, hint=hint)
            return env.with_models(last, cascade=tuple(before))
    hint = "name one model: USING smollm2"
    raise UnsupportedError("USING (column) does not run yet", span=model.span, hint=hint)


def _names(models: tuple[ast.SingleModel, ...], env: Environment, word: str) -> list[str]:
    for model in models:
        if model.draft is not None:
            raise BindError(f"DRAFT goes with one model, not with {word}", span=model.draft.span)
    names = [_name(model, env) for model in models]
    for number, name in enumerate(names):
        if name.lower() in (each.lower() for each in names[:number]):
            raise BindError(f"USING {word} names {name} twice", span=models[number].span)
    return names


def _name(model: ast.SingleModel, env: Environment) -> str:
    if model.adapter is not None:
        hint = "name the model alone: USING smollm2"
        raise UnsupportedError("ADAPTER does not run yet", span=model.span, hint=hint)
    return env.check_model(model.model)


def _draft(model: ast.SingleModel, env: Environment) -> str | None:
    """The model that guesses ahead for another."""
    if model.draft is None:
        return None
    name = env.check_model(model.draft)
    drafted = env.check_model(model.model)
    if name == drafted:
        hint = "name a smaller model with the same vocabulary, or leave DRAFT out"
        raise BindError(f"{name} cannot guess ahead for itself", span=model.draft.span, hint=hint)
    try:
        env.check_draft(drafted, name)
    except DqlError as error:
        error.span = error.span or model.draft.span
        raise
    return name
