"""Inference is an expression, in SELECT and WHERE beside ordinary SQL; it runs only for rows that reach it."""

from pathlib import Path

import dql

tickets = str(Path(__file__).parent / "data" / "tickets.csv")

result = dql.query(
    f"""
    SELECT id, customer, AI_CLASSIFY(body, ['complaint', 'question', 'praise']) AS tone
    FROM '{tickets}'
    WHERE channel = 'chat' AND priority = 'high' AND AI_FILTER('The customer is waiting for a delivery: {{body}}')
    ORDER BY id
    """
)
result.show()
print(result.stats())
