"""A prompt for one model: constants already token ids, holes waiting for rows."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dql.errors import BindError, ConfigError
from dql.models.model import Model
from dql.models.tokenizer import Tokenizer, is_unicode
from dql.prompts.batch import Column, Ids, RowFailure, TokenBatch, assemble, truncate_middle
from dql.prompts.frames import chat_frame, plain_frame
from dql.prompts.spec import Part, PromptSpec


@dataclass(frozen=True, slots=True)
class _Control:
    """A control token that the model's own template places."""

    id: int


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where a hole's text goes, and what touches it: tokenised together, words and marks keep their usual tokens."""

    hole: int
    lead: str
    tail: str


@dataclass(frozen=True)
class CompiledPrompt:
    """Made by `compile_prompt`; immutable and safe to share between threads.

    frame: the whole prompt as text, holes as {0}, {1} … label_ids: for each answer of a scored task its token ids
    as the model would emit them, end mark included. stop_ids: tokens that end a generated answer.
    """

    spec: PromptSpec
    frame: str
    label_ids: tuple[tuple[int, ...], ...]
    stop_ids: frozenset[int]
    _pieces: tuple[Ids | _Slot, ...]
    _tokenizer: Tokenizer

    @cached_property
    def constant_prefix_tokens(self) -> int:
        """Tokens that every row's prompt begins with."""
        first = self._pieces[0] if self._pieces else None
        return len(first) if isinstance(first, np.ndarray) else 0

    @cached_property
    def constant_tokens(self) -> int:
        """Tokens of a prompt that do not depend on the row."""
        return sum(len(piece) for piece in self._pieces if isinstance(piece, np.ndarray))

    def encode(self, holes: Sequence[Sequence[str]]) -> TokenBatch:
        """Prompts of a batch: `holes` has one column of texts per hole, all of one length; without holes, one row.

        Rows that cannot be tokenised are listed in the batch's failures and raise nothing.
        """
        rows = len(holes[0]) if holes else 1
        if len(holes) != self.spec.num_holes or any(len(column) != rows for column in holes):
            raise BindError(f"the prompt has {self.spec.num_holes} holes; columns of one length each are needed")
        failures = {row: _NOT_UNICODE for column in holes for row in _broken_rows(column)}
        if failures:
            holes = [["" if row in failures else text for row, text in enumerate(column)] for column in holes]
        pieces = [self._column(piece, holes) if isinstance(piece, _Slot) else piece for piece in self._pieces]
        return assemble(pieces, rows, failures)

    def truncate(self, batch: TokenBatch, limit: int) -> tuple[TokenBatch, NDArray[np.bool_]]:
        """`on_overflow = 'truncate_middle'`: prompts of at most `limit` tokens where holes can give way.

        Returns the batch and which rows were cut, bool[rows]. The instruction is never cut.
        """
        return truncate_middle(batch, limit, self._reserves)

    @cached_property
    def _reserves(self) -> NDArray[np.int64]:
        """Tokens of each slot, int64[slots, 2], that are the template's: at its start and at its end."""
        slots = [piece for piece in self._pieces if isinstance(piece, _Slot)]
        _, offsets = self._tokenizer.encode_data([text for slot in slots for text in (slot.lead, slot.tail)])
        return np.diff(offsets).reshape(-1, 2)

    def _column(self, slot: _Slot, holes: Sequence[Sequence[str]]) -> Column:
        lead, tail = slot.lead, slot.tail
        return Column(*self._tokenizer.encode_data([lead + text + tail for text in holes[slot.hole]]))


@dataclass(frozen=True, slots=True)
class _Borders:
    """Which of a template's characters are tokenised with a hole, before it and after it."""

    lead: re.Pattern[str]
    tail: re.Pattern[str]


_WORDS = _Borders(re.compile(r"(?:\s+|\s*\S{1,16})\Z"), re.compile(r"\S{0,16}"))
_LINES = _Borders(  # for vocabularies that take marks and the line ends after them together
    re.compile(r"(?:[^\S\r\n]+|[^\S\r\n]*\S{1,16})\Z"), re.compile(r"\S{0,16}(?:[^\S\r\n]*[\r\n]+)?")
)
# Smaller chat models judge a running text better than they follow a chat turn (docs/decisions/prompt-frames.md).
_FOLLOWS_CHAT = 1_000_000_000  # parameters
_NOT_UNICODE = RowFailure("tokenizer", "the text is not valid Unicode (it holds a lone surrogate)")


def compile_prompt(model: Model, spec: PromptSpec) -> CompiledPrompt:
    """Compile one call for one model. Raises BindError if the model cannot do the task, ConfigError for its files."""
    if model.is_encoder != (spec.task == "embed"):
        kind = "an embedding model" if model.is_encoder else "no embedding model"
        raise BindError(f"{model.name} is {kind}; it cannot {spec.task}")
    tokenizer = model.tokenizer
    framed = _framed(model, spec)
    parts, bos = framed.parts, tokenizer.bos_id
    if tokenizer.vocabulary.add_bos and bos is not None and parts[:1] != [_Control(bos)]:
        parts = [_Control(bos), *parts]
    answers, offsets = tokenizer.encode_data([framed.lead + answer for answer in spec.answers])
    rows = np.split(answers, offsets[1:-1]) if spec.answers else []
    pieces = tuple(_pieces(parts, tokenizer))
    _check_known(model, [piece for piece in (*pieces, answers) if not isinstance(piece, _Slot)])
    return CompiledPrompt(
        spec=spec,
        frame="".join(_shown(part, tokenizer) for part in parts),
        label_ids=tuple((*ids.tolist(), *framed.end) for ids in rows),
        stop_ids=tokenizer.eos_ids,
        _pieces=pieces,
        _tokenizer=tokenizer,
    )


