"""Output modes: what they print, and that no data reaches the terminal as a control code."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wcwidth import width

from dql.errors import ConfigError
from dql.render import MODES, mode_named, render
from dql.sanitize import sanitize_cell
from tests.conftest import Golden

GOLDEN = Path(__file__).parent / "golden"
RAW_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
BOXES = ["duckbox", "box", "table"]


def terminal_payloads() -> list[str]:
    """Two hundred strings that do things to terminals, markup renderers and spreadsheets."""
    sequences = ["\x1b[31m", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]52;c;ZXZpbA==\x07", "\x1bP$q\x1b\\", "\x1bc"]
    sequences += ["\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "\x9b31m", "\x9d0;t\x9c", "\x1b(0", "\x1b#8"]
    controls = [chr(c) for c in [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0xFEFF, *range(0x2028, 0x202F)]]
    controls += [chr(c) for c in [0x200E, 0x200F, *range(0x2066, 0x206A)]]
    markup = ["[red]x[/red]", "[/nope]", "[link=file:///etc/passwd]x[/link]", "<script>alert(1)</script>", "&lt;b&gt;"]
    markup += ["| a | b |", "`x`", "**bold**", "_it_", "\\", "\\input{x}", "$x$ % # ~ ^", "=1+1", "'; DROP TABLE t; --"]
    markup += [
        '"',
        '","',
        "NULL",
        "",
        " ",
        "a\r\nb",
        "\t",
        "{'a': 1}",
        "[1, 2]",
        "漢字🐦",
        "👩‍👩‍👧‍👦",
        "e\u0301",
        "NaN",
    ]
    payloads = [*sequences, *markup, *(f"a{c}b" for c in controls)]
    payloads += [f"{s}{m}\n{s}" for s in sequences for m in markup][: 200 - len(payloads)]
    return payloads


def text(table: pa.Table, mode: str, **layout: Any) -> str:
    return "".join(render(table, mode, **layout))


@pytest.mark.parametrize("mode", MODES)
def test_terminal_payloads_come_out_escaped(mode: str) -> None:
    payloads = terminal_payloads()
    assert len(payloads) == 200
    cells = pa.table({"plain": payloads, "nested": [[p] for p in payloads], "struct": [{"k": p} for p in payloads]})
    names = pa.table([[1]] * 200, names=payloads)
    for out in (text(cells, mode, max_rows=0), text(names, mode, width=0), text(cells, mode)):
        assert not RAW_CONTROL.search(out)


@settings(deadline=None)
@given(st.text())
def test_sanitised_text_is_printable_and_clean_text_is_unchanged(value: str) -> None:
    clean = sanitize_cell(value)
    assert not re.search(r"[\t\n]", clean) and not RAW_CONTROL.search(clean)
    assert sanitize_cell(clean) == clean


def sample() -> pa.Table:
    """One column of each kind, with NULL, empty, long, wide, nested and marked-up values."""
    return (
        duckdb.connect()
        .from_query("""
        SELECT * FROM (VALUES
          (1, 'plain', 1.50::DECIMAL(6,2), true, DATE '2026-01-02', [1, 2], {'k': 'it''s', 'n': NULL}),
          (20, 'two' || chr(10) || 'lines, "quoted"', 22.25, false, NULL, [], {'k': '<b>|</b>', 'n': 7}),
          (NULL, '', NULL, NULL, DATE '1999-12-31', NULL, NULL),
          (300, '漢字 🐦 ' || chr(27) || '[31m', 0, true, DATE '2000-01-01', [NULL], {'k': NULL, 'n': 1})
        ) t(id, "text & more", price, ok, day, list, record)""")
        .to_arrow_table()
    )


@pytest.mark.parametrize("mode", MODES)
def test_modes_print_their_golden_text(mode: str, golden: Golden) -> None:
    golden.check(GOLDEN / f"{mode}.txt", text(sample(), mode))


@pytest.mark.parametrize("mode", BOXES)
def test_lines_of_a_box_are_equally_wide(mode: str) -> None:
    payloads = terminal_payloads()
    table = pa.table({"c": payloads, "n": range(len(payloads))})
    lines = [line for line in text(table, mode, width=60).splitlines() if not line.startswith("  ")]
    assert len({width(line, control_codes="ignore") for line in lines}) == 1


@settings(max_examples=15, deadline=None)
@given(columns=st.integers(1, 30), limit=st.integers(30, 200), size=st.integers(1, 300))
def test_duckbox_keeps_to_the_width_it_is_given(columns: int, limit: int, size: int) -> None:
    table = pa.table([["x" * (size * (i % 3))] for i in range(columns)], names=[f"c{i}" for i in range(columns)])
    boxed = text(table, "duckbox", width=limit).splitlines()[:-1]
    assert max(width(line, control_codes="ignore") for line in boxed) <= limit


def test_duckbox_says_what_it_leaves_out() -> None:
    table = pa.table({f"column_{i}": range(12_345) for i in range(30)})
    footer = text(table, "duckbox").splitlines()[-1]
    assert "12,345 rows (40 shown)" in footer and "30 columns (" in footer
    assert text(table.slice(0, 0), "duckbox").splitlines()[-1].strip().startswith("0 rows")
    assert len(text(table.select([0]).slice(0, 500), "duckbox", max_rows=0).splitlines()) > 500


def test_few_rows_show_their_text_whole_and_many_one_line_each() -> None:
    answer = "First line.\n\n" + "word " * 40
    few = text(pa.table({"answer": [answer]}), "duckbox", width=40)
    assert few.count("word") == 40 and "\\n" not in few and "…" not in few
    many = text(pa.table({"answer": [answer] * 30}), "duckbox", width=40)
    assert many.count("First line.\\n\\n") == 30 and len(many.splitlines()) == 36
    long = text(pa.table({"answer": ["word " * 2000]}), "duckbox", width=40)
    assert len(long.splitlines()) == 29 and "word …" in long
    rules = text(pa.table({"answer": [answer, "short"]}), "duckbox", width=40)
    assert rules.count("├") == 2, "a rule parts the rows"


def awkward() -> pa.Table:
    values = [p for p in terminal_payloads() if not RAW_CONTROL.search(p)]
    return pa.table({"a": [*values, None], "b": [*range(len(values)), None]})


def test_csv_reads_back() -> None:
    table = awkward()
    schema = {"a": pl.String, "b": pl.Int64}
    back = pl.read_csv(text(table, "csv").encode(), schema=schema)
    assert back.to_dict(as_series=False) == table.to_pydict()
    assert all(len(row) == 2 for row in csv.reader(io.StringIO(text(table, "csv"))))


@pytest.mark.parametrize("mode", ["json", "jsonl"])
def test_json_reads_back(mode: str) -> None:
    payloads = terminal_payloads()
    table = pa.table({"a": payloads, "é\x1b": [[p] for p in payloads], "x": [float("nan"), float("inf"), *[0.1] * 198]})
    out = text(table, mode)
    rows = json.loads(out) if mode == "json" else [json.loads(line) for line in out.splitlines()]
    assert [row["a"] for row in rows] == payloads
    assert [row["é\x1b"] for row in rows] == [[p] for p in payloads]
    assert [row["x"] for row in rows[:3]] == [None, None, 0.1]


def test_insert_statements_restore_the_values() -> None:
    table = pa.table({"a": [*terminal_payloads(), None], "b": [*range(200), None]})
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE copy (a VARCHAR, b BIGINT)")
        connection.execute(text(table, "insert", name="copy"))
        assert connection.table("copy").to_arrow_table().to_pydict() == table.to_pydict()


def test_large_tables_cross_block_borders() -> None:
    table = pa.table({"n": range(60_000), "s": ["x", None, "a\nb"] * 20_000})
    assert len(json.loads(text(table, "json"))) == 60_000
    assert sum(1 for _ in csv.reader(io.StringIO(text(table, "csv")))) == 60_001
    assert text(table, "tabs").count("\n") == 60_001


@pytest.mark.parametrize("mode", MODES)
def test_no_rows_and_no_columns(mode: str) -> None:
    empty = pa.table({"a": pa.array([], pa.string())})
    assert "\x1b" not in text(empty, mode)
    assert text(pa.table({}), mode) == ""
    if mode == "json":
        assert json.loads(text(empty, mode)) == []


def test_bytes_that_are_not_utf8_do_not_stop_a_table() -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa")])
    assert "\ufffda" in text(pa.table({"s": broken}), "csv")


def test_equal_column_names_stay_apart() -> None:
    table = pa.table([[1], [2]], names=["a", "a"])
    assert text(table, "csv") == "a,a\n1,2\n"
    assert text(table, "jsonl") == '{"a":1,"a":2}\n'


def test_modes_answer_to_other_tools_words() -> None:
    assert [mode_named(name) for name in ("JSONLINES", "tsv", "md")] == ["jsonl", "tabs", "markdown"]
    with pytest.raises(ConfigError, match="markdown"):
        mode_named("markdwon")
