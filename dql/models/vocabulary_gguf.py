"""The vocabulary inside a GGUF file."""

import re
from collections.abc import Iterable, Mapping
from itertools import compress
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from dql.errors import ConfigError, UnsupportedError
from dql.models.pretokenizers import word_cut
from dql.models.vocabulary import ControlToken, Vocabulary, end_ids, is_media_piece, is_text_piece

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
_KEY = "tokenizer.ggml."


def gguf_vocabulary(metadata: Mapping[str, Any]) -> Vocabulary:
    """Vocabulary of a GGUF header's metadata. Raises ConfigError or UnsupportedError."""
    builders = {"gpt2": _byte_level, "llama": _sentencepiece, "bert": _wordpiece}
    kind = metadata.get(_KEY + "model")
    if kind not in builders:
        raise UnsupportedError(
            f"the GGUF file's tokenizer is of kind {kind!r}", hint=f"supported: {', '.join(builders)}"
        )
    return builders[kind](_Pieces(metadata))


class _Pieces:
    """Tokens with their types; the lookups that all kinds share."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.texts: list[str] = self.get("tokens", list)
        types = metadata.get(_KEY + "token_type")
        self.types = np.full(len(self.texts), _NORMAL) if types is None else np.asarray(types)
        if self.types.shape != (len(self.texts),):
            raise ConfigError(f"the GGUF file has {len(self.texts)} tokens and {self.types.size} token types")
        text_pieces = [is_text_piece(self.texts[id]) for id in np.flatnonzero(self.types == _USER_DEFINED)]
        self.user_text = np.flatnonzero(self.types == _USER_DEFINED)[np.asarray(text_pieces, dtype=bool)]
        self.is_data = np.isin(self.types, (_NORMAL, _BYTE))
        self.is_data[self.user_text] = True

    def get(self, key: str, kind: type[Any], default: object = None) -> Any:
        value = self.metadata.get(_KEY + key, default)
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"the GGUF key {_KEY}{key} is not a {kind.__name__}")
        if value is None and kind is list:
            raise ConfigError(f"the GGUF file lacks the key {_KEY}{key}")
        return value

    def id(self, key: str) -> int | None:
        value: int | None = self.get(key, int)
        if value is not None and not 0 <= value < len(self.texts):
            raise ConfigError(f"the GGUF key {_KEY}{key} is {value}; the vocabulary has {len(self.texts)} tokens")
        return value

    def data_vocabulary(self) -> dict[str, int]:
        return dict(compress(zip(self.texts, range(len(self.texts)), strict=True), self.is_data.tolist()))

    def control(self, *, unknown_is_data: bool = False) -> tuple[ControlToken, ...]:
        return tuple(
            ControlToken(id, text := self.texts[id], self.types[id] == _USER_DEFINED and not is_media_piece(text))
            for id in np.flatnonzero(~self.is_data).tolist()
            if not (unknown_is_data and self.types[id] == _UNKNOWN)
        )

    def shared_fields(self, control: tuple[ControlToken, ...]) -> dict[str, Any]:
        bos, eos = self.id("bos_token_id"), self.id("eos_token_id")
        named = {"bos_token": bos, "eos_token": eos, "pad_token": self.id("padding_token_id")}
        return {
            "pieces": self.texts,
            "control": control,
            "end_ids": end_ids(control, eos, self.id("eot_token_id"), self.id("eom_token_id")),
            "bos_id": bos,
            "chat_template": self.get("chat_template", str, self.metadata.get("tokenizer.chat_template")),
            "token_texts": {name: self.texts[id] for name, id in named.items() if id is not None},
        }


def _byte_level(pieces: _Pieces) -> Vocabulary:
    cut = word_cut(pieces.get("pre", str, "gpt-2"))
    vocab = pieces.data_vocabulary()
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in pieces.get("merges", list))]
    data = tokenizers.Tokenizer(_bpe(vocab, merges, ignore_merges=cut.whole_words))
    if cut.normalizer is not None:
        data.normalizer = cut.normalizer
    data.pre_tokenizer = cut.pre_tokenizer
    fields = pieces.shared_fields(pieces.control())
    return Vocabulary(data=data, style="byte_level", add_bos=pieces.get("add_bos_token", bool, False), **fields)


def _bpe(vocab: dict[str, int], merges: list[tuple[str, str]], **options: Any) -> models.BPE:
    """BPE without the merges that use or make a piece which is not data."""
    kept = [(left, right) for left, right in merges if left in vocab and right in vocab and left + right in vocab]
    return models.BPE(vocab, kept, **options)


def _sentencepiece(pieces: _Pieces) -> Vocabulary:
    """SentencePiece BPE: the best-scored piece merges first, bytes stand in for characters without a piece."""
    scores = pieces.metadata.get(_KEY + "scores")
    if scores is None or len(scores) != len(pieces.texts):
        raise ConfigError("the GGUF file lacks a score for each token")
    vocab = pieces.data_vocabulary()
    if sum(1 for piece in compress(pieces.texts, (pieces.types == _BYTE).tolist()) if piece in vocab) != 256:
        raise UnsupportedError("the GGUF file's SentencePiece vocabulary has no byte pieces")
    user_text = {pieces.texts[id].replace(" ", "▁"): id for id in pieces.user_text.tolist()}
    vocab |= user_text
    normal = np.flatnonzero(pieces.types == _NORMAL)
    by_score = normal[np.argsort(-np.asarray(scores)[normal], kind="stable")]
    merges = list(_merges((pieces.texts[id] for id in by_score.tolist()), vocab))
    data = tokenizers.Tokenizer(models.BPE(vocab, merges, byte_fallback=True, ignore_merges=True))
    data.normalizer = normalizers.Replace(" ", "▁")
    data.pre_tokenizer = _user_text_cut(user_text)
    return Vocabulary(
        data=data,
        style="sentencepiece",
        add_bos=pieces.get("add_bos_token", bool, True),
        space_prefix=pieces.get("add_space_prefix", bool, True),
        **pieces.shared_fields(pieces.control()),
    )


def _merges(by_score: Iterable[str], vocab: Mapping[str, int]) -> Iterable[tuple[str, str]]:
    for piece in by_score:
        for cut in range(1, len(piece)):
            right = piece[cut:]  # first, as fewer ends than beginnings of pieces are pieces
            if right in vocab and (left := piece[:cut]) in vocab:
                yield left, right


def _user_text_cut(user_text: Iterable[str]) -> pre_tokenizers.PreTokenizer:
    """Whole pieces first, longest first, as SentencePiece takes user-defined symbols; spelled-out bytes stay text."""
    literals = "|".join(re.escape(piece) for piece in sorted(user_text, key=len, reverse=True))
    cut = r"<(?=0x[0-9A-F]{2}>)" + (f"|{literals}" if literals else "")
    return pre_tokenizers.Split(Regex(cut), behavior="isolated")


def _wordpiece(pieces: _Pieces) -> Vocabulary:
    """BERT: llama.cpp writes word starts as ▁word and continuations bare; WordPiece wants word and ##continuation."""
    special = (pieces.id(f"{name}_token_id") for name in ("padding", "cls", "bos", "seperator", "mask"))
    pieces.is_data[[id for id in special if id is not None]] = False
    unknown = pieces.id("unknown_token_id")
    texts = pieces.texts
    pieces.texts = [
        text if not data else text[1:] if text.startswith("▁") else "##" + text
        for text, data in zip(texts, pieces.is_data.tolist(), strict=True)
    ]
    vocab = pieces.data_vocabulary()
    unknown_text = texts[unknown] if unknown is not None else "[UNK]"
    vocab[unknown_text] = unknown or 0
    data = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=unknown_text, max_input_chars_per_word=100))
    data.normalizer = normalizers.BertNormalizer(lowercase=True)
    data.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    data.decoder = decoders.WordPiece()
    start, end = pieces.id("cls_token_id") or pieces.id("bos_token_id"), pieces.id("seperator_token_id")
    control = tuple(token for token in pieces.control(unknown_is_data=True) if token.id != unknown)
    return Vocabulary(
        data=data,
        style="wordpiece",
        prefix=() if start is None else (start,),
        suffix=() if end is None else (end,),
        **pieces.shared_fields(control),
    )
