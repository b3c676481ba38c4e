"""EXPLAIN says what will run, over how many rows, and which rewrites saved work; no model is called."""

from pathlib import Path

import dql

tickets = str(Path(__file__).parent / "data" / "tickets.csv")

query = dql.query(
    f"""
    SELECT id, AI_GENERATE('Summarise in one sentence: {{body}}') AS summary
    FROM '{tickets}'
    WHERE AI_FILTER('{{body}} asks for a refund') AND topic = 'billing'
    LIMIT 5
    WITH max_tokens = 32
    """
)
print(query.explain())
