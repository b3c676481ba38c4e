"""Contracts end to end, on the tiny model with a fake engine: what is refused, what is chosen, what is said of it."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dql.config import Config
from dql.errors import BindError, ConfigError, DqlError, PlanError, UnsupportedError
from dql.history import CallRecord, History, RunRecord
from dql.models.shape import ModelShape
from dql.planner.hardware import Curve, Hardware, Progress, cpu_versions, from_json
from dql.planner.statistics import count_calls
from dql.session import Session
from dql.summary import summary
from tests.fake_session import FakeSession
from tests.planner.fake_models import small_cpu

ROWS = 30
GENERATE = "GENERATE 'Say {body}' AS said FROM t"


@pytest.fixture
def small(session: FakeSession) -> FakeSession:
    """A session on a slow machine whose figures are known, so that nothing is measured; `t` has thirty rows."""
    session.catalog.register("t", pa.table({"id": range(ROWS), "body": [f"text number {i % 20}" for i in range(ROWS)]}))
    session.machine.path.parent.mkdir(parents=True)
    slow = replace(small_cpu(), peak={"fp32": 2e6}, versions=cpu_versions(session.config.num_threads))
    shape = session.registry.resolve(session.model).shape
    key = f"fp32 {shape.hidden_size}x{shape.query_size}x{shape.kv_size}x{shape.intermediate_size}"
    operators = {**slow.operators, key: slow.operators["fp32"]}
    session.machine.path.write_text(replace(slow, operators=operators).to_json())
    return session


def plan(session: Session, text: str) -> str:
    return "\n".join(str(line) for line in session.query(text).arrow().column(0).to_pylist())


def test_explain_says_what_a_query_will_take(small: FakeSession) -> None:
    text = plan(small, f"EXPLAIN {GENERATE} WITH max_tokens = 8")
    assert "rows 30 → 20 distinct" in text
    assert "predicted " in text and "rows/s · latency p95 " in text and "MiB" in text
    assert "-- considered " in text
    assert "next best: " not in text  # what takes as long is no other plan
    assert "-- hardware: cpu (2 cores) · fake" in text
    assert small.asked == []


@pytest.mark.parametrize(
    ("bound", "how"),
    [
        ("latency < 1h", "met with batch"),
        ("ttft p50 < 1h", "met with batch"),
        ("deadline < 10h", "met"),
        ("throughput > 0.001 rows/s", "met"),
        ("memory < 1 GiB", "KV slots"),
        ("quality >= 0.99", "only answer-preserving"),
        ("budget < 500 tokens", "of the rows"),
    ],
)
def test_explain_says_how_each_bound_is_met(small: FakeSession, bound: str, how: str) -> None:
    text = plan(small, f"EXPLAIN {GENERATE} WITH {bound}")
    line = next(line for line in text.splitlines() if line.startswith("-- bound "))
    assert line.startswith(f"-- bound {bound.split(' p50')[0]}") and how in line


@pytest.mark.parametrize(
    ("prefix", "bound"),
    [
        ("", "latency < 1ms"),
        ("", "deadline < 1ms"),
        ("", "throughput > 1000000 rows/s"),
        ("", "memory < 1KB"),
        ("EXPLAIN ", "deadline < 1ms"),
        ("EXPLAIN ANALYZE ", "latency < 1ms"),
    ],
)
def test_what_no_plan_keeps_fails_before_any_call(small: FakeSession, prefix: str, bound: str) -> None:
    with pytest.raises(PlanError) as caught:
        small.query(f"{prefix}{GENERATE} WITH {bound}").arrow()
    message = caught.value.message
    assert message.startswith(f"no plan meets {bound.split()[0]}") and "nearest: fp32" in message
    assert "meet it with: " in message
    assert _blamed(caught.value) == bound
    assert small.asked == []


def test_a_pinned_precision_without_proof_is_told_from_a_bad_one(small: FakeSession) -> None:
    text = f"{GENERATE} WITH quality >= 0.9, kv_cache = 'bf16'"
    with pytest.raises(PlanError, match="nothing is proven: 30 rows are too few") as caught:
        small.query(text).arrow()
    assert "meet it with: kv_cache left out" in caught.value.message and "quality >= 0\n" not in caught.value.message
    assert _blamed(caught.value) == "quality >= 0.9"


def _blamed(error: DqlError) -> str:
    """The text that an error points at."""
    assert error.text is not None and error.span is not None
    return error.text[slice(*error.span)]


def test_best_effort_runs_the_nearest_plan_and_says_so(small: FakeSession) -> None:
    contract = "WITH latency < 1ms, best_effort = true"
    assert "not met" in plan(small, f"EXPLAIN {GENERATE} {contract}")
    assert len(small.query(f"{GENERATE} {contract}")) == ROWS


@pytest.mark.parametrize(
    "setting",
    ["quantization = 'int8'", "kv_cache = 'fp8'", "devices = 2", "tensor_parallel = 2", "pipeline_parallel = 4"],
)
def test_settings_that_no_engine_here_has_are_named(small: FakeSession, setting: str) -> None:
    with pytest.raises(UnsupportedError, match=setting.split()[0]) as caught:
        small.query(f"{GENERATE} WITH {setting}").arrow()
    assert _blamed(caught.value) == setting
    assert small.asked == []


def test_what_set_pins_is_shown_and_taken_back(small: FakeSession) -> None:
    small.query("SET batch_size = 4")
    small.query("SET max_tokens = 8")
    text = plan(small, f"EXPLAIN {GENERATE} WITH max_tokens = 6")
    assert "batch 4 (pinned)" in text and "-- set: batch_size = 4" in text
    assert "-- pinned: max_tokens = 6" in text and "max_tokens = 8" not in text
    small.query("SET quantization = 'int8'")
    with pytest.raises(UnsupportedError) as caught:
        small.query(f"EXPLAIN {GENERATE}")
    assert "RESET quantization" in str(caught.value.hint)


def test_a_cost_bound_needs_a_price(small: FakeSession) -> None:
    with pytest.raises(ConfigError, match="needs a price"):
        small.query(f"{GENERATE} WITH cost < 1 USD").arrow()


def test_a_budget_stops_the_run_and_keeps_what_is_finished(tmp_path: Path, model_file: Path) -> None:
    tables = {"t": pa.table({"body": [f"text number {i}" for i in range(ROWS)]})}
    with Session(config=Config(home=tmp_path, model=str(model_file))) as session:
        result = session.query(f"{GENERATE} WITH budget < 200 tokens, max_tokens = 4", tables=tables)
        assert 0 < len(result) < ROWS and not result.interrupted
        assert result.stats().tokens_prefilled + result.stats().tokens_decoded <= 200
        line = plan(session, f"EXPLAIN ANALYZE {GENERATE} WITH budget < 200 tokens, max_tokens = 4")
        assert "-- bound budget < 200 tokens" in line and ": kept" in line
        none = session.query(f"{GENERATE} WITH budget < 5 tokens")
        assert len(none) == 0 and none.columns == ["body", "said"]


def test_analyze_runs_and_prints_measured_beside_predicted(small: FakeSession) -> None:
    text = plan(small, f"EXPLAIN ANALYZE {GENERATE} WITH latency < 1h, deadline < 1h")
    assert "measured  " in text and "rows 30 → 20 distinct" in text and "the run took" in text
    assert text.count(": kept") == 2
    assert len(small.asked) == 20


def test_stats_and_summary_tell_promised_from_measured(small: FakeSession) -> None:
    bounds = ("latency < 1h", "ttft < 1h", "tpot < 1h", "deadline < 1h", "throughput > 0.001 rows/s")
    result = small.query(f"{GENERATE} WITH {', '.join(bounds)}")
    promises = result.stats().promises
    assert [str(p.bound) for p in promises] == list(bounds)
    assert all(p.kept and p.predicted is not None for p in promises)
    lines = summary(result)
    assert all(any(line.startswith(f"{bound}: predicted ") for line in lines) for bound in bounds)


def test_json_has_the_same_facts(small: FakeSession) -> None:
    found = json.loads(plan(small, f"EXPLAIN (FORMAT json) {GENERATE} WITH latency < 1h, batch_size = 4"))
    (call,) = found["calls"].values()
    assert call["statistics"]["rows"] == ROWS and call["placement"]["max_rows"] == 4
    assert found["pinned"] == {"batch_size": 4} and found["bounds"][0]["bound"] == "latency < 1h"
    assert found["predicted"]["seconds"] > 0 and found["nodes"][0]["node"] == "GENERATE said"


def test_what_is_drawn_or_told_is_priced(small: FakeSession) -> None:
    """As much dearer as the machine's head is then."""
    figures, factors = from_json(small.machine.path.read_text()), {"told": 2.0, "drawn": 4.0}
    curves = {name: Curve(((1.0, factor),)) for name, factor in factors.items()}
    operators = {key: replace(found, **curves) for key, found in figures.operators.items()}
    small.machine.path.write_text(replace(figures, operators=operators).to_json())

    def seconds(options: str) -> float:
        text = f"EXPLAIN (FORMAT json) SELECT AI_GENERATE('Say {{id}}', max_tokens => 8{options}) AS a FROM t"
        return float(json.loads(plan(small, text))["predicted"]["seconds"])

    assert seconds("") < seconds(", details => true") < seconds(", temperature => 0.5, seed => 1")


