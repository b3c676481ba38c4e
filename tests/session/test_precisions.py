"""Precisions under a quality bound: chosen where the user's own rows prove that the answers stay, else not."""

import json
import re

import pyarrow as pa
import pytest

from dql.errors import PlanError, UnsupportedError
from dql.session import Session
from tests.fake_session import CHOSEN, FakeSession, NoHistory, quick_below

ROWS = 2000
QUERY = "SELECT AI_FILTER('{body} mentions bug') AS f FROM t WITH quality >= 0.95"


@pytest.fixture
def quick(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    """A session on a machine that runs bf16 three times as fast; in bf16 some rows of `t` are answered otherwise.

    Asking about a sample takes nothing of a deadline, however busy the machine.
    """
    monkeypatch.setattr("dql.executor.evidence.perf_counter", lambda: 0.0)
    quick_below(session, "bf16")
    session.history = NoHistory(session.config.runs_file)
    table(session, 0)
    return session


def table(session: Session, different: int) -> None:
    """A table of which so many rows are answered otherwise in bf16."""
    texts = [f"a bug {'roughly ' if i < different else ''}{i}" for i in range(ROWS)]
    session.catalog.register("t", pa.table({"body": texts}))


def plan(session: Session, text: str) -> str:
    return "\n".join(str(line) for line in session.query(text).arrow().column(0).to_pylist())


def test_the_first_rows_of_an_endless_input_are_not_all_there_are(
    quick: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few to prove a bound on are only rows of which it is known that no more follow."""
    monkeypatch.setattr("dql.estimate.BUDGET", 0.02)
    endless = QUERY.replace("body", "i").replace("FROM t", "FROM range(10_000_000_000_000) r(i)")
    text = plan(quick, f"EXPLAIN {endless.replace('0.95', '0.999')}, quantization = 'bf16'")
    assert "the run tests bf16 against fp32" in text


def test_a_precision_is_taken_once_it_is_proven(quick: FakeSession) -> None:
    text = plan(quick, f"EXPLAIN {QUERY}")
    assert "the run tests bf16 against fp32 on 92 random rows or more" in text and quick.asked == []
    text = plan(quick, f"EXPLAIN ANALYZE {QUERY}")
    assert "bf16 weights" in text and "bf16 agrees with fp32 on 92 of 92 random rows, at least 0.95" in text
    assert "at 97.5 %; fp32 differs from itself in another batch on 0 of 64; KL divergence 0 nats per answer" in text
    before = len(quick.asked)
    assert quick.query(QUERY).arrow()["f"].to_pylist() == [True] * ROWS
    assert len(quick.asked) - before == ROWS


def test_the_reference_answers_what_was_sampled_and_is_not_asked_twice(quick: FakeSession) -> None:
    plan(quick, f"EXPLAIN ANALYZE {QUERY}")
    assert len(quick.asked) == ROWS + 92 + 64  # once each, the sample by both, the noise floor


def test_a_precision_that_changes_answers_is_not_taken(quick: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fake_session.DOUBTFUL", CHOSEN)  # and is as sure of them as of others
    table(quick, ROWS // 4)
    text = plan(quick, f"EXPLAIN ANALYZE {QUERY}")
    assert "fp32 weights" in text and "fp32 answers" in text and "bf16 agrees with fp32 on " in text
    assert quick.query(QUERY).arrow()["f"].to_pylist() == [True] * ROWS


@pytest.mark.slow
def test_every_call_must_keep_the_bound(quick: FakeSession) -> None:
    table(quick, ROWS // 4)
    both = QUERY.replace("FROM t", ", AI_FILTER('{body} mentions {body}') AS g, AI_SCORE(body, 1, 5) AS s FROM t")
    assert "fp32 weights" in plan(quick, f"EXPLAIN ANALYZE {both}")


@pytest.mark.slow
def test_calls_above_a_filter_are_tested_on_what_it_lets_through(quick: FakeSession) -> None:
    query = "SELECT AI_CLASSIFY(body, ['bug', 'praise']) AS c FROM t WHERE AI_FILTER('{body} mentions bug')"
    text = plan(quick, f"EXPLAIN ANALYZE {query} WITH quality >= 0.9")
    assert text.count("bf16 weights") == 2 and text.count("bf16 on ") == 2
    texts = [f"{'roughly ' if i % 2 else ''}praise {'of a bug' if i % 2 else ''} {i} bug" for i in range(ROWS)]
    quick.catalog.register("t", pa.table({"body": texts}))
    assert "fp32 weights" in plan(quick, f"EXPLAIN ANALYZE {query} WITH quality >= 0.9")


def test_a_guess_of_few_rows_above_a_filter_refuses_no_test(quick: FakeSession) -> None:
    """Half of the rows are thought to pass, a tenth of which would prove nothing; all of them do."""
    quick_below(quick, "bf16", times=100)
    quick.catalog.register("t", pa.table({"body": [f"a bug {i}" for i in range(ROWS // 2)]}))
    query = "SELECT AI_CLASSIFY(body, ['bug', 'praise']) AS c FROM t WHERE AI_FILTER('{body} mentions bug')"
    assert " on 0 random rows" not in plan(quick, f"EXPLAIN {query} WITH quality >= 0.95")
    text = plan(quick, f"EXPLAIN ANALYZE {query} WITH quality >= 0.95")
    assert text.count("agrees with fp32 on 92 of 92 random rows") == text.count("bf16 weights") == 2


def test_an_operand_is_tested_on_the_rows_that_those_before_it_let_through(quick: FakeSession) -> None:
    """In bf16 the second is wrong about every row that the first lets through, and about no other."""
    kinds = ["a bug" if i % 10 == 0 else "praise" for i in range(ROWS)]
    texts = [f"a bug {'roughly ' if kind == 'a bug' else ''}{i}" for i, kind in enumerate(kinds)]
    quick.catalog.register("t", pa.table({"kind": kinds, "body": texts}))
    query = "SELECT body FROM t WHERE AI_FILTER('{kind} mentions bug') AND AI_FILTER('{body} mentions bug')"
    assert "bf16 on AI_FILTER agrees with fp32 on 0 of " in plan(quick, f"EXPLAIN ANALYZE {query} WITH quality >= 0.8")
    assert len(quick.query(f"{query} WITH quality >= 0.8")) == ROWS // 10


def test_nothing_is_tested_without_need(quick: FakeSession) -> None:
    assert "fp32 weights" in plan(quick, f"EXPLAIN ANALYZE {QUERY.split(' WITH')[0]}")
    quick.catalog.register("t", pa.table({"body": ["a bug"] * 40}))
    assert "fp32 weights" in plan(quick, f"EXPLAIN ANALYZE {QUERY}")
    assert len(quick.asked) == ROWS + 1


def test_the_reference_can_be_named(quick: FakeSession) -> None:
    named = QUERY.replace("0.95", "0.95 OF 'bf16' CONFIDENCE 0.9")
    text = plan(quick, f"EXPLAIN ANALYZE {named}")
    assert "bf16 weights" in text and "met: only answer-preserving choices are made" in text
    with pytest.raises(UnsupportedError, match="quality OF 'int4' cannot be measured on cpu"):
        quick.query(QUERY.replace("0.95", "0.95 OF 'int4'"))


def test_what_is_pinned_must_prove_itself_too(quick: FakeSession) -> None:
    pinned = f"{QUERY}, quantization = 'bf16'"
    assert "bf16 (pinned) weights" in plan(quick, f"EXPLAIN ANALYZE {pinned}")
    table(quick, ROWS // 4)
    with pytest.raises(PlanError, match=r"no plan meets quality >= 0\.95"):
        quick.query(pinned).arrow()


def test_a_pinned_cache_must_prove_itself_with_its_weights(quick: FakeSession) -> None:
    pinned = f"{QUERY}, kv_cache = 'bf16'"
    text = plan(quick, f"EXPLAIN ANALYZE {pinned}")
    assert "bf16 (pinned) KV" in text and re.search(r"with bf16 KV agrees with fp32 on (\d+) of \1 random rows", text)
    table(quick, ROWS // 4)
    with pytest.raises(PlanError, match=r"no plan meets quality >= 0\.95"):
        quick.query(pinned).arrow()


def test_a_bound_on_speed_that_only_a_proof_can_keep(quick: FakeSession) -> None:
    (found,) = quick.query(f"EXPLAIN (FORMAT json) {QUERY}").arrow().column(0).to_pylist()
    seconds = json.loads(found)["predicted"]["seconds"] * 0.8
    tight = f"{QUERY}, deadline < {seconds:.3f}s"
    assert "bf16 weights" in plan(quick, f"EXPLAIN {tight}")
    assert "bf16 weights" in plan(quick, f"EXPLAIN ANALYZE {tight}")
    table(quick, ROWS // 4)
    with pytest.raises(PlanError, match="no plan meets deadline"):
        quick.query(tight).arrow()


@pytest.mark.slow
def test_free_text_is_compared_token_by_token_where_that_is_asked_for(quick: FakeSession) -> None:
    """One token of a dozen or two is another one in some rows: too many for whole answers, few enough for tokens."""
    table(quick, ROWS // 4)
    text = "SELECT AI_GENERATE('{body} and so on and so forth') AS g FROM t WITH quality"
    assert "fp32 weights" in plan(quick, f"EXPLAIN ANALYZE {text} >= 0.95")
    explained = plan(quick, f"EXPLAIN ANALYZE {text} token >= 0.95")
    assert "bf16 weights" in explained and re.search(r"bf16 ranks 0\.9[789]\d* of fp32's tokens first", explained)
    assert (found := re.search(r"KL divergence (0\.\d+) nats per token", explained)) and 0 < float(found[1]) < 1
    assert found[0] in plan(quick, f"EXPLAIN {text} token >= 0.95")  # kept with the certificate
    both = plan(quick, f"EXPLAIN ANALYZE {text} token >= 0.95, quality >= 0.6")
    assert "bf16 weights" in both and "bf16 agrees with fp32 on" in both
    assert "fp32 weights" in plan(quick, f"EXPLAIN ANALYZE {text} token >= 0.95, quality >= 0.9")


def test_tokens_are_compared_where_a_run_remembers_no_answers(quick: FakeSession) -> None:
    text = "SELECT AI_GENERATE('{body}') AS g FROM t WITH quality token >= 0.95, result_cache = false"
    assert "bf16 ranks 1 of fp32's tokens first" in plan(quick, f"EXPLAIN ANALYZE {text}")
