"""History is private, and secrets do not reach the file."""

import stat
from pathlib import Path

import pytest

from dql.repl.history import PrivateHistory, holds_secret

SECRETS = [
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE OR REPLACE PERSISTENT SECRET s (TYPE gcs)",
    "SET s3_secret_access_key = 'abc'",
    "SET hf_token='x'",
    "ATTACH 'postgres://ann:pw@host/db'",
    "SELECT 'hf_abcdefghijklmnop'",
    "SELECT 'AKIAABCDEFGHIJKLMNOP'",
    "SET password TO 'x'",
]
PLAIN = [
    "SELECT AI_FILTER('{body} is about a forgotten password') FROM tickets",
    "SELECT token_count FROM t WHERE secret IS NULL",
    "SELECT 'https://example.org/a:b'",
    "SET max_tokens = 12",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_seen(text: str) -> None:
    assert holds_secret(text)


@pytest.mark.parametrize("text", PLAIN)
def test_talk_of_secrets_is_none(text: str) -> None:
    assert not holds_secret(text)


def test_the_file_is_the_users_alone_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history"
    history = PrivateHistory(path)
    for text in [*PLAIN, *SECRETS]:
        history.append_string(text)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert history.get_strings() == [*PLAIN, *SECRETS], "this session remembers all"
    written = path.read_text()
    assert all(text in written for text in PLAIN) and not any(text in written for text in SECRETS)
