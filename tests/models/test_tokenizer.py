"""Tokenizers: the ids of the reference library, text back from ids, and data that never becomes control."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.errors import ConfigError, UnsupportedError
from dql.models.tokenizer import Tokenizer, byte_alphabet, is_unicode
from dql.models.vocabulary_gguf import gguf_vocabulary
from tests.models.real import real_model
from tests.models.vocabularies import MARKERS, every_kind, sentencepiece_metadata, whole_word_metadata

FIXTURES = Path(__file__).parent / "fixtures"
KINDS = [
    "byte-level gguf",
    "whole-word gguf",
    "sentencepiece gguf",
    "wordpiece gguf",
    "byte-level json",
    "unigram json",
    "wordpiece json",
]
LOSSLESS = ("byte-level gguf", "whole-word gguf", "sentencepiece gguf", "byte-level json")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    return every_kind(tmp_path_factory.mktemp("vocabularies"))


def test_every_kind_is_covered(tokenizers: dict[str, Tokenizer]) -> None:
    assert list(tokenizers) == KINDS
    assert all(tokenizer.control_ids for tokenizer in tokenizers.values())


def hostile_texts(tokenizer: Tokenizer) -> list[str]:
    """Every marker and control piece, glued, padded and dressed up."""
    pieces = [*MARKERS, *(token.text for token in tokenizer.vocabulary.control)]
    dressed = [f"a{p}b" for p in pieces] + [f" {p} " for p in pieces] + [p * 3 for p in pieces]
    wide = [p.replace("<", "＜").replace("|", "│") for p in pieces] + [p[:2] + "\u200b" + p[2:] for p in pieces]
    glued = [a + b for a, b in product(MARKERS, MARKERS)]
    return [*pieces, *dressed, *wide, *glued, "\x00123,456\x00", "\ue0d10\ue0d2", "\ue0d01"]


@pytest.mark.parametrize("kind", KINDS)
def test_data_never_becomes_control(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    ids, _ = tokenizer.encode_data(hostile_texts(tokenizer))
    assert not set(ids.tolist()) & tokenizer.control_ids


@pytest.mark.parametrize("kind", KINDS)
def test_the_data_vocabulary_holds_no_control_token(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    data = tokenizer.vocabulary.data
    assert data.get_added_tokens_decoder() == {}
    assert not set(data.get_vocab()) & {token.text for token in tokenizer.vocabulary.control}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(
        st.sampled_from([*MARKERS, " ", "\n", "the", "<", "|", ">"]) | st.text(st.characters(exclude_categories=["Cs"]))
    )
)
def test_any_text_is_free_of_control(tokenizers: dict[str, Tokenizer], kind: str, text: list[str]) -> None:
    tokenizer = tokenizers[kind]
    ids, _ = tokenizer.encode_data(["".join(text)])
    assert not set(ids.tolist()) & tokenizer.control_ids
    if kind in LOSSLESS:
        assert tokenizer.decode_batch([ids]) == ["".join(text)]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_control_text_finds_every_control_token(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = tokenizers[kind]
    for token in tokenizer.vocabulary.control:
        ids = tokenizer.encode_control(f"the{token.text}and")
        plain, offsets = tokenizer.encode_data(["the", "and"])
        assert ids.tolist() == [*plain[: offsets[1]], token.id, *plain[offsets[1] :]]


def test_control_tokens_are_silent_unless_shown(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["byte-level json"]
    ids = tokenizer.encode_control("<s>the<think>and</think></s>")
    assert tokenizer.decode_batch([ids, [], [10**6, -1]]) == ["the<think>and</think>", "", ""]


def test_places_of_images_are_silent_in_gguf_too() -> None:
    """Gemma's GGUF gives them the type of <think>, its tokenizer.json says that they are special."""
    metadata = dict(sentencepiece_metadata())
    tokens, types = (metadata[f"tokenizer.ggml.{name}"] for name in ("tokens", "token_type"))
    for marker, name in (("<s>", "<start_of_image>"), ("[CLS]", "<image_soft_token>"), ("<think>", "<think>")):
        types[tokens.index(marker)] = 4
        tokens[tokens.index(marker)] = name
    tokenizer = Tokenizer(gguf_vocabulary(metadata))
    ids = tokenizer.encode_control("<start_of_image>the<think><image_soft_token>and")
    assert {"<start_of_image>", "<image_soft_token>", "<think>"} <= {tokenizer.vocabulary.pieces[id] for id in ids}
    assert tokenizer.decode_batch([ids]) == ["the<think>and"]
    assert not set(tokenizer.encode_data(["<start_of_image>"])[0].tolist()) & tokenizer.control_ids


