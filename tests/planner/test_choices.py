"""Only the contract changes, and the plan changes as an expert would expect: choices.txt says why, case by case."""

from pathlib import Path

from tests.conftest import Golden
from tests.planner.choices import Case, chosen, read_cases

FILE = Path(__file__).with_name("choices.txt")


def test_choices(golden: Golden) -> None:
    cases = read_cases(FILE.read_text())
    assert len(cases) >= 20
    golden.check(FILE, "\n".join(str(Case(c.why, c.asked, c.contract, chosen(c))) for c in cases))
