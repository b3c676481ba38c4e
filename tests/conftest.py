"""Fixtures of the whole suite, and `--complete`, which writes what the golden files should say."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # a GPU image lacks what they import, and the tests marked gpu need neither
    from tests.fake_session import FakeSession


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--complete", action="store_true", help="write golden files instead of comparing with them")


def pytest_configure() -> None:
    """Ctrl-C is heard, also where a shell started the tests in the background, which makes processes deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """The modules of torch, DuckDB and the tests stay to the end: no collection of garbage looks through them again."""
    gc.freeze()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's GGUF."""
    from tests.models.tiny import tiny_model

    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def session(tmp_path: Path, model_file: Path) -> "Iterator[FakeSession]":
    """A session of its own for one test, with a second model named `other`."""
    from tests.fake_session import FakeSession

    with FakeSession(tmp_path / "home", model_file) as session:
        session.query(f"CREATE MODEL other FROM '{model_file}'")
        yield session


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> "Golden":
    return Golden(bool(request.config.getoption("--complete")))


class Golden:
    """Compares a text with a file; with `--complete` writes the file."""

    def __init__(self, complete: bool) -> None:
        self._complete = complete

    def check(self, path: Path, text: str) -> None:
        if self._complete:
            path.write_text(text)
        assert text == path.read_text()
