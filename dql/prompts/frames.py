"""How each operator puts its question: the words around the user's text.

The wording was chosen by measurement on small models (docs/decisions/prompt-frames.md). A running text ends where its
natural continuation is the answer; a conversation asks in a user turn and opens the model's answer for it.
"""

from dataclasses import dataclass

from dql.prompts.spec import Part, PromptSpec

_ANSWER_NAMES = {"classify": "Label", "filter": "Label", "score": "Rating"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    content: tuple[Part, ...]


def chat_frame(spec: PromptSpec) -> tuple[list[Turn], str]:
    """The conversation, and how the model's answer begins: "Label:" and the like, nothing when it generates."""
    system = [Turn("system", (spec.system,))] if spec.system else []
    if spec.task == "generate":
        head, subject, opening = (f"{spec.instruction}\n\n" if spec.instruction else ""), "", ""
    else:
        head, subject, opening = f"{_task(spec)}\n\n", _subject(spec), f"{_ANSWER_NAMES[spec.task]}:"
    turns = list(system)
    for text, answer in spec.examples:
        turns.append(Turn("user", (f"{head}{subject}{text}",)))
        turns.append(Turn("assistant", (f"{opening} {answer}".lstrip(),)))
    return [*turns, Turn("user", (head, subject, *spec.template))], opening


def plain_frame(spec: PromptSpec) -> tuple[Part, ...]:
    """One running text that ends where the answer begins."""
    system = f"{spec.system}\n\n" if spec.system else ""
    if spec.task == "generate":
        head, subject, opening = (f"{spec.instruction}\n\n" if spec.instruction else ""), "", "\n" if spec.bare else ""
    else:
        head, subject, opening = f"{_task(spec)}\n\n", _subject(spec), f"\n{_ANSWER_NAMES[spec.task]}:"
    joint = f"{opening} " if opening.endswith(":") else "\n"
    shots = "".join(f"{subject}{text}{joint}{answer}\n\n" for text, answer in spec.examples)
    return (f"{system}{head}{shots}{subject}", *spec.template, opening)


def _task(spec: PromptSpec) -> str:
    """What to choose from, after the user's own instruction."""
    lines = [spec.instruction] if spec.instruction else []
    if spec.task == "score":
        lines.append(f"Rate on a scale from {spec.low} to {spec.high}.")
    else:
        lines.append(f"Labels: {', '.join(spec.answers)}")
    named = zip(spec.labels, spec.descriptions, strict=False)
    lines += [f"{label}: {description}" for label, description in named if description]
    return "\n".join(lines)


def _subject(spec: PromptSpec) -> str:
    """What the text to judge is called; the template of a score is a question that needs no name."""
    return "" if spec.task == "score" and not spec.bare else "Text: "
