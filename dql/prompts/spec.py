"""What is asked of a model, before any model is known."""

from dataclasses import dataclass
from typing import Literal

from dql.errors import BindError

Task = Literal["generate", "classify", "filter", "score", "embed"]
Part = str | int  # literal text, or the number of a hole

YES, NO = "Yes", "No"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSpec:
    """One inference call: its task and the text it is about.

    template: literal text and hole numbers in order. bare: the template is one value, which the operator's own frame
    presents as the text to judge. labels: what to choose from (classify); descriptions: what each label means.
    examples: texts with their answers. low, high: the integer scale of a score, both ends included.
    """

    task: Task
    template: tuple[Part, ...]
    bare: bool = False
    labels: tuple[str, ...] = ()
    descriptions: tuple[str | None, ...] = ()
    system: str | None = None
    instruction: str | None = None
    examples: tuple[tuple[str, str], ...] = ()
    low: int = 0
    high: int = 10

    def __post_init__(self) -> None:
        if self.task == "classify" and len(set(self.labels)) != len(self.labels):
            raise BindError("a label is given twice", hint="each label may occur once")
        if self.task == "classify" and (not self.labels or "" in self.labels):
            raise BindError("classification needs labels that are not empty")
        if self.descriptions and len(self.descriptions) != len(self.labels):
            raise BindError(f"{len(self.labels)} labels have {len(self.descriptions)} descriptions")
        if self.task == "score" and not self.low < self.high <= self.low + 100:
            raise BindError(f"a scale from {self.low} to {self.high} has no 2 to 101 points")

    @property
    def answers(self) -> tuple[str, ...]:
        """The texts that a scored task chooses among, in order; empty for generation."""
        if self.task == "filter":
            return YES, NO
        if self.task == "score":
            return tuple(str(point) for point in range(self.low, self.high + 1))
        return self.labels

    @property
    def num_holes(self) -> int:
        """How many columns `encode` takes."""
        return 1 + max((part for part in self.template if isinstance(part, int)), default=-1)
