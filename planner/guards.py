"""Taking inference calls out of expressions: each becomes a column, computed only for the rows that need it.

A call under CASE, COALESCE, AND or OR carries guards: what must be TRUE of a row for SQL to look at the call there.
"""

from dataclasses import dataclass, field, replace

from dql.grammar import ast
from dql.grammar.walk import children, walk, with_children
from dql.planner.environment import Environment
from dql.planner.logical import InferCall, LogicalPlan, Prompt, infer

Guards = tuple[ast.Expr, ...]


@dataclass(frozen=True, slots=True)
class Inference(ast.Expr):
    """An inference call inside an expression: its prompt is part of the tree, the rest is `call`."""

    prompt: Prompt
    call: InferCall


def has_inference(node: ast.Node) -> bool:
    """Whether an `Inference` stands anywhere in the tree."""
    return any(isinstance(n, Inference) for n in walk(node))


@dataclass(slots=True)
class Extractor:
    """Collects the calls of one or more expressions over the same rows."""

    env: Environment
    calls: list[InferCall] = field(default_factory=list)
    done: list[InferCall] = field(default_factory=list)

    def extract(self, expr: ast.Expr, guards: Guards = ()) -> ast.Expr:
        """`expr` with each call replaced by the column that will hold its answer."""
        if not has_inference(expr):
            return expr
        match expr:
            case Inference():
                return self._call(expr, guards)
            case ast.And():
                return ast.And(self._chain(expr.terms, guards, "FALSE"), span=expr.span)
            case ast.Or():
                return ast.Or(self._chain(expr.terms, guards, "TRUE"), span=expr.span)
            case ast.Case():
                return self._case(expr, guards)
            case ast.Call() if expr.name[-1].lower() in ("coalesce", "ifnull"):
                return self._coalesce(expr, guards)
            case ast.Call() if expr.name[-1].lower() == "if" and len(expr.args) == 3:
                return self._if(expr, guards)
        below = self._below(expr, guards)
        assert isinstance(below, ast.Expr)
        return below

    def stages(self, child: LogicalPlan) -> LogicalPlan:
        """`child` with the collected calls on top, those that read others' answers above them."""
        waiting, self.calls = self.calls, []
        self.done += waiting
        while waiting:
            pending = {call.out.name for call in waiting}
            ready = [call for call in waiting if not call.reads() & pending]
            child = infer(child, tuple(ready))
            waiting = [call for call in waiting if call.reads() & pending]
        return child

    def _call(self, node: Inference, guards: Guards) -> ast.Expr:
        prompt = self._below(node.prompt, guards)
        assert isinstance(prompt, Prompt)
        call = replace(node.call, prompt=prompt, guards=guards)
        for known in (*self.done, *self.calls):
            # An alias repeats a call of the text: even a sampled answer must be the same one. Other equal calls are
            # left to the rules.
            if (
                known.question == call.question
                and known.span == call.span
                and (not known.guards or known.guards == guards)
            ):
                return replace(known.out.ref, span=node.span)
        self.calls.append(replace(call, out=self.env.new_column(call.text, node.call.out.type)))
        return replace(self.calls[-1].out.ref, span=node.span)

    def _below(self, node: ast.Node, guards: Guards) -> ast.Node:
        new = [self._child(child, guards) for child in children(node)]
        return with_children(node, new)

    def _child(self, node: ast.Node, guards: Guards) -> ast.Node:
        return self.extract(node, guards) if isinstance(node, ast.Expr) else self._below(node, guards)

    def _chain(self, terms: tuple[ast.Expr, ...], guards: Guards, decided: str) -> tuple[ast.Expr, ...]:
        """AND and OR: plain terms are looked at first, then calls in turn while nothing has decided the outcome."""
        seen = [_is(term, decided, negated=True) for term in terms if not has_inference(term)]
        done: list[ast.Expr] = []
        for term in terms:
            if has_inference(term):
                term = self.extract(term, (*guards, *seen))
                seen.append(_is(term, decided, negated=True))
            done.append(term)
        return tuple(done)

    def _case(self, node: ast.Case, guards: Guards) -> ast.Case:
        operand = self.extract(node.operand, guards) if node.operand is not None else None
        whens: list[ast.When] = []
        reach = guards
        for when in node.whens:
            condition = self.extract(when.condition, reach)
            test = condition if operand is None else ast.Comparison(_wrap(operand), "=", _wrap(condition))
            result = self.extract(when.result, (*reach, _is(test, "TRUE")))
            whens.append(replace(when, condition=condition, result=result))
            reach = (*reach, _is(test, "TRUE", negated=True))
        otherwise = self.extract(node.otherwise, reach) if node.otherwise is not None else None
        return replace(node, operand=operand, whens=tuple(whens), otherwise=otherwise)

    def _coalesce(self, node: ast.Call, guards: Guards) -> ast.Call:
        args: list[ast.Argument] = []
        for arg in node.args:
            new = self.extract(arg, guards) if isinstance(arg, ast.Expr) else arg
            if isinstance(new, ast.Expr):
                guards = (*guards, _is(new, "NULL"))
            args.append(new)
        return replace(node, args=tuple(args))

    def _if(self, node: ast.Call, guards: Guards) -> ast.Call:
        condition, yes, no = (arg for arg in node.args if isinstance(arg, ast.Expr))
        condition = self.extract(condition, guards)
        return replace(
            node,
            args=(
                condition,
                self.extract(yes, (*guards, _is(condition, "TRUE"))),
                self.extract(no, (*guards, _is(condition, "TRUE", negated=True))),
            ),
        )


def _is(expr: ast.Expr, what: str, negated: bool = False) -> ast.Expr:
    return ast.Is(_wrap(expr), what, negated)


def _wrap(expr: ast.Expr) -> ast.Expr:
    return expr if isinstance(expr, ast.Column | ast.Paren | ast.Constant) else ast.Paren(expr)
