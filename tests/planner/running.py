"""Running a query's text under chosen rules."""

from collections.abc import Sequence
from dataclasses import dataclass

from dql.grammar import ast
from dql.grammar.parser import parse
from dql.planner.binder import bind
from dql.planner.contract import Contract
from dql.planner.environment import Environment
from dql.planner.optimizer import Rule
from dql.planner.physical import ErrorPolicy
from dql.planner.plan import Planned, plan_query
from tests.fake_session import FakeSession

Row = tuple[object, ...]


def planned(session: FakeSession, text: str, rules: Sequence[Rule]) -> Planned:
    """The plan of a query under these rules alone."""
    (statement,) = parse(text)
    query = statement.query if isinstance(statement, ast.QueryStatement) else ast.Query(ast.Island(text))
    env = Environment(
        catalog=session.catalog,
        check_model=session.check_model,
        check_draft=session.check_draft,
        model=session.model,
    )
    return plan_query(bind(query, env), Contract(), env, tuple(rules))


@dataclass(frozen=True)
class Outcome:
    """Rows of a query, the prompts asked for them, and the rules that changed its plan."""

    rows: list[Row]
    asked: list[str]
    applied: set[str]


def run(session: FakeSession, text: str, rules: Sequence[Rule]) -> Outcome:
    """Run a query under these rules alone."""
    before = len(session.asked)
    plan = planned(session, text, rules)
    batches = session.runtime.start(plan.query, ErrorPolicy(), {}, None).batches()
    found = [tuple(column[i].as_py() for column in b.columns) for b in batches for i in range(b.num_rows)]
    return Outcome(found, session.asked[before:], {step.rule for step in plan.applied})
