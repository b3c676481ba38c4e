"""The conversation format of a model, as constant text around the places where messages go."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dql.errors import ConfigError
from dql.models.template_sandbox import TemplateEnvironment

# Private-use characters: no honest template contains them, and no message is ever rendered, only its number.
_SLOT = re.compile("\ue0d1([0-9]+)\ue0d2")


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja chat template of a model file. `tokens` are the special tokens it may name (bos_token, eos_token …)."""

    source: str
    tokens: tuple[tuple[str, str], ...] = ()

    def parts(self, roles: Sequence[str], *, answer: bool = True) -> list[str | int]:
        """Constant text and message numbers in order, for a conversation of these roles.

        With `answer` the text ends where the model's answer begins. Raises ConfigError if the template fails, drops a
        message or changes its text.
        """
        messages: list[Mapping[str, str]] = [
            {"role": role, "content": f"\ue0d1{number}\ue0d2"} for number, role in enumerate(roles)
        ]
        variables = {"messages": messages, "add_generation_prompt": answer, "enable_thinking": False}
        pieces = _SLOT.split(TemplateEnvironment().render(self.source, dict(self.tokens) | variables))
        parts: list[str | int] = [int(piece) if at % 2 else piece for at, piece in enumerate(pieces)]
        missing = set(range(len(roles))) - {part for part in parts if isinstance(part, int)}
        if missing or "\ue0d1" in "".join(pieces[::2]):
            which = f"the {roles[min(missing)]} message" if missing else "messages"
            raise ConfigError(f"the model's chat template leaves out or rewrites {which}")
        return [part for part in parts if part != ""]