def test_candidates_are_a_table(small: FakeSession) -> None:
    rows = small.query(f"EXPLAIN (CANDIDATES) {GENERATE} WITH latency < 1ms").arrow()
    assert rows.num_rows > 10 and "nearest" in rows.column("verdict")[0].as_py()
    assert {"seconds", "latency_p95", "memory_bytes", "usd", "quality"} <= set(rows.column_names)


def test_other_hardware_is_planned_for(small: FakeSession) -> None:
    text = plan(small, f"EXPLAIN (ON 'h100:8') {GENERATE}")
    assert "bf16 weights" in text and "h100:8 · datasheet figures" in text and "USD" in text
    with pytest.raises(ConfigError, match="no hardware profile"):
        small.query(f"EXPLAIN (ON 'h9') {GENERATE}").arrow()
    with pytest.raises(BindError, match="runs here"):
        small.query(f"EXPLAIN ANALYZE (ON 'h100') {GENERATE}").arrow()


def test_a_machine_is_sized_for_rows_that_are_not_here(small: FakeSession) -> None:
    """A hundred million rows like the thirty: hours and dollars on one machine and on another."""
    query = f"{GENERATE} WITH max_tokens = 8"
    texts = {on: plan(small, f"EXPLAIN (ON '{on}', ROWS 100_000_000) {query}") for on in ("l40s", "h100:8")}
    for text in texts.values():
        assert "rows ≈ 100,000,000 → ≈ " in text and "USD" in text
    more, here = (plan(small, f"EXPLAIN ({option}) {query}") for option in ("ROWS 3000", "ROWS 30"))
    assert "rows ≈ 3,000 → ≈ " in more and "≈ 30 → ≈ 20" in here
    with pytest.raises(BindError, match="whole number"):
        plan(small, f"EXPLAIN (ROWS 0.5) {query}")
    with pytest.raises(BindError, match="runs here"):
        plan(small, f"EXPLAIN ANALYZE (ROWS 5) {query}")


