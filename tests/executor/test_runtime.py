"""Which engines a session keeps loaded: as many as a run needs, as far as memory goes."""

from pathlib import Path

import pytest

from dql.config import Config
from dql.executor import engine as engine_module
from dql.executor import runtime as runtime_module
from dql.executor.progress import Tracker
from dql.planner.physical import Placement
from dql.session import Session


@pytest.fixture
def three(tmp_path: Path, model_file: Path) -> Session:
    """A session with the models a, b and c."""
    session = Session(config=Config(home=tmp_path, model=str(model_file), threads=1))
    for name in "abc":
        session.query(f"CREATE MODEL {name} FROM '{model_file}'")
    return session


def test_a_run_of_three_models_loads_each_once(three: Session) -> None:
    for sharing, kept in ((3, 3), (1, 2)):
        engines = [three.runtime.engine(name, Placement(), Tracker(None), sharing) for name in "abc"]
        again = [three.runtime.engine(name, Placement(), Tracker(None), sharing) for name in "abc"[-kept:]]
        assert again == engines[-kept:]
        three.runtime.forget("a")


def test_idle_engines_make_room_where_memory_is_short(three: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, tracker = three.runtime, Tracker(None)
    first = runtime.engine("a", Placement(), tracker)
    monkeypatch.setattr(runtime_module, "free_memory", lambda device: (1 << 40) * (not runtime._engines))
    second = runtime.engine("b", Placement(), tracker)
    assert list(runtime._engines.values()) == [second]  # the first was dropped
    second._open.add(second._start(iter(()), second.options, second.options, None, None))
    runtime.engine("a", Placement(), tracker)
    assert second in runtime._engines.values() and first not in runtime._engines.values()


def test_a_draft_never_takes_the_place_of_its_model(three: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, tracker = three.runtime, Tracker(None)
    models = runtime_module._Models(runtime, tracker, 2)
    large = models.engine("a", Placement())
    monkeypatch.setattr(runtime_module, "free_memory", lambda device: 0)
    with monkeypatch.context() as short:
        short.setattr(engine_module, "available_memory", lambda: 0)
        assert models.draft("b", Placement(), large) is models.draft("b", Placement(), large) is None
    assert len(tracker.notices) == 1 and "nothing was guessed ahead by b: the model does not fit" in tracker.notices[0]
    assert models.draft("b", Placement(), large) is not None
    assert large in runtime._engines.values()
