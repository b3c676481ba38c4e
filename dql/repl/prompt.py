"""The line editor: prompt_toolkit told about DQL's completion, colours, statement ends and history."""

from collections.abc import Callable, Iterable

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, ThreadedCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.output import Output
from prompt_toolkit.styles import Style

from dql.repl.command_completion import complete_command
from dql.repl.completion import Grammar, Names, complete
from dql.repl.lexing import is_complete, pieces
from dql.sanitize import sanitize_cell

PROMPT = "dql> "
_CONTINUED = "...> "
_HABITS = {"exit": ".exit", "quit": ".exit", "\\q": ".exit", "help": ".help", "\\?": ".help", "\\d": ".tables"}
_STYLE = Style.from_dict(
    {
        "prompt": "bold ansicyan",
        "keyword": "bold ansiblue",
        "inference": "bold ansimagenta",
        "string": "ansigreen",
        "comment": "italic ansibrightblack",
        "number": "ansicyan",
        "param": "ansiyellow",
        "bottom-toolbar": "noreverse ansibrightblack",
        "auto-suggestion": "ansibrightblack",
    }
)


class DqlCompleter(Completer):
    """Asks the pure functions; names are read anew each time, so that new tables are known at once."""

    def __init__(self, names: Callable[[], Names], grammar: Grammar) -> None:
        self._names = names
        self._grammar = grammar

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Candidates for the text around the cursor; with nothing typed, only when asked for with Tab."""
        before = document.text_before_cursor
        if complete_event.text_inserted and before[-1:].isspace():
            return
        if before.startswith("."):
            found = complete_command(before, self._names())
        else:
            found = complete(before, document.text_after_cursor, self._names(), self._grammar)
        for candidate in found:
            shown, detail = sanitize_cell(candidate.text), sanitize_cell(candidate.detail)
            yield Completion(candidate.text, -candidate.replaces, display=shown, display_meta=detail)


class DqlLexer(Lexer):
    """Colours: keywords as the grammar lists them, inference functions apart from them."""

    def __init__(self, keywords: frozenset[str], inference: frozenset[str]) -> None:
        self._keywords = keywords
        self._inference = inference

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Fragments of each line; a piece may span several."""
        lines: list[StyleAndTextTuples] = [[]]
        for style, text in self._styled(document.text):
            first, *rest = text.split("\n")
            lines[-1].append((style, first))
            lines.extend([(style, line)] for line in rest)
        return lambda number: lines[number] if number < len(lines) else []

    def _styled(self, text: str) -> Iterable[tuple[str, str]]:
        position = 0
        for piece in pieces(text):
            yield "", text[position : piece.start]
            yield self._style(piece.kind, piece.upper), piece.text
            position = piece.end
        yield "", text[position:]

    def _style(self, kind: str, upper: str) -> str:
        if kind == "word":
            return "class:inference" if upper in self._inference else "class:keyword" if upper in self._keywords else ""
        return f"class:{kind}" if kind in ("string", "comment", "number", "param") else ""


def prompt_session(
    names: Callable[[], Names],
    grammar: Grammar,
    *,
    inference: frozenset[str],
    history: History,
    toolbar: Callable[[], str],
    terminal: tuple[Input, Output] | None = None,
) -> "PromptSession[str]":
    """The line editor. `terminal` is given by tests; None is the real one."""
    return PromptSession(
        message=[("class:prompt", PROMPT)],
        prompt_continuation=[("class:prompt", _CONTINUED)],
        multiline=True,
        key_bindings=_keys(),
        lexer=DqlLexer(grammar.keywords(), inference),
        completer=ThreadedCompleter(DqlCompleter(names, grammar)),
        complete_while_typing=True,
        auto_suggest=AutoSuggestFromHistory(),
        history=history,
        bottom_toolbar=lambda: sanitize_cell(toolbar()),
        style=_STYLE,
        enable_open_in_editor=True,
        tempfile_suffix=".dql",
        search_ignore_case=True,
        input=terminal[0] if terminal else None,
        output=terminal[1] if terminal else None,
    )


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        """Run what is whole, else go on to the next line."""
        buffer = event.current_buffer
        completing = buffer.complete_state
        if completing is not None and completing.current_completion is not None:
            buffer.apply_completion(completing.current_completion)
        elif runs(buffer.text):
            buffer.validate_and_handle()
        else:
            buffer.insert_text("\n")

    @keys.add("escape", "enter")
    def escape_enter(event: KeyPressEvent) -> None:
        """Run as it is, without a `;`."""
        event.current_buffer.validate_and_handle()

    return keys


def runs(text: str) -> bool:
    """Whether Enter runs the text: a dot command, a statement that `;` ends, or nothing at all."""
    return not text.strip() or meant(text).startswith(".") or is_complete(text)


def meant(text: str) -> str:
    """The dot command that a word of other shells stands for; any other text as it is."""
    return _HABITS.get(text.strip().rstrip(";").lower(), text)