@pytest.mark.parametrize(("name", "error"), [("html", UnsupportedError), ("yaml", BindError)])
def test_formats_that_do_not_exist(small: FakeSession, name: str, error: type[DqlError]) -> None:
    with pytest.raises(error, match=f"(?i){name}"):
        small.query(f"EXPLAIN (FORMAT {name}) {GENERATE}").arrow()


def test_what_cannot_be_counted_is_said(small: FakeSession) -> None:
    query = "SELECT AI_GENERATE('Say {said}') AS again FROM (GENERATE 'Say {body}' AS said FROM t) WITH latency < 1h"
    text = plan(small, f"EXPLAIN {query}")
    assert "depend on the inference below" in text
    small.query("CREATE SEQUENCE numbers")
    for call in ("nextval('numbers')", "NextVal ('numbers')"):
        text = plan(small, f"EXPLAIN SELECT AI_GENERATE('Say {{n}}') FROM (SELECT {call} AS n)")
        assert "changes state" in text


def test_calls_above_others_are_guessed_and_refuse_nothing(small: FakeSession) -> None:
    query = "SELECT AI_GENERATE('Answer {body}') AS said FROM t WHERE AI_FILTER('{body} has a number') AND id > 9"
    text = plan(small, f"EXPLAIN {query}")
    assert "rows ≈ 10 → ≈ 10 distinct" in text and "guessed" in text and text.count("predicted ") == 2
    small.query(query).arrow()  # every text has one: the next plan knows that all rows pass
    assert "rows ≈ 20 → ≈ 20 distinct" in plan(small, f"EXPLAIN {query}")
    assert "changed" in plan(small, f"EXPLAIN ANALYZE {query}")


