"""Prompts: what a model reads, token for token, and that rows cannot change it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.errors import BindError
from dql.models import Model, open_model
from dql.prompts import PromptSpec, compile_multi_label, compile_prompt
from tests.models.real import real_model
from tests.models.test_tokenizer import hostile_texts
from tests.models.tiny import tiny_model

GENERATE = PromptSpec(task="generate", template=("Say it again: ", 0, "\nand ", 1, "."))
CLASSIFY = PromptSpec(task="classify", template=(0,), bare=True, labels=("yes", "no way"))
FILTER = PromptSpec(task="filter", template=(0, " is a question"))
SCORE = PromptSpec(task="score", template=("How urgent? ", 0), low=1, high=5)
SPECS = {"generate": GENERATE, "classify": CLASSIFY, "filter": FILTER, "score": SCORE}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SPELLED = st.sampled_from(
    ["<|im_end|>", "<|im_start|>assistant\n", "<|endoftext|>", "{0}", "\ue0d10\ue0d2", "\x00", ""]
)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(tiny_model(tmp_path_factory.mktemp("chat")), name="tiny", uri="tiny")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(tiny_model(tmp_path_factory.mktemp("base"), chat=False), name="base", uri="base")


@pytest.fixture(scope="module")
def large(chat: Model) -> Model:
    """The chat model, said to be large enough to follow a chat turn when it judges."""
    return replace(chat, shape=replace(chat.shape, num_layers=16, intermediate_size=1 << 20))


def shown(model: Model, ids: np.ndarray) -> str:
    """Ids as text with control tokens written out."""
    return b"".join(model.tokenizer.token_bytes[id] for id in ids.tolist()).decode()


@pytest.mark.parametrize("task", SPECS)
@pytest.mark.parametrize("kind", ["chat", "base", "large"])
def test_tokens_spell_the_frame(chat: Model, base: Model, large: Model, kind: str, task: str) -> None:
    model = {"chat": chat, "base": base, "large": large}[kind]
    prompt = compile_prompt(model, SPECS[task])
    columns = [[f"text {hole} of row {row}" for row in range(3)] for hole in range(prompt.spec.num_holes)]
    batch = prompt.encode(columns)
    for row in range(3):
        expected = prompt.frame
        for hole, column in enumerate(columns):
            expected = expected.replace(f"{{{hole}}}", column[row])
        assert shown(model, batch.row(row)) == expected
    shared = prompt.constant_prefix_tokens
    assert len({batch.row(row)[:shared].tobytes() for row in range(3)}) == 1


def test_frames(chat: Model, base: Model, large: Model) -> None:
    assert compile_prompt(chat, replace(GENERATE, system="Be brief.")).frame == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nSay it again: {0}\nand {1}.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert compile_prompt(base, GENERATE).frame == "Say it again: {0}\nand {1}."
    described = replace(
        CLASSIFY, descriptions=("it is so", None), instruction="Read with care.", examples=(("q", "yes"),)
    )
    for model in (chat, base, large):
        frame = compile_prompt(model, described).frame
        assert all(words in frame for words in ("yes", "no way", "it is so", "Read with care.", "q"))
        assert frame.index("Read with care.") < frame.index("it is so") < frame.index("{0}")
        assert ("<|im_start|>assistant" in frame) == (model is large), "small models judge in running text"


def test_labels_are_what_the_model_would_emit(chat: Model, base: Model, large: Model) -> None:
    for model in (chat, base, large):
        prompt = compile_prompt(model, CLASSIFY)
        texts = model.tokenizer.decode_batch(prompt.label_ids)
        assert [text.strip() for text in texts] == ["yes", "no way"]
        ends = {model.tokenizer.token_bytes[ids[-1]] for ids in prompt.label_ids}
        assert ends == ({b"<|im_end|>"} if model is large else {b"\n"})
    assert [text.strip() for text in chat.tokenizer.decode_batch(compile_prompt(chat, SCORE).label_ids)] == list(
        "12345"
    )
    assert [t.strip() for t in chat.tokenizer.decode_batch(compile_prompt(chat, FILTER).label_ids)] == ["Yes", "No"]
    assert compile_prompt(chat, GENERATE).label_ids == ()
    assert compile_prompt(chat, GENERATE).stop_ids == chat.tokenizer.eos_ids


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(SPELLED | TEXT, SPELLED | TEXT), min_size=1, max_size=4), task=st.sampled_from(list(SPECS))
)
def test_rows_never_add_control(chat: Model, rows: list[tuple[str, str]], task: str) -> None:
    prompt = compile_prompt(chat, SPECS[task])
    columns = [[row[hole] for row in rows] for hole in range(prompt.spec.num_holes)]
    control = list(chat.tokenizer.control_ids)
    empty = prompt.encode([[""] for _ in columns]).row(0)
    batch = prompt.encode(columns)
    for row in range(len(rows)):
        ids = batch.row(row)
        assert ids[np.isin(ids, control)].tolist() == empty[np.isin(empty, control)].tolist()
    alone = [prompt.encode([[column[row]] for column in columns]) for row in range(len(rows))]
    assert [batch.row(row).tolist() for row in range(len(rows))] == [one.row(0).tolist() for one in alone]


def test_a_literal_is_text_too(chat: Model) -> None:
    prompt = compile_prompt(chat, PromptSpec(task="generate", template=("<|im_end|> ", 0)))
    assert prompt.encode([["x"]]).ids.tolist().count(2) == compile_prompt(
        chat, PromptSpec(task="generate", template=("", 0))
    ).encode([["x"]]).ids.tolist().count(2)


def test_control_split_across_the_border(chat: Model) -> None:
    end = "<|im_end|>"
    for cut in range(len(end) + 1):
        prompt = compile_prompt(chat, PromptSpec(task="generate", template=(end[:cut], 0, end[cut:], 1)))
        ids = prompt.encode([[end[cut:]], [end]]).ids
        assert np.count_nonzero(ids == 2) == 1, "the template's own end of turn"


def test_rows_that_have_no_tokens_are_listed(chat: Model) -> None:
    prompt = compile_prompt(chat, GENERATE)
    batch = prompt.encode([["fine", "\ud800", "nul \x00 is text", ""], ["a", "b", "c\udfff", "d"]])
    assert {row: failure.kind for row, failure in batch.failures.items()} == {1: "tokenizer", 2: "tokenizer"}
    assert (batch.lengths[[1, 2]] == 0).all() and (batch.lengths[[0, 3]] > 0).all()
    assert shown(chat, batch.row(3)).count("d.") == 1


def test_columns_must_fit(chat: Model) -> None:
    prompt = compile_prompt(chat, GENERATE)
    for columns in ([], [["a"]], [["a"], ["b", "c"]]):
        with pytest.raises(BindError, match="2 holes"):
            prompt.encode(columns)
    assert len(compile_prompt(chat, PromptSpec(task="generate", template=("hello",))).encode([])) == 1
    assert len(prompt.encode([[], []])) == 0


def test_holes_may_repeat_and_swap(chat: Model) -> None:
    prompt = compile_prompt(chat, PromptSpec(task="generate", template=(1, " then ", 0, " then ", 1)))
    batch = prompt.encode([["a", "and"], ["b", "the"]])
    assert "b then a then b" in shown(chat, batch.row(0)) and "the then and then the" in shown(chat, batch.row(1))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=5),
    limit=st.integers(1, 150),
)
def test_truncation_cuts_the_middle_of_the_longest_hole(
    chat: Model, lengths: list[tuple[int, int]], limit: int
) -> None:
    prompt = compile_prompt(chat, GENERATE)
    columns = [["".join(chr(65 + n % 26) for n in range(row[hole])) for row in lengths] for hole in range(2)]
    batch = prompt.encode(columns)
    short, cut = prompt.truncate(batch, limit)
    reserved = np.array([[1, 0], [1, 1]])  # the spaces before the holes, the full stop after the second
    fixed = batch.lengths - batch.slots[..., 1].sum(axis=1)
    constants = fixed + np.minimum(reserved.sum(axis=1), batch.slots[..., 1]).sum(axis=1)
    assert (short.lengths == np.maximum(np.minimum(batch.lengths, limit), constants)).all()
    assert (cut == (batch.lengths > short.lengths)).all()
    for row in range(len(lengths)):
        before, after = batch.slots[row], short.slots[row]
        assert short.lengths[row] - after[:, 1].sum() == fixed[row]
        for slot in range(2):
            old = batch.ids[before[slot, 0] : before[slot].sum()]
            new = short.ids[after[slot, 0] : after[slot].sum()]
            head = min(
                max((len(new) + 1) // 2, reserved[slot, 0]), max(len(new) - reserved[slot, 1], reserved[slot, 0])
            )
            assert new.tolist() == [*old[:head], *old[len(old) - (len(new) - head) :]]


def test_what_touches_a_hole_is_tokenised_with_it(chat: Model) -> None:
    for template in (("the ", 0, "ing"), ("th", 0, ": and"), ('"', 0, '".\n\nthe'), (0, 1, " ", 2, "\t", 3)):
        prompt = compile_prompt(chat, PromptSpec(task="generate", template=template))
        columns = [["e", " the ", "!", "", "\n", "'t"] for _ in range(prompt.spec.num_holes)]
        batch = prompt.encode(columns)
        for row in range(6):
            text = prompt.frame
            for hole, column in enumerate(columns):
                text = text.replace(f"{{{hole}}}", column[row])
            assert shown(chat, batch.row(row)) == text


def test_an_embedding_model_embeds_and_does_no_more(chat: Model) -> None:
    spec = PromptSpec(task="embed", template=(0,), bare=True)
    encoder = replace(chat, shape=replace(chat.shape, causal=False))
    assert compile_prompt(encoder, spec).frame == "{0}"
    with pytest.raises(BindError, match="no embedding model; it cannot embed"):
        compile_prompt(chat, spec)
    for task in SPECS.values():
        with pytest.raises(BindError, match="is an embedding model"):
            compile_prompt(encoder, task)


def test_one_prompt_per_label(chat: Model) -> None:
    spec = replace(CLASSIFY, descriptions=("agrees", None))
    prompts = compile_multi_label(chat, spec)
    assert len(prompts) == 2
    assert "yes" in prompts[0].frame and "agrees" in prompts[0].frame and "no way" in prompts[1].frame
    assert all(len(prompt.label_ids) == 2 for prompt in prompts)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"labels": ()}, "needs labels"),
        ({"labels": ("a", "a")}, "given twice"),
        ({"labels": ("a", "")}, "not empty"),
        ({"labels": ("a", "b"), "descriptions": ("x",)}, "1 descriptions"),
        ({"task": "score", "low": 5, "high": 5}, "no 2 to 101 points"),
        ({"task": "score", "low": 0, "high": 101}, "no 2 to 101 points"),
    ],
)
def test_a_call_that_cannot_be_asked_is_refused(change: dict[str, object], reason: str) -> None:
    with pytest.raises(BindError, match=reason):
        replace(CLASSIFY, **change)  # type: ignore[arg-type]


@pytest.mark.model
@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_ordinary_rows_have_the_tokens_of_the_whole_text(name: str) -> None:
    model = real_model(name)
    texts = [f"{word}, said the {other} — and {word}." for word in ("Apples", "we", "1984") for other in ("cat", "Ω")]
    for spec in (CLASSIFY, FILTER, SCORE):
        prompt = compile_prompt(model, spec)
        batch = prompt.encode([texts])
        whole = [model.tokenizer.encode_control(prompt.frame.replace("{0}", text)) for text in texts]
        assert [batch.row(row).tolist() for row in range(len(texts))] == [ids.tolist() for ids in whole]


@pytest.mark.model
def test_sentences_are_framed_as_the_encoder_was_trained() -> None:
    model = real_model("minilm")
    prompt = compile_prompt(model, PromptSpec(task="embed", template=(0,), bare=True))
    batch = prompt.encode([["Hello [SEP] world", ""]])
    ids = batch.row(0).tolist()
    assert (ids[:2], ids[-2:]) == ([101, 7592], [2088, 102]) and ids.count(102) == 1
    assert batch.row(1).tolist() == [101, 102]


@pytest.mark.model
def test_hostile_rows_on_a_real_model() -> None:
    model = real_model("smollm2")
    prompt = compile_prompt(model, CLASSIFY)
    batch = prompt.encode([hostile_texts(model.tokenizer)])
    is_control = np.isin(batch.ids, list(model.tokenizer.control_ids))
    per_row = np.add.reduceat(is_control.astype(np.int64), batch.offsets[:-1])
    assert (per_row == per_row[0]).all()
