"""Before and after of each rule: `<rule>.txt` holds queries, each with its plan as bound and as that rule leaves it."""

from pathlib import Path

import pytest

from dql.planner.contract import Contract
from dql.planner.explain import Explanation, explain
from dql.planner.logical import LogicalPlan
from dql.planner.optimizer import RULES, Rule
from tests.conftest import Golden
from tests.fake_session import FakeSession
from tests.planner.running import planned

FOLDER = Path(__file__).parent
ORDERS = """
CREATE TABLE orders AS SELECT i AS id, 'a remark of its own ' || i AS remark, 'city ' || i % 20 AS city,
    'country ' || (i % 20) // 5 AS country FROM range(200) r(i)
"""


def completed(text: str, rule: Rule, session: FakeSession) -> str:
    """The file's text with the plans filled in."""
    records = [record.split("\n----")[0] for record in text.strip().split("\n\n")]
    return "\n\n".join("\n----\n".join([head, *plans(head, rule, session)]) for head in records) + "\n"


def plans(head: str, rule: Rule, session: FakeSession) -> list[str]:
    sql = "\n".join(line for line in head.splitlines() if not line.startswith("#"))
    if not sql:
        return []
    before = planned(session, sql, ()).logical
    after = rule(before)
    return [shown(before), shown(after) if after != before else "unchanged"]


def shown(plan: LogicalPlan) -> str:
    lines = explain(Explanation(plan, (), Contract())).splitlines()
    return "\n".join(line.split("  model ")[0].rstrip() for line in lines if "no lossy choice" not in line)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_does_what_its_file_says(rule: Rule, session: FakeSession, golden: Golden) -> None:
    for statement in (FOLDER.parent.parent / "queries" / "tables.sql").read_text().split(";"):
        session.catalog.execute(statement)
    session.catalog.execute(ORDERS)
    path = FOLDER / f"{rule.__name__}.txt"
    golden.check(path, completed(path.read_text(), rule, session))
