"""How each operator puts its question: the words around the user's text.

The wording was chosen by measurement on small models (docs/decisions/prompt-frames.md). A chat model is asked in one
user turn; a base model gets a text whose natural continuation is the answer.
"""

from dataclasses import dataclass

from dql.prompts.spec import Part, PromptSpec


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, or the whole text for a base model."""

    role: str
    content: tuple[Part, ...]


def chat_frame(spec: PromptSpec) -> list[Turn]:
    """The conversation up to the model's answer."""
    system = [Turn("system", (spec.system,))] if spec.system else []
    if spec.task == "generate":
        instruction = (f"{spec.instruction}\n\n",) if spec.instruction else ()
        return [*system, *_turns(spec.examples), Turn("user", (*instruction, *spec.template))]
    head, tail = _question(spec)
    shots = _turns(tuple((f"{head}{_subject(spec)}{text}{tail}", answer) for text, answer in spec.examples))
    return [*system, *shots, Turn("user", (head, _subject(spec), *spec.template, tail))]


def plain_frame(spec: PromptSpec) -> tuple[Part, ...]:
    """One text for a base model, ending where its answer begins."""
    system = (f"{spec.system}\n\n",) if spec.system else ()
    if spec.task == "generate":
        instruction = (f"{spec.instruction}\n\n",) if spec.instruction else ()
        shots = tuple(f"{text}\n{answer}\n\n" for text, answer in spec.examples)
        return (*system, *instruction, *shots, *spec.template, "\n" if spec.bare else "")
    task, subject, answer_name = _task_line(spec), _subject(spec), _ANSWER_NAMES[spec.task]
    shots = tuple(f"{subject}{text}\n{answer_name}: {answer}\n\n" for text, answer in spec.examples)
    return (*system, f"{task}\n\n", *shots, subject, *spec.template, f"\n{answer_name}:")


_ANSWER_NAMES = {"classify": "Label", "filter": "Answer", "score": "Score"}


def _turns(examples: tuple[tuple[str, str], ...]) -> list[Turn]:
    return [turn for text, answer in examples for turn in (Turn("user", (text,)), Turn("assistant", (answer,)))]


def _subject(spec: PromptSpec) -> str:
    if spec.task == "filter":
        return "Statement: "
    return "Question: " if spec.task == "score" and not spec.bare else "Text: "


def _task_line(spec: PromptSpec) -> str:
    """One paragraph that says what to do, instruction and labels included."""
    lines = [spec.instruction] if spec.instruction else []
    if spec.task == "classify":
        lines.append(f"Classify the text as one of: {', '.join(spec.labels)}.")
        named = zip(spec.labels, spec.descriptions, strict=False)
        lines += [f"{label}: {description}" for label, description in named if description]
    elif spec.task == "filter":
        lines.append("Is the statement true? Answer Yes or No.")
    else:
        lines.append(f"Answer with one whole number from {spec.low} to {spec.high}.")
    return "\n".join(lines)


def _question(spec: PromptSpec) -> tuple[str, str]:
    """What stands before and after the user's text in a chat turn."""
    return f"{_task_line(spec)}\n\n", f"\n{_ANSWER_NAMES[spec.task]}:"
