"""What runs that stopped leave: all that was answered, found by what was asked, and never the end of a query."""

import threading
from pathlib import Path

import numpy as np
import pytest

from dql.errors import BindError
from dql.executor import unfinished
from dql.executor.context import Asked
from dql.executor.journal import Journal
from dql.executor.requests import Answer, Generate
from dql.executor.unfinished import Keeper, Memo, Unfinished, name_of, prompts_in

ASKED: Asked = ("tiny", "fp32", "fp32", Generate(4, frozenset({3, 1})))


def told(number: int) -> Answer:
    return Answer(number, np.arange(number, dtype=np.int32), np.full(number, -0.5, np.float32), prompt_tokens=number)


def key(number: int) -> bytes:
    return number.to_bytes(16)


@pytest.fixture
def kept(tmp_path: Path) -> Unfinished:
    return Unfinished(tmp_path / "unfinished", lambda: tmp_path / "unfinished" / "a.journal")


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "dql-journal"]


def test_what_was_answered_is_told_again(kept: Unfinished) -> None:
    memo = {key(n): told(n) for n in range(5)}
    for known in ({}, {name_of(ASKED): dict(list(memo.items())[:3])}):  # the second run adds nothing twice
        keeper = Keeper(kept, {ASKED: memo}, known)
        keeper.start()
        keeper.end(stopped=True)
    found = kept.load()[name_of(ASKED)]
    assert list(found) == list(memo)
    assert [a.tokens.tolist() for a in found.values()] == [a.tokens.tolist() for a in memo.values()]
    assert not threads()
    kept.drop()
    assert kept.load() == {} and not list(kept.folder.iterdir())


class Growing(Memo):
    """One more answer comes in the moment in which they are counted."""

    def __len__(self) -> int:
        count = super().__len__()
        if count < 5:
            self[key(count)] = told(count)
        return count


def test_an_answer_that_comes_while_others_are_looked_at_is_not_lost(kept: Unfinished) -> None:
    keeper = Keeper(kept, {ASKED: Growing({key(0): told(0)})}, {})
    for _ in range(9):
        keeper._write()
    keeper.start()
    keeper.end(stopped=True)
    assert list(kept.load()[name_of(ASKED)]) == [key(n) for n in range(5)]


def test_a_record_that_no_one_can_read_costs_no_query(kept: Unfinished) -> None:
    journal = Journal.open(kept.journal())
    assert journal is not None
    journal.append(b"another version's")
    journal.close()
    assert kept.load() == {} == prompts_in(kept.journal())


def test_a_model_that_is_gone_costs_no_query(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def gone() -> Path:
        raise BindError("there is no model m")

    (tmp_path / "another.journal").touch()
    kept = Unfinished(tmp_path, gone)
    keeper = Keeper(kept, {ASKED: {key(1): told(1)}}, kept.load())
    keeper.start()
    keeper.end(stopped=True)
    kept.drop()
    assert caplog.text.count("there is no model m") == 3 and not threads()


def test_two_runs_of_a_statement_keep_the_answers_of_one(
    kept: Unfinished, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "_FIRST", 0.01)
    wrote = threading.Event()
    append = Journal.append

    def noted(journal: Journal, record: bytes) -> None:
        append(journal, record)
        wrote.set()

    monkeypatch.setattr(Journal, "append", noted)
    first, second = (Keeper(kept, {ASKED: {key(n): told(n)}}, {}) for n in (1, 2))
    first.start()
    assert wrote.wait(20)
    second.start()
    second.end(stopped=True)
    kept.drop()  # the second came to its end, and the first goes on
    assert "another process runs the same statement" in caplog.text and kept.journal().exists()
    first.end(stopped=True)
    assert list(kept.load()[name_of(ASKED)]) == [key(1)]
