"""A hub on the loopback interface that serves one folder as the repository org/name, as huggingface.co would."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c" * 40


class FakeHub:
    """What was asked of it; files in `broken` end half-way."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token: str | None = None  # requests must bring it where it is set
        self.broken: set[str] = set()
        self.fetched: list[str] = []
        self.url = ""


@contextmanager
def serve(folder: Path) -> Iterator[FakeHub]:
    """Serve a folder until the block ends."""
    hub = FakeHub(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def _answer(self, *, body: bool) -> None:
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            files = _contents(hub.folder)
            if hub.token is not None and self.headers["Authorization"] != f"Bearer {hub.token}":
                self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"}, b"", body)
            elif path.startswith("/api/models/org/name"):
                listed = [{"rfilename": name, "size": len(data)} for name, data in files.items()]
                info = {"id": "org/name", "sha": COMMIT, "siblings": listed, "private": False, "tags": []}
                self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode(), body)
            elif path.startswith("/org/name/resolve/") and name in files:
                digest = hashlib.sha256(files[name]).hexdigest()
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
                if body:
                    hub.fetched.append(name)
                self._send(200, headers, files[name], body, cut=name in hub.broken)
            else:
                self._send(404, {"X-Error-Code": "EntryNotFound"}, b"", body)

        def _send(self, status: int, headers: dict[str, str], data: bytes, body: bool, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
