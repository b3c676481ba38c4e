"""Text to token ids and back, with data kept apart from control.

A template's constants may name control tokens; a row's text never becomes one, whatever it spells, because the
tokenizer that encodes it does not hold them.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from dql.errors import ConfigError
from dql.models.vocabulary import ControlToken, Vocabulary

Ids = NDArray[np.int32]
Offsets = NDArray[np.int64]


class Tokenizer:
    """Both directions for one vocabulary. Methods are safe to call from several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.bos_id = vocabulary.bos_id
        self.eos_ids = vocabulary.end_ids
        self.control_ids = frozenset(token.id for token in vocabulary.control)
        self._is_control = np.zeros(len(vocabulary.pieces), dtype=bool)
        self._is_control[list(self.control_ids)] = True
        self._control = {token.text: token for token in vocabulary.control if token.text}

    @property
    def vocab_size(self) -> int:
        """Number of token ids, control tokens and gaps included."""
        return len(self.vocabulary.pieces)

    @cached_property
    def joins_line_ends(self) -> bool:
        """Whether a mark and the line end after it are cut as one word, as Llama 3 and Qwen do."""
        cut = self.vocabulary.data.pre_tokenizer
        words = cut.pre_tokenize_str(".\nA") if cut is not None else []
        return any(start == 0 and end >= 2 for _, (start, end) in words)

    def encode_data(self, texts: Sequence[str]) -> tuple[Ids, Offsets]:
        """Ids of all texts end to end (int32) and where each starts and ends (int64[len(texts) + 1]).

        No text yields a control token. Raises ConfigError for text that is not Unicode; see `is_unicode`.
        """
        try:
            encodings = self.vocabulary.data.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            raise ConfigError("text with lone surrogates has no tokens") from error
        rows = [encoding.ids for encoding in encodings]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)), out=offsets[1:])
        ids = np.fromiter(chain.from_iterable(rows), np.int32, int(offsets[-1]))
        if self._is_control[ids].any():
            raise ConfigError("the tokenizer turned text into control tokens; its vocabulary cannot be used safely")
        return ids, offsets

    def split_control(self, text: str) -> list[str | int]:
        """A template's constant text as plain stretches and control token ids, in order."""
        parts: list[str | int] = []
        at = 0
        for match in self._control_pattern.finditer(text):
            token = self._control.get(match[0]) or self._control[match[0].strip()]
            parts += [text[at : match.start()], token.id]
            at = match.end()
        parts.append(text[at:])
        return [part for part in parts if part != ""]

    def encode_control(self, text: str) -> Ids:
        """Ids of a template's constant text, control tokens included. Never to be called with data."""
        parts = self.split_control(text)
        plain, offsets = self.encode_data([part for part in parts if isinstance(part, str)])
        stretches = iter(np.split(plain, offsets[1:-1]))
        ids = [next(stretches) if isinstance(part, str) else np.array([part], np.int32) for part in parts]
        return np.concatenate(ids) if ids else np.empty(0, np.int32)

    def decode_batch(self, rows: Iterable[Sequence[int] | Ids]) -> list[str]:
        """The text of each row of ids; control tokens show nothing, bytes that are not UTF-8 show as U+FFFD."""
        pieces = self.token_bytes
        return [
            b"".join(map(pieces.__getitem__, self._shown(np.asarray(row, dtype=np.int64)))).decode("utf-8", "replace")
            for row in rows
        ]

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return _alternation(self._control.values())

    @cached_property
    def token_bytes(self) -> list[bytes]:
        """What each token adds to the text, by id; control tokens under their written form."""
        pieces = self.vocabulary.pieces
        if self.vocabulary.style == "byte_level":
            to_byte = {ord(char): byte for byte, char in enumerate(byte_alphabet())}
            table = [_byte_level_bytes(piece, to_byte) for piece in pieces]
        elif self.vocabulary.style == "sentencepiece":
            table = [_sentencepiece_bytes(piece) for piece in pieces]
        else:
            table = [(piece[2:] if piece.startswith("##") else " " + piece).encode() for piece in pieces]
        for token in self.vocabulary.control:
            table[token.id] = token.text.encode()
        return table

    def _shown(self, ids: NDArray[np.int64]) -> list[int]:
        known = ids[(ids >= 0) & (ids < len(self._is_hidden))]
        shown: list[int] = known[~self._is_hidden[known]].tolist()
        return shown

    @cached_property
    def _is_hidden(self) -> NDArray[np.bool_]:
        hidden = np.zeros(self.vocab_size, dtype=bool)
        hidden[[token.id for token in self.vocabulary.control if not token.shown]] = True
        return hidden


def is_unicode(text: str) -> bool:
    """Whether the text can be tokenised: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def byte_alphabet() -> list[str]:
    """The printable characters that stand for bytes 0 to 255 in byte-level BPE vocabularies (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    stand_ins = iter(range(256, 512))
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(256)]


def _alternation(tokens: Iterable[ControlToken]) -> re.Pattern[str]:
    """Longest control token first; white space that a token swallows belongs to its match."""
    longest_first = sorted(tokens, key=lambda token: len(token.text), reverse=True)
    spellings = "|".join(
        (r"\s*" if token.strip_left else "") + re.escape(token.text) + (r"\s*" if token.strip_right else "")
        for token in longest_first
    )
    return re.compile(spellings or r"(?!)")


def _byte_level_bytes(piece: str, to_byte: dict[int, int]) -> bytes:
    values = [to_byte.get(ord(char)) for char in piece]
    return piece.encode() if None in values else bytes(value for value in values if value is not None)


def _sentencepiece_bytes(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("▁", " ").encode()
