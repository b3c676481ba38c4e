from pathlib import Path

import pytest

from tests.conftest import Golden
from tests.fake_session import FakeSession, NoHistory
from tests.queries.slt import completed

FOLDER = Path(__file__).parent


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.slt")), ids=lambda path: path.stem)
def test_queries_yield_the_rows_of_their_file(path: Path, session: FakeSession, golden: Golden) -> None:
    session.history = NoHistory(session.config.runs_file)
    session.query(f"CREATE MODEL main FROM '{session.model}'")
    for statement in (FOLDER / "tables.sql").read_text().split(";"):
        session.catalog.execute(statement)
    golden.check(path, completed(path.read_text(), session))
