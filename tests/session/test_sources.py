"""What FROM reads: files of every kind, and frames of the caller by the names of their variables."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dql.errors import BindError, ExecutionError
from tests.fake_session import FakeSession

ROWS = pl.DataFrame({"id": [1, 2, 3], "body": ["a bug", None, "a refund"]})
QUERY = "SELECT id, AI_FILTER('{body} is a bug') AS bug FROM "
ANSWERS = [(1, True), (2, None), (3, False)]

everywhere = pl.DataFrame({"id": [9], "body": ["a global bug"]})


def write_hive(folder: Path) -> str:
    for (topic,), part in ROWS.with_columns(topic=pl.Series(["x", "y", "y"])).group_by("topic"):
        (folder / f"topic={topic}").mkdir()
        part.drop("topic").write_parquet(folder / f"topic={topic}" / "part.parquet")
    return f"'{folder}/*/*.parquet'"


def write_parts(folder: Path) -> str:
    for number in range(3):
        ROWS[number : number + 1].write_csv(folder / f"part{number}.csv")
    return f"'{folder}/part*.csv'"


def write_file(name: str, write: Callable[[Path], object]) -> Callable[[Path], str]:
    def into(folder: Path) -> str:
        write(folder / name)
        return f"'{folder / name}'"

    return into


def test_a_broken_line_is_said_with_its_file_and_what_to_write(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "latin.csv"
    path.write_bytes("id,body\n1,ok\n2,caf\u00e9\n".encode("latin-1"))
    for text in (f"FROM '{path}'", f"{QUERY} '{path}'"):
        with pytest.raises(ExecutionError, match=f"{path}, line 3: Invalid unicode") as caught:
            session.query(text).pl()
        assert caught.value.hint == f"write read_csv('{path}', encoding = 'latin-1')"
    assert session.query(f"FROM read_csv('{path}', encoding = 'latin-1')").pl()["body"].to_list() == ["ok", "café"]


@pytest.mark.parametrize(
    "source",
    [
        write_file("rows.parquet", ROWS.write_parquet),
        write_file("rows.csv", ROWS.write_csv),
        write_file("rows.tsv", lambda path: ROWS.write_csv(path, separator="\t")),
        write_file("rows.jsonl", ROWS.write_ndjson),
        write_file("rows.ndjson", ROWS.write_ndjson),
        write_file("rows.json", ROWS.write_json),
        write_file("rows.arrow", ROWS.write_ipc),
        write_file("rows.feather", ROWS.write_ipc),
        write_file('it\'s "odd" {name}.csv', ROWS.write_csv),
        write_parts,
        write_hive,
    ],
    ids=["parquet", "csv", "tsv", "jsonl", "ndjson", "json", "arrow", "feather", "odd name", "glob", "hive"],
)
def test_files_are_read_by_their_suffix(source: Callable[[Path], str], session: FakeSession, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    path = source(folder)
    if "'s" in path:
        path = "'" + path[1:-1].replace("'", "''") + "'"
    assert sorted(session.query(f"{QUERY}{path} ORDER BY id").pl().rows()) == ANSWERS


def test_hive_keys_are_columns(session: FakeSession, tmp_path: Path) -> None:
    path = write_hive(tmp_path)
    found = session.query(f"SELECT topic, AI_GENERATE('{{topic}} {{id}}') AS g FROM {path} WHERE topic = 'x'")
    assert found.pl().rows() == [("x", "x 1")]
    assert len(session.asked) == 1


@pytest.mark.parametrize(
    "frame",
    [ROWS, ROWS.lazy(), ROWS.to_pandas(), ROWS.to_arrow(), ROWS.to_arrow().to_batches()[0]],
    ids=["polars", "lazy", "pandas", "arrow table", "record batch"],
)
def test_frames_are_found_by_their_variable(frame: object, session: FakeSession) -> None:
    local = frame
    assert session.query(f"{QUERY}local").pl().rows() == ANSWERS
    assert session.query(f"{QUERY}rows", tables={"rows": local}).pl().rows() == ANSWERS


def test_a_reader_is_read_once(session: FakeSession) -> None:
    reader = pa.RecordBatchReader.from_batches(ROWS.to_arrow().schema, ROWS.to_arrow().to_batches())
    assert session.query(f"{QUERY}reader", tables={"reader": reader}).pl().rows() == ANSWERS


def test_a_frame_may_be_read_in_any_place_of_a_query(session: FakeSession) -> None:
    one, two = ROWS, pd.DataFrame({"key": [1, 3], "word": ["bug", "refund"]})
    text = """WITH c AS (SELECT id, body FROM one)
        SELECT c.id FROM c JOIN two ON key = c.id AND AI_FILTER('{body} mentions {word}')
        WHERE id IN (SELECT key FROM two) ORDER BY id"""
    assert session.query(text).pl().rows() == [(1,), (3,)]
    assert len(one) == len(two) + 1


def test_globals_are_found_and_locals_come_first(session: FakeSession) -> None:
    assert session.query("SELECT AI_GENERATE(body) AS g FROM everywhere").pl().rows() == [("a global bug",)]

    def inside() -> list[tuple[object, ...]]:
        everywhere = pl.DataFrame({"body": ["a local bug"]})
        assert len(everywhere) == 1
        return session.query("SELECT AI_GENERATE(body) AS g FROM everywhere").pl().rows()

    assert inside() == [("a local bug",)]
    assert session.query("SELECT AI_GENERATE(body) AS g FROM everywhere").pl().rows() == [("a global bug",)]


def test_a_changed_frame_is_read_anew(session: FakeSession) -> None:
    frame = pl.DataFrame({"x": ["one"]})
    assert session.query("SELECT AI_GENERATE(x) AS g FROM frame").pl().rows() == [("one",)]
    frame = frame.with_columns(x=pl.lit("two"))
    assert session.query("SELECT AI_GENERATE(x) AS g FROM frame").pl().rows() == [("two",)]


def test_tables_of_the_session_come_before_variables_and_given_ones_before_both(session: FakeSession) -> None:
    known = pl.DataFrame({"x": ["variable"]})
    session.query("CREATE TABLE known AS SELECT 'table' AS x")
    assert session.query("SELECT AI_GENERATE(x) AS g FROM known").pl().rows() == [("table",)]
    given = session.query(
        "SELECT AI_GENERATE(x) AS g FROM known", tables={"known": known.with_columns(x=pl.lit("given"))}
    )
    assert given.pl().rows() == [("given",)]


def test_what_is_no_table_is_refused(session: FakeSession) -> None:
    number = 3
    with pytest.raises(BindError, match="number is a int, not a table"):
        session.query("SELECT * FROM number", tables={"number": number})
    with pytest.raises(BindError, match="no table number"):
        session.query("SELECT AI_GENERATE(x) FROM number")


def test_columns_of_a_mapping(session: FakeSession) -> None:
    found = session.query("SELECT AI_GENERATE('{a}{b}') AS g FROM t", tables={"t": {"a": [1, 2], "b": ["x", None]}})
    assert found.pl().rows() == [("1x",), (None,)]


def test_parameters_stand_wherever_an_expression_does(session: FakeSession) -> None:
    people = pl.DataFrame({"name": ["ann", "bob", "cid"], "age": [30, 40, 50]})
    text = """SELECT name || $mark AS n, AI_CLASSIFY(name || $mark, $labels) AS c,
            AI_GENERATE('{$mark} {age + $more}') || $mark AS g,
            AI_SCORE(name, $low, $high) > $low AS s, (SELECT count(*) FROM people WHERE age > $age) AS older
        FROM people WHERE age >= $age AND AI_FILTER('{name} is {$who}') IS NOT NULL
        ORDER BY AI_SCORE(name || $mark, $low, $high), name DESC LIMIT $n OFFSET $skip"""
    params = {
        "mark": "!",
        "labels": ["bob", "cid"],
        "more": 1,
        "low": 0,
        "high": 2,
        "age": 40,
        "who": "bob",
        "n": 1,
        "skip": 1,
        "unused": None,
    }
    assert session.query(text, params).pl().rows() == [("bob!", "bob", "! 41!", True, 1)]
    assert len(people) == 3


def test_a_null_parameter_is_a_null_hole(session: FakeSession) -> None:
    assert session.query("SELECT AI_GENERATE('Hi {$x}') AS g", {"x": None}).pl().rows() == [(None,)]
    assert not session.asked


def test_wide_types_are_written_as_sql_writes_them(session: FakeSession, tmp_path: Path) -> None:
    table = pa.table({"d": [[1, None]], "s": [{"a": "it's"}], "t": pa.array([0], pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "wide.parquet")
    found = session.query(f"SELECT AI_GENERATE('{{d}} {{s}} {{t}}') AS g FROM '{tmp_path / 'wide.parquet'}'")
    assert found.pl().rows() == [("[1, NULL] {'a': 'it\\'s'} 1970-01-01 00:00:00",)]
