"""details => true gives every answer with its confidence and runner-up: send the unsure ones to a person."""

from pathlib import Path

import polars as pl

import dql

tickets = str(Path(__file__).parent / "data" / "tickets.csv")

answers = dql.query(
    f"""
    SELECT id, AI_CLASSIFY(body, ['praise', 'complaint'], details => true) AS answer
    FROM '{tickets}' WHERE channel = 'chat'
    """
).pl()
unsure = answers.unnest("answer").filter(pl.col("confidence") < 0.7).sort("confidence")
print(unsure.select("id", "value", "confidence", "runner_up").head(5))
