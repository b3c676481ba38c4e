"""One small tokenizer of every kind that dql reads, each with control tokens that data might spell."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dql.models.gguf import read_gguf
from dql.models.tokenizer import Tokenizer, byte_alphabet
from dql.models.vocabulary_gguf import gguf_vocabulary
from dql.models.vocabulary_json import json_vocabulary
from tests.models.tiny import tiny_model

MARKERS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "[INST]", "<s>", "</s>", "<end_of_turn>", "[CLS]")
_WORDS = ("the", "and", "think", "im", "end", "start", "INST", "turn", "of")


def every_kind(folder: Path) -> dict[str, Tokenizer]:
    """Tokenizers by kind, built through the same doors as real models'."""
    kinds = {
        "byte-level gguf": Tokenizer(gguf_vocabulary(read_gguf(tiny_model(folder)).metadata)),
        "whole-word gguf": Tokenizer(gguf_vocabulary(whole_word_metadata())),
        "sentencepiece gguf": Tokenizer(gguf_vocabulary(sentencepiece_metadata())),
        "wordpiece gguf": Tokenizer(gguf_vocabulary(wordpiece_metadata())),
    }
    for name, source in json_tokenizers().items():
        place = folder / name
        place.mkdir()
        (place / "tokenizer.json").write_text(json.dumps(source))
        settings = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
        (place / "tokenizer_config.json").write_text(json.dumps(settings))
        kinds[f"{name} json"] = Tokenizer(json_vocabulary(place))
    return kinds


def whole_word_metadata() -> Mapping[str, Any]:
    """Llama 3's kind: a word that is a token as a whole is taken without merges, so control pieces lie in wait."""
    tokens = [*MARKERS, *byte_alphabet(), *_WORDS]
    return _metadata("gpt2", tokens, {"pre": "llama-bpe", "merges": ["t h", "th e"]})


def sentencepiece_metadata() -> Mapping[str, Any]:
    """Gemma's kind: control and user-defined pieces in the base vocabulary, bytes as pieces."""
    letters = [chr(code) for code in range(33, 127)]
    prefixes = {word[:end] for word in _WORDS for end in range(2, len(word) + 1)}
    markers = {marker[:end] for marker in MARKERS for end in range(2, len(marker))}
    normal = [*letters, "▁", *sorted(prefixes | {"▁" + p for p in prefixes} | markers)]
    user = ["\n", "\n\n", "  ", "<table>"]
    tokens = ["<unk>", *MARKERS, *(f"<0x{byte:02X}>" for byte in range(256)), *user, *normal]
    types = [2, *[3] * len(MARKERS), *[6] * 256, *[4] * len(user), *[1] * len(normal)]
    scores = np.array([-1000.0] * (len(tokens) - len(normal)) + [-float(n) for n in range(len(normal))], np.float32)
    extra = {"scores": scores, "token_type": np.array(types, np.int32), "add_space_prefix": True}
    return _metadata("llama", tokens, extra)


def wordpiece_metadata() -> Mapping[str, Any]:
    """BERT's kind, as llama.cpp writes it."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("▁" + word for word in (*_WORDS, *letters))]
    ids = {"unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3, "mask_token_id": 4}
    return _metadata("bert", tokens, {"padding_token_id": 0, **ids, "token_type": np.ones(len(tokens), np.int32)})


def json_tokenizers() -> dict[str, dict[str, Any]]:
    """tokenizer.json by kind; every marker is an added token, and in the base vocabulary where a kind allows it."""
    byte_vocab = {piece: id for id, piece in enumerate([*MARKERS, *byte_alphabet(), "th", "the"])}
    letters = ["<unk>", *MARKERS, *(chr(code) for code in range(32, 127)), "▁", "▁the", "think"]
    words = {piece: id for id, piece in enumerate(["[UNK]", *MARKERS, *_WORDS, *(f"##{word}" for word in _WORDS)])}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}
    bpe = {"type": "BPE", "vocab": byte_vocab, "merges": [["t", "h"], ["th", "e"]], "unk_token": None}
    unigram = {"type": "Unigram", "vocab": [[p, -float(n)] for n, p in enumerate(letters)], "unk_id": 0}
    wordpiece = {
        "type": "WordPiece",
        "vocab": words,
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
    bert = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": False}
    frame = {"type": "BertProcessing", "sep": ["</s>", words["</s>"]], "cls": ["[CLS]", words["[CLS]"]]}
    return {
        "byte-level": _tokenizer(bpe, byte_vocab, pre_tokenizer=byte_level, decoder=byte_level),
        "unigram": _tokenizer(unigram, {p: n for n, p in enumerate(letters)}, pre_tokenizer=metaspace),
        "wordpiece": _tokenizer(
            wordpiece,
            words,
            normalizer={"type": "BertNormalizer", **bert},
            pre_tokenizer={"type": "BertPreTokenizer"},
            post_processor=frame,
        ),
    }


def _tokenizer(model: dict[str, Any], ids: Mapping[str, int], **parts: object) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{"id": ids[marker], "content": marker, "special": "think" not in marker, **flags} for marker in MARKERS]
    none = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    return {"version": "1.0", **none, "added_tokens": added, "model": model, **parts}


def _metadata(model: str, tokens: list[str], extra: Mapping[str, Any]) -> Mapping[str, Any]:
    types = np.array([3 if token in MARKERS else 1 for token in tokens], np.int32)
    keys = {"model": model, "tokens": tokens, "token_type": types, **extra}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
