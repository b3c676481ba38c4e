"""Reads choices.txt: what was asked of the planner, what it chose, and a sentence that says why an expert agrees."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dql.errors import DqlError
from dql.grammar import ast
from dql.grammar.parser import parse
from dql.planner.bind_contract import bind_contract
from dql.planner.candidates import PricedCall
from dql.planner.contract import Contract
from dql.planner.hardware import Hardware, hardware_named
from dql.planner.infeasible import infeasible, placement_text
from dql.planner.search import Choice, search
from dql.planner.units import bytes_text, seconds_text
from dql.planner.workload import Workload
from dql.twofold import Weigh, better, in_two, ways
from tests.planner.fake_models import SHAPES, small_cpu

_CASE = re.compile(
    r"(?P<model>\S+) on (?P<hardware>\S+): (?P<rows>[\d,]+) rows, (?P<shared>\d+) shared \+ (?P<own>\d+) own"
    r"(?:, (?P<output>\d+) out)?(?P<agreement>(?:, \w+ agrees [\d.]+)*)"
    r"(?:, (?P<first>\w+) first leaves (?P<left>[\d.]+))?"
)
_AGREES = re.compile(r", (\w+) agrees ([\d.]+)")


@dataclass(frozen=True, slots=True)
class Case:
    """One block of the file: why, what is asked, the contract, and what is to come out."""

    why: str
    asked: str
    contract: str
    chosen: str

    def __str__(self) -> str:
        return f"# {self.why}\n{self.asked}\n{self.contract}\n→ {self.chosen}\n"


def read_cases(text: str) -> list[Case]:
    """The blocks of the file, parted by empty lines."""
    blocks = [block.splitlines() for block in text.strip().split("\n\n")]
    return [
        Case(lines[0].removeprefix("# "), lines[1], lines[2], "\n".join(lines[3:]).removeprefix("→ "))
        for lines in blocks
    ]


def chosen(case: Case) -> str:
    """What the planner makes of a case: the placement with its main figures, or the error."""
    found = _CASE.fullmatch(case.asked)
    assert found is not None, case.asked
    agreement = {name: float(share) for name, share in _AGREES.findall(found["agreement"])}
    hardware, contract = _hardware(found["hardware"]), _contract(case.contract)

    def weigh(calls: Sequence[PricedCall], agreement: Mapping[str, float]) -> Choice:
        return search(calls, hardware, contract, agreement, what_if=hardware.kind != "cpu")

    try:
        choice = weigh([_call(found)], agreement)
    except DqlError as error:
        return f"{type(error).__name__}: {error.message}"
    said = ""
    if found["first"] and (two := _in_two(found["first"], float(found["left"]), choice, weigh)) is not None:
        choice, said = two, f"{found['first']} first, where it is unsure "
    if not choice.best.feasible:
        return str(infeasible(choice).message)
    cost = choice.best.cost
    figures = seconds_text(cost.seconds), f"p95 {seconds_text(cost.latency[2])}", bytes_text(cost.memory)
    return f"{said}{placement_text(choice)} | {', '.join(figures)}"


def _in_two(first: str, left: float, choice: Choice, weigh: Weigh) -> Choice | None:
    """The plan that asks a lower precision first, which leaves a share of the rows to the reference; None where that
    is not worth finding out, or `choice` is better."""
    reference = weigh(choice.calls, {})
    hoped = ways(reference, {call.out for call in choice.calls}, 1.0, weigh).get(first)
    if hoped is None or not better(hoped, choice):
        return None
    found = weigh(in_two(choice.calls, {call.out for call in choice.calls}, first, left), {})
    return found if better(found, choice) else None


def _call(found: re.Match[str]) -> PricedCall:
    rows, output = int(found["rows"].replace(",", "")), int(found["output"] or 0)
    own = float(found["own"])
    work = Workload(
        rows=rows,
        distinct=rows,
        shared=int(found["shared"]),
        own=(own / 2, own, own * 1.5),
        tail=0 if output else 1,
        labels=0 if output else 3,
        outputs=(output / 2, float(output)) if output else (),
        longest_output=output,
    )
    return PricedCall("a", found["model"], SHAPES[found["model"]], work)


def _hardware(name: str) -> Hardware:
    return small_cpu() if name == "cpu" else hardware_named(name)


def _contract(text: str) -> Contract:
    (statement,) = parse(f"GENERATE 'x' {text}" if text != "no contract" else "GENERATE 'x'")
    assert isinstance(statement, ast.QueryStatement)
    return bind_contract(statement.query.contract, {}, {})
