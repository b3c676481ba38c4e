"""One query through every face, on the real model and real rows: the same answers from each."""

import json
from pathlib import Path

import polars as pl
import pytest

import dql
from dql import cli
from tests.models.real import real_model

TICKETS = Path(__file__).parents[2] / "examples" / "data" / "tickets.csv"

QUERY = f"""
SELECT id,
       AI_CLASSIFY(body, ['billing', 'bug', 'feature', 'praise']) AS topic,
       AI_GENERATE('Name the product in one word: {{body}}', max_tokens => 4) AS product
FROM   '{TICKETS}'
WHERE  topic = 'billing' AND id < 1085 AND AI_FILTER('The customer wants a refund. {{body}}')
USING  smollm2"""


@pytest.mark.model
@pytest.mark.slow
def test_a_query_answers_alike_in_python_on_the_command_line_and_as_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real_model("smollm2")
    monkeypatch.chdir(tmp_path)
    with dql.connect() as session:
        python = session.query(QUERY).pl().to_dicts()
    assert cli.run(["--mode", "json", "-c", QUERY]) == 0
    command_line = json.loads(capsys.readouterr().out)
    Path("job.dql").write_text(f"{QUERY}\nINTO 'answers.parquet';")
    assert cli.run(["run", "job.dql"]) == 0
    job = pl.read_parquet("answers.parquet").to_dicts()
    assert len(python) >= 2 and all(row["topic"] and row["product"] for row in python)
    assert python == command_line == job
