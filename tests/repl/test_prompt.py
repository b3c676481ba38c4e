"""The line editor, typed at through a pipe: multi-line, completion, suggestion, colours."""

from collections.abc import Iterator

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from dql.grammar import complete as grammar
from dql.repl.completion import Named, Names
from dql.repl.prompt import DqlCompleter, DqlLexer, meant, prompt_session, runs

NAMES = Names(tables={"tickets": [Named("id", "BIGINT")]})


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


def read(keys: PipeInput, typed: str, history: list[str] | None = None) -> str:
    session = prompt_session(
        lambda: NAMES,
        grammar,
        inference=frozenset({"AI_FILTER"}),
        history=InMemoryHistory(history or []),
        toolbar=lambda: "",
        terminal=(keys, DummyOutput()),
    )
    keys.send_text(typed)
    return session.prompt()


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("SELECT 1;\r", "SELECT 1;"),
        ("SELECT 1\r+ 2;\r", "SELECT 1\n+ 2;"),
        ("SELECT ';\r';\r", "SELECT ';\n';"),
        ("SELECT 1\x1b\r", "SELECT 1"),
        (".tables\r", ".tables"),
        ("exit\r", "exit"),
        ("\\d;\r", "\\d;"),
        ("exit\rFROM t;\r", "exit"),
        ("\r", ""),
        ("\x1b[200~SELECT 1;\nSELECT 2;\x1b[201~\r", "SELECT 1;\nSELECT 2;"),
    ],
)
def test_enter_runs_what_is_whole(keys: PipeInput, typed: str, text: str) -> None:
    assert read(keys, typed) == text


def test_words_of_other_shells_are_understood() -> None:
    assert [meant(text) for text in ("Exit", "quit;", "\\q", "help", "SELECT exit")] == [
        *([".exit"] * 3),
        ".help",
        "SELECT exit",
    ]


@pytest.mark.parametrize(
    ("before", "asked", "found"),
    [
        ("SELECT id FROM tick", False, ["tickets"]),
        ("SELECT id FROM ", True, ["tickets"]),
        ("SELECT id FROM ", False, []),
        (".tab", False, ["tables"]),
    ],
)
def test_completion_waits_for_tab_after_a_space(before: str, asked: bool, found: list[str]) -> None:
    event = CompleteEvent(text_inserted=not asked, completion_requested=asked)
    completer = DqlCompleter(lambda: NAMES, grammar)
    assert [c.text for c in completer.get_completions(Document(before), event)][: len(found) or 1] == found


def test_names_cannot_reach_the_terminal_raw() -> None:
    names = Names(tables={"a\x1b[31m": []})
    (candidate,) = DqlCompleter(lambda: names, grammar).get_completions(Document('FROM "a'), CompleteEvent())
    assert candidate.display_text == '"a\\e[31m"'


def test_the_arrow_brings_back_the_last_statement_whole(keys: PipeInput) -> None:
    assert read(keys, "\x1b[A\r", ["SELECT 1\n+ 2;"]) == "SELECT 1\n+ 2;"


@pytest.mark.parametrize("typed", ["\x03", "\x04"])
def test_control_keys_leave_the_line(keys: PipeInput, typed: str) -> None:
    with pytest.raises(KeyboardInterrupt if typed == "\x03" else EOFError):
        read(keys, typed)


def test_colours_follow_the_grammar() -> None:
    lexer = DqlLexer(grammar.keywords(), frozenset({"AI_FILTER"}))
    lines = lexer.lex_document(Document("SELECT 'a\nb', 1 -- x\nFROM t WHERE AI_FILTER(y)"))
    styles = [{text.strip(): style for style, text, *_ in lines(n) if text.strip()} for n in range(3)]
    assert styles[0] == {"SELECT": "class:keyword", "'a": "class:string"}
    assert styles[1] == {"b'": "class:string", ",": "", "1": "class:number", "-- x": "class:comment"}
    assert styles[2]["AI_FILTER"] == "class:inference" and styles[2]["t"] == "" and styles[2]["FROM"] == "class:keyword"
    assert lines(9) == []


def test_blank_lines_run_and_show_nothing() -> None:
    assert runs("  ") and runs(".help") and runs("SELECT 1;") and not runs("SELECT 1")
