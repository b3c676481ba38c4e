"""What a user sees for each mistake: `errors.txt` holds statements with their errors; none is a traceback."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Golden
from tests.fake_session import FakeSession
from tests.queries.slt import completed

FOLDER = Path(__file__).parent


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with good and broken files."""
    folder = tmp_path / "work"
    folder.mkdir()
    pq.write_table(pa.table({"id": [1, 2], "body": ["one", "two"]}), folder / "good.parquet")
    whole = (folder / "good.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "zero.parquet").write_bytes(b"")
    (folder / "text.parquet").write_text("this is no Parquet at all, but a text of some length\n" * 3)
    (folder / "ragged.csv").write_text("id,body\n1,one\n2,two,three,four\n")
    (folder / "broken.jsonl").write_text('{"id": 1, "body": "one"}\n{"id": 2, "bo\n')
    (folder / "zero.csv").write_bytes(b"")
    (folder / "broken.arrow").write_bytes(b"ARROW1\0\0 and no more")
    (folder / "nothing").mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_every_mistake_is_explained(session: FakeSession, files: Path, golden: Golden) -> None:
    for statement in (FOLDER.parent / "queries" / "tables.sql").read_text().split(";"):
        session.catalog.execute(statement)
    path = FOLDER / "errors.txt"
    text = completed(path.read_text(), session).replace(f"{files}/", "")
    golden.check(path, text)
    results = [record.split("\n----\n")[1] for record in text.split("\n\n") if "\n----\n" in record]
    assert all("Error: " in result.splitlines()[0] for result in results)
    assert not session.asked
