"""An image registry on loopback, in memory: as much of the v2 protocol as push and pull need.

See https://distribution.github.io/distribution/spec/api/. Engines take loopback addresses without
TLS.
"""

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from typing_extensions import override

_UPLOAD = re.compile(r"/v2/(.+)/blobs/uploads/([0-9]*)$")
_BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})$")
_MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)$")


@dataclass
class Registry:
    """What it holds. ``slow`` makes layers trickle for as long as it is set."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    slow: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    port: int = 0


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    """Serve one for a while."""
    held = Registry()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(held))
    server.daemon_threads = True
    held.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield held
    finally:
        held.slow.clear()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(held: Registry) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one small protocol
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        @override
        def log_message(self, *args: Any) -> None:
            """Keep the test's output for the test."""

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", headers.pop("length", str(len(body))))
            self.end_headers()
            if self.command != "HEAD":
                self.pour(body)

        def pour(self, body: bytes) -> None:
            try:
                while held.slow.is_set() and len(body) > 4096:
                    self.wfile.write(body[:4096])
                    body = body[4096:]
                    time.sleep(0.05)
                self.wfile.write(body)
            except OSError:
                held.hung_up.set()
                self.close_connection = True

        def do_GET(self) -> None:
            if match := _BLOB.match(self.path):
                blob = held.blobs.get(match[2])
                return self.answer(404) if blob is None else self.answer(200, blob)
            if match := _MANIFEST.match(self.path):
                kind, body = held.manifests.get(f"{match[1]}:{match[2]}", ("", b""))
                if not body:
                    return self.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
                digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                return self.answer(200, body, Content_Type=kind, Docker_Content_Digest=digest)
            return self.answer(200 if self.path == "/v2/" else 404)

        def do_HEAD(self) -> None:
            return self.do_GET()

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") == "chunked":
                found = b""
                while size := int(self.rfile.readline().strip() or b"0", 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_POST(self) -> None:
            name = self.path.split("/blobs/")[0]
            id_ = str(len(held.uploads))
            held.uploads[id_] = bytearray()
            self.body()
            self.answer(202, Location=f"{name}/blobs/uploads/{id_}", Range="0-0")

        def do_PATCH(self) -> None:
            match = _UPLOAD.match(self.path)
            assert match is not None
            held.uploads[match[2]] += self.body()
            end = len(held.uploads[match[2]]) - 1
            self.answer(202, Location=self.path, Range=f"0-{end}")

        def do_PUT(self) -> None:
            body = self.body()
            path, _, query = self.path.partition("?")
            if match := _MANIFEST.match(path):
                digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
                kind = self.headers["Content-Type"]
                for name in (match[2], digest):
                    held.manifests[f"{match[1]}:{name}"] = kind, body
                return self.answer(201, Docker_Content_Digest=digest)
            match = _UPLOAD.match(path)
            assert match is not None
            held.uploads[match[2]] += body
            digest = query.partition("digest=")[2].replace("%3A", ":")
            held.blobs[digest] = bytes(held.uploads[match[2]])
            return self.answer(201, Docker_Content_Digest=digest)

    return Handler
