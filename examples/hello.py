"""One query, one model, one row: text in, text out."""

import dql

result = dql.query(
    "GENERATE 'Write one sentence about why indexes make databases fast.' AS answer WITH max_tokens = 40"
)
result.show()
