"""A vocabulary split in two: what text may become, and control tokens, which text never becomes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import tokenizers

Style = Literal["byte_level", "sentencepiece", "wordpiece"]

# HTML tags that Gemma's vocabulary holds as pieces of their own: they are text, not turn markers.
_HTML = (
    "a|b|bbox|blockquote|body|br|caption|code|div|em|footer|h[1-6]|html|i|iframe|img|li|ol|p|s|span|strong|sub|sup"
    "|table|tbody|td|tfoot|th|thead|tr|u|ul"
)
_TEXT_PIECE = re.compile(rf"[\s▁]+|</?(?:{_HTML})>")
_MEDIA_PIECE = re.compile(r"<(?:start|end)_of_(?:image|audio)>|<(?:image|audio)_soft_token>")


@dataclass(frozen=True, slots=True)
class ControlToken:
    """One token that only a template may place. Shown tokens (such as <think>) appear in decoded text."""

    id: int
    text: str
    shown: bool = False
    strip_left: bool = False
    strip_right: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Everything a Tokenizer is made of.

    data: encodes text and holds no control token, neither added nor in its base vocabulary.
    pieces: every token's written form by id; "" where the vocabulary has a gap.
    end_ids: tokens that end a generation. prefix, suffix: ids around every input of an encoder ([CLS] … [SEP]).
    """

    data: tokenizers.Tokenizer
    pieces: list[str]
    style: Style
    control: tuple[ControlToken, ...]
    end_ids: frozenset[int]
    bos_id: int | None = None
    add_bos: bool = False
    space_prefix: bool = False  # the first word of a prompt is written with a space before it
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    chat_template: str | None = None
    token_texts: Mapping[str, str] = field(default_factory=dict)  # bos_token, eos_token …, as templates name them


# Names under which checkpoints keep the token that ends a turn or a text, whatever their eos_token_id says.
_END_NAMES = frozenset(
    {
        "<|im_end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "<EOT>",
        "<eos>",
        "</s>",
    }
)


def end_ids(control: tuple[ControlToken, ...], *declared: int | None) -> frozenset[int]:
    """Ids that end a generation: those the file declares and the control tokens known by name to do so."""
    named = {token.id for token in control if token.text in _END_NAMES}
    return frozenset(named | {id for id in declared if id is not None})


def is_text_piece(piece: str) -> bool:
    """Whether a user-defined piece is plain text (white space, HTML tags) rather than a marker."""
    return _TEXT_PIECE.fullmatch(piece) is not None


def is_media_piece(piece: str) -> bool:
    """Whether a piece stands where an image or sound goes in: tokenizer.json hides it, GGUF has no type for that."""
    return _MEDIA_PIECE.fullmatch(piece) is not None