def test_counts_hold_as_long_as_the_rows_do(small: FakeSession, tmp_path: Path) -> None:
    def rows(source: str) -> str:
        text = plan(small, f"EXPLAIN SELECT AI_GENERATE('Say {{body}}') AS a FROM {source}")
        return next(line for line in text.splitlines() if "distinct" in line)

    small.query("CREATE TABLE u AS SELECT 'text ' || i AS body FROM range(10) r(i)").arrow()
    small.query(f"COPY (SELECT body FROM u) TO '{tmp_path}/u.parquet'").arrow()
    for source in ("u", f"'{tmp_path}/u.parquet'"):
        assert "rows 10 → 10 distinct" in rows(source) and rows(source) == rows(source)
    small.query("UPDATE u SET body = 'text' WHERE body > 'text 5'").arrow()
    assert "rows 10 → 7 distinct" in rows("u")
    small.query(f"COPY (SELECT body FROM u LIMIT 3) TO '{tmp_path}/u.parquet'").arrow()
    assert "rows 3 → 3 distinct" in rows(f"'{tmp_path}/u.parquet'")


@pytest.mark.parametrize(("doubtful", "pays"), [(0.1, True), (0.8, False)])
def test_a_cascade_that_does_not_pay_is_given_up(small: FakeSession, doubtful: float, pays: bool) -> None:
    """Its models are of one size: it takes a tenth longer than the last one alone, or four fifths."""
    texts = [f"{'perhaps ' * (i % 10 < 10 * doubtful)}a bug {i}" for i in range(600)]
    small.catalog.register("texts", pa.table({"body": texts}))
    query = "SELECT AI_FILTER('{body} mentions a bug') AS f FROM texts USING CASCADE (other, 'MODEL')"
    query = query.replace("MODEL", small.model)
    assert "the run calibrates" in plan(small, f"EXPLAIN {query}")
    small.query(query).arrow()
    text = plan(small, f"EXPLAIN {query}")
    given_up = "answers all rows: to ask others first costs more than it spares"
    assert (given_up in text) != pays and ("are those of" in text) == pays
    before = len(small.asked)
    small.query(query).arrow()
    assert len(small.asked) - before == (600 * 1.1 if pays else 600)