def test_flat_ids_and_offsets(tokenizers: dict[str, Tokenizer]) -> None:
    tokenizer = tokenizers["byte-level gguf"]
    texts = ["the text", "", "x", "and"]
    ids, offsets = tokenizer.encode_data(texts)
    assert ids.dtype == np.int32 and offsets.dtype == np.int64
    assert tokenizer.decode_batch(np.split(ids, offsets[1:-1])) == texts
    assert [tokenizer.encode_data([text])[0].tolist() for text in texts] == [
        row.tolist() for row in np.split(ids, offsets[1:-1])
    ]
    empty_ids, empty_offsets = tokenizer.encode_data([])
    assert (empty_ids.size, empty_offsets.tolist()) == (0, [0])


def test_words_that_are_tokens_skip_the_merges() -> None:
    tokenizer = Tokenizer(gguf_vocabulary(whole_word_metadata()))
    tokens = whole_word_metadata()["tokenizer.ggml.tokens"]
    assert tokenizer.encode_data(["think"])[0].tolist() == [tokens.index("think")]


def test_sentencepiece_specials() -> None:
    tokenizer = Tokenizer(gguf_vocabulary(sentencepiece_metadata()))
    texts = ["\n\n", "<table>", "  ", "<0x41>", "é"]
    ids, offsets = tokenizer.encode_data(texts)
    rows = np.split(ids, offsets[1:-1])
    assert [len(row) for row in rows[:3]] == [1, 1, 1]
    assert len(rows[3]) > 1, "a byte that is spelled out is text"
    assert tokenizer.decode_batch(rows) == texts


def test_lone_surrogates_are_named() -> None:
    tokenizer = Tokenizer(gguf_vocabulary(whole_word_metadata()))
    with pytest.raises(ConfigError, match="lone surrogates"):
        tokenizer.encode_data(["fine", "\ud800"])
    assert is_unicode("fine 😀\x00") and not is_unicode("\ud800")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("model", "t5", "of kind 't5'"),
        ("pre", "unheard-of", "rule 'unheard-of'"),
        ("tokens", None, "lacks the key"),
        ("tokens", "text", "not a list"),
        ("token_type", np.ones(3), "3 token types"),
        ("bos_token_id", 10**6, "is 1000000"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_says_why(key: str, value: object, reason: str) -> None:
    metadata = {**whole_word_metadata(), f"tokenizer.ggml.{key}": value}
    with pytest.raises((ConfigError, UnsupportedError), match=reason):
        gguf_vocabulary(metadata)


def test_byte_alphabet_is_a_bijection() -> None:
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256 and alphabet[ord("A")] == "A" and alphabet[ord(" ")] == "Ġ"


@pytest.mark.model
@pytest.mark.parametrize(("name", "fixture"), [("smollm2", "smollm2"), ("gemma3-270m", "gemma3")])
def test_ids_equal_those_of_transformers(name: str, fixture: str) -> None:
    tokenizer = real_model(name).tokenizer
    rows = json.loads((FIXTURES / f"{fixture}_tokens.json").read_text())
    ids, offsets = tokenizer.encode_data([text for text, _ in rows])
    ours = [row.tolist() for row in np.split(ids, offsets[1:-1])]
    assert ours == [expected for _, expected in rows]
    assert tokenizer.decode_batch(ours) == [text for text, _ in rows]


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m", "minilm"])
def test_real_vocabularies_keep_data_apart(name: str) -> None:
    tokenizer = real_model(name).tokenizer
    ids, _ = tokenizer.encode_data(hostile_texts(tokenizer))
    assert not set(ids.tolist()) & tokenizer.control_ids
    assert all(
        tokenizer.encode_control(token.text).tolist() == [token.id] for token in tokenizer.vocabulary.control[:300]
    )