def _check_known(model: Model, constants: Sequence[Ids]) -> None:
    """Tokens may have been added to a tokenizer, and a template write them, that no row of the weights stands for."""
    highest = max((int(ids.max()) for ids in constants if len(ids)), default=0)
    if highest >= model.shape.vocab_size:
        raise ConfigError(
            f"each prompt holds {model.tokenizer.vocabulary.pieces[highest]!r}, token {highest}, and {model.name} has "
            f"{model.shape.vocab_size:,} tokens",
            hint="fetch its tokenizer and chat template from where the weights come from",
        )


def compile_multi_label(model: Model, spec: PromptSpec) -> tuple[CompiledPrompt, ...]:
    """`multi => true`: one yes-or-no prompt per label, in the order of the labels. Examples are not used."""
    described = spec.descriptions or (None,) * len(spec.labels)
    prompts = []
    for label, description in zip(spec.labels, described, strict=True):
        meaning = f"'{label}' ({description})" if description else f"'{label}'"
        statement = (f"The label {meaning} fits the text: ", *spec.template)
        asked = replace(spec, task="filter", template=statement, bare=False, labels=(), descriptions=(), examples=())
        prompts.append(compile_prompt(model, asked))
    return tuple(prompts)


@dataclass(frozen=True, slots=True)
class _Framed:
    """A prompt as parts, and how its answer is written: what goes before an answer, and the ids that end it."""

    parts: list[Part | _Control]
    lead: str = ""
    end: tuple[int, ...] = ()


def _framed(model: Model, spec: PromptSpec) -> _Framed:
    tokenizer, template = model.tokenizer, model.chat_template
    if spec.task == "embed":
        prefix, suffix = tokenizer.vocabulary.prefix, tokenizer.vocabulary.suffix
        return _Framed([*map(_Control, prefix), *spec.template, *map(_Control, suffix)])
    if template is None or (spec.task != "generate" and model.shape.parameters < _FOLLOWS_CHAT):
        return _Framed([*plain_frame(spec)], " ", _newline(tokenizer))
    turns, opening = chat_frame(spec)
    parts: list[Part | _Control] = []
    for part in template.parts([turn.role for turn in turns]):
        parts += turns[part].content if isinstance(part, int) else _constants(tokenizer, part)
    return _Framed([*parts, opening], " " if opening else "", (_end_of_turn(model),))


def _constants(tokenizer: Tokenizer, text: str) -> list[Part | _Control]:
    return [_Control(part) if isinstance(part, int) else part for part in tokenizer.split_control(text)]


def _pieces(parts: Sequence[Part | _Control], tokenizer: Tokenizer) -> Iterator[Ids | _Slot]:
    """Constants tokenised in stretches as long as they go: from one hole to the next, split at control tokens."""
    stretches = _merged(parts, " " if tokenizer.vocabulary.space_prefix else "")
    borders = _LINES if tokenizer.joins_line_ends else _WORDS
    pending: list[Ids] = []
    lead = ""
    for at, part in enumerate(stretches):
        if isinstance(part, _Control):
            pending.append(np.array([part.id], np.int32))
        elif isinstance(part, str):
            rest = part[len(_tail(stretches, at, borders)) :]
            is_before_hole = at + 1 < len(stretches) and isinstance(stretches[at + 1], int)
            touching = borders.lead.search(rest) if is_before_hole else None
            lead = touching[0] if touching else ""
            pending.append(tokenizer.encode_data([rest.removesuffix(lead)])[0])
        else:
            yield from _joined(pending)
            yield _Slot(part, lead, _tail(stretches, at + 1, borders))
            pending, lead = [], ""
    yield from _joined(pending)


def _merged(parts: Sequence[Part | _Control], start: str) -> list[Part | _Control]:
    """The parts with neighbouring texts joined; `start` goes before a text that comes first."""
    merged: list[Part | _Control] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, str) and isinstance(last, str):
            merged[-1] = last + part
        else:
            merged.append(start + part if isinstance(part, str) and not merged else part)
    return merged


def _tail(stretches: Sequence[Part | _Control], at: int, borders: _Borders) -> str:
    """The beginning of the text at `at` that is tokenised with the hole before it; empty where there is none."""
    text = stretches[at] if at < len(stretches) else None
    match = borders.tail.match(text) if isinstance(text, str) and at and isinstance(stretches[at - 1], int) else None
    return match[0] if match else ""


def _joined(ids: list[Ids]) -> Iterator[Ids]:
    constant = np.concatenate([np.empty(0, np.int32), *ids])
    if len(constant):
        yield constant


def _end_of_turn(model: Model) -> int:
    """The control token that the model's template writes after an assistant's message."""
    tokenizer, template = model.tokenizer, model.chat_template
    parts = template.parts(["user", "assistant"], answer=False) if template else []
    after = parts[parts.index(1) + 1 :] if 1 in parts else []
    ends = [
        id for part in after if isinstance(part, str) for id in tokenizer.split_control(part) if isinstance(id, int)
    ]
    if not ends and not tokenizer.eos_ids:
        raise ConfigError(f"{model.name} has no token that ends an answer")
    return ends[0] if ends else min(tokenizer.eos_ids)


def _newline(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What ends an answer in running text: the line."""
    return tuple(tokenizer.encode_data(["\n"])[0].tolist())


def _shown(part: Part | _Control, tokenizer: Tokenizer) -> str:
    if isinstance(part, _Control):
        return tokenizer.vocabulary.pieces[part.id]
    return part if isinstance(part, str) else f"{{{part}}}"


def _broken_rows(texts: Sequence[str]) -> list[int]:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [row for row, text in enumerate(texts) if not is_unicode(text)]
    return []