def test_an_endless_input_is_planned_for_by_its_first_rows(small: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dql.estimate.BUDGET", 0.02)
    text = plan(small, "EXPLAIN SELECT AI_GENERATE('Say {i}') AS said FROM range(10_000_000_000_000) r(i)")
    assert "rows ≥ " in text
    bounded = "EXPLAIN SELECT AI_SCORE('{i}', 0, 9) AS s FROM range(10_000_000_000_000) r(i) WITH deadline < 9h"
    assert "met by the rows that were counted" in plan(small, bounded)


def test_what_a_sample_misses_of_a_join_is_told_apart_by_the_database(
    small: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rows of a join hold one of its sides again and again, and little of the other."""
    monkeypatch.setattr("dql.counting.count_calls", lambda node, asked, stream, _: count_calls(node, asked, stream, 0))
    monkeypatch.setattr("dql.estimate.BUDGET", 20.0)  # for telling rows apart
    calls = "AI_SCORE('{a.body}', 0, 9) AS one, AI_SCORE('{b.text}', 0, 9) AS two"
    both = "t AS a, (SELECT 'text ' || nullif(i % 700, 0) AS text FROM range(2100) r(i)) AS b"
    text = plan(small, f"EXPLAIN SELECT {calls} FROM {both}")
    assert "rows ≈ 63,000 → ≈ 20 distinct" in text and "→ ≈ 699 distinct" in text


@pytest.mark.parametrize(
    ("setting", "said"), [("prefix_cache", "no prefix shared"), ("result_cache", "every row runs")]
)
def test_caches_can_be_switched_off(small: FakeSession, setting: str, said: str) -> None:
    text = plan(small, f"EXPLAIN ANALYZE {GENERATE} WITH {setting} = false")
    assert f"{said} (pinned)" in text and f"pinned: {setting} = false" in text
    assert len(small.asked) == (30 if setting == "result_cache" else 20)


def test_runs_are_kept_and_teach_lengths(small: FakeSession) -> None:
    before = plan(small, f"EXPLAIN {GENERATE}")
    small.query(f"{GENERATE} WITH deadline < 1h").arrow()
    (run,) = small.query("SHOW RUNS").arrow().to_pylist()
    assert run["rows"] == ROWS and run["bounds"] == "deadline < 1h: kept" and run["predicted_seconds"] > 0
    assert GENERATE in run["query"]
    assert plan(small, f"EXPLAIN {GENERATE}") != before


def test_what_cannot_be_learned_from_stops_no_query(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a torn history, nor a profile that can be neither read nor written."""
    session.catalog.register("t", pa.table({"body": ["one", "two"]}))
    monkeypatch.setattr("dql.estimate._WORTH_MEASURING", 0.0)
    session.config.runs_file.parent.mkdir(parents=True, exist_ok=True)
    session.config.runs_file.write_bytes(b"no database" * 100)
    session.machine.path.mkdir(parents=True)
    assert session.query(GENERATE).arrow().num_rows == 2
    assert plan(session, "SHOW RUNS") == ""
    said = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert said.count("nothing is learned from earlier runs") == 1
    assert said.count("the profile of this machine is not kept") == 1


def test_hardware_lists_this_machine_first(small: FakeSession) -> None:
    rows = small.query("SHOW HARDWARE").arrow().to_pylist()
    assert rows[0]["here"] and rows[0]["source"] == "measured"
    assert {"h100", "h200", "a100-80", "l40s", "rtx4090", "cpu-8"} <= {row["name"] for row in rows}


def test_residuals_are_the_median_of_recent_calls(tmp_path: Path) -> None:
    history = History(tmp_path / "deep" / "runs.db")
    assert history.factor("m", "h", decodes=True) == 1.0 and history.outputs("t") is None and history.runs() == []
    for modelled, seconds in ((10 / 1.5, 10.0), (1.0, 30.0), (8.0, 12.0), (0.1 / 1.5, 0.1), (0.9, 20.0), (0.1, 3.9)):
        call = CallRecord("t", "m", "h", True, modelled, seconds, 20, (1.0, seconds))
        history.record(
            RunRecord("q", "m", "h", "", 20, 0, 1.0, 0.1, seconds, [("latency < 1s", 1.0, 2.0, False)], [call])
        )
    assert history.factor("m", "h", decodes=True) == pytest.approx(1.5)
    assert history.factor("m", "h", decodes=False) == history.factor("m", "other", decodes=True) == 1.0
    assert history.outputs("t") == (1.0, 3.9)
    assert [run.seconds for run in history.runs(2)] == [3.9, 20.0]
    assert history.runs()[0].bounds == [("latency < 1s", 1.0, 2.0, False)]


def test_later_steps_of_a_filter_are_guessed_from_earlier_ones(small: FakeSession) -> None:
    query = (
        "SELECT AI_GENERATE('On {body}') AS a FROM t WHERE AI_FILTER('{body} is odd') AND AI_FILTER('{body} is red')"
    )
    text = plan(small, f"EXPLAIN {query}")
    assert "rows 30 → 20 distinct" in text and "rows ≈ 15 → ≈ 15 distinct" in text and "rows ≈ 8 → ≈ 8 distinct" in text


@pytest.mark.parametrize(("rows", "room", "measures"), [(2, None, 0), (20_000, None, 1), (2, 2, 1), (2, 50, 0)])
def test_the_machine_is_measured_where_that_pays(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch, rows: int, room: float | None, measures: int
) -> None:
    """A tiny table is not worth seconds of calibration; a long job is, and a bound near to what typical figures say."""
    calls = []

    def measure(base: Hardware, shape: ModelShape, *, thorough: bool, progress: Progress | None) -> Hardware:
        calls.append(shape)
        return replace(base, source="measured")

    slow = replace(session.machine.hardware(), peak={"fp32": 2e7})
    monkeypatch.setattr(session.machine, "hardware", lambda: slow)
    monkeypatch.setattr(session.runtime, "measure", measure)
    session.catalog.register("u", pa.table({"body": [f"text {i}" for i in range(rows)]}))
    query = "SELECT AI_FILTER('{body} is odd') AS a FROM u"
    if room is not None:
        typical = json.loads(plan(session, f"EXPLAIN (FORMAT json) {query}"))["predicted"]["latency"]["p95"]
        query += f" WITH latency < {1e3 * room * typical:.3f}ms"
    plan(session, f"EXPLAIN {query}")
    assert len(calls) == measures


def test_a_deadline_counts_what_is_measured_before_the_run(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whether a plan keeps it, in what is predicted of it and in what was measured; of a plan alone it does not."""
    clock = [0.0]

    def measure(base: Hardware, shape: ModelShape, *, thorough: bool, progress: Progress | None) -> Hardware:
        clock[0] += 1000.0
        return replace(base, source="measured")

    slow = replace(session.machine.hardware(), peak={"fp32": 2e7})
    monkeypatch.setattr(session.machine, "hardware", lambda: slow)
    monkeypatch.setattr(session.runtime, "measure", measure)
    monkeypatch.setattr("dql.machine.perf_counter", lambda: clock[0])
    session.catalog.register("u", pa.table({"body": [f"text {i}" for i in range(200)]}))
    query = "SELECT AI_FILTER('{body} is odd') AS a FROM u"
    alone = float(json.loads(plan(session, f"EXPLAIN (FORMAT json) {query}"))["predicted"]["seconds"])
    bound = f"WITH deadline < {3 * alone:.3f}s"
    with pytest.raises(PlanError, match="17 min of it for what was measured before the run"):
        session.query(f"{query} {bound}")
    assert "before the run" not in plan(session, f"EXPLAIN {query} {bound}") and not session.asked
    text = plan(session, f"EXPLAIN ANALYZE {query} {bound.replace('deadline', 'best_effort = true, deadline')}")
    assert "measured 17 min: missed" in text


@pytest.mark.parametrize("target", ["INTO '{path}'", ""])
def test_a_statement_that_its_budget_stopped_goes_on_where_it_is_run_again(
    tmp_path: Path, model_file: Path, target: str
) -> None:
    tables = {"t": pa.table({"body": [f"text number {i}" for i in range(ROWS)]})}
    path = tmp_path / "said.parquet"
    text = f"{GENERATE} WITH max_tokens = 4, BUDGET {target.format(path=path)}"
    asked: list[int] = []

    def run(budget: str) -> list[object]:
        with Session(config=Config(home=tmp_path / "home", model=str(model_file))) as session:  # another process
            result = session.query(text.replace("BUDGET", budget), tables=tables)
            rows = result.arrow() if not target else pq.read_table(path)
            asked.append(result.stats().tokens_prefilled + result.stats().tokens_decoded)
            assert any("run again" in line for line in result.stats().changes) == (rows.num_rows < ROWS)
            return list(rows.column("said").to_pylist())

    whole = run("budget < 100000 tokens")
    once = asked[0]
    parts = [run("budget < 200 tokens")]
    while len(parts[-1]) < ROWS:
        parts.append(run("budget < 200 tokens"))
        assert len(parts[-1]) > len(parts[-2])
    assert len(parts) > 2 and parts[-1] == whole
    assert all(part == whole[: len(part)] for part in parts)
    assert max(asked[1:]) <= 200 and sum(asked[1:]) <= once * 1.5  # what all prompts begin with is computed anew
    assert not list((tmp_path / "home" / "unfinished").glob("*"))
