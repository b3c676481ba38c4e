"""A batch job: read a file, write a file. The target appears whole when the job is done, or not at all."""

import tempfile
from pathlib import Path

import dql

tickets = Path(__file__).parent / "data" / "tickets.csv"
target = Path(tempfile.gettempdir()) / "headlines.parquet"

done = dql.query(
    f"""
    GENERATE 'Write a headline of at most eight words for this message: {{body}}' AS headline
    FROM     (SELECT id, body FROM '{tickets}' WHERE priority = 'urgent')
    WITH     max_tokens = 16
    INTO     '{target}'
    """
)
done.show()
dql.query(f"SELECT id, headline FROM '{target}' ORDER BY id").show()
