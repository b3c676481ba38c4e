"""The shell's history file: private to the user, and never told a secret."""

import os
import re
from pathlib import Path

from prompt_toolkit.history import FileHistory

_SECRET = re.compile(
    r"""create\s+(?:or\s+replace\s+)?(?:persistent\s+|temporary\s+)?secret
      |\b\w*(?:secret|passw(?:or)?d|token|api_?key|access_?key|credential)\w*(?:\s*(?:=>?|:)\s*|\s+(?:to\s+)?)'[^']
      |://[^\s/:@']+:[^\s/@']+@
      |\b(?:hf_|sk-|gh[pousr]_|github_pat_|xox[abp]-|AKIA|AIza)[\w-]{12,}
      |-----BEGIN[ ]""",
    re.VERBOSE | re.IGNORECASE,
)


def holds_secret(text: str) -> bool:
    """Whether a statement looks as if it held a password, key or token."""
    return _SECRET.search(text) is not None


class PrivateHistory(FileHistory):
    """History in a file that only its owner may read; statements with secrets are kept for this session alone."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        path.chmod(0o600)
        super().__init__(path)

    def store_string(self, string: str) -> None:
        """Append to the file, but for secrets."""
        if not holds_secret(string):
            super().store_string(string)
