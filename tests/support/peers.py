"""Other people's exporters, as Debian ships them, to hold ours against."""

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

NODE_EXPORTER = "/usr/bin/prometheus-node-exporter"


@contextlib.contextmanager
def node_exporter(*flags: str) -> Iterator[str]:
    """Run node_exporter for a while; gives the address of its metrics."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}", *flags],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        process.terminate()
        process.wait(5)


def fetch(url: str) -> str:
    """Get a page, as soon as its server listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310 - our own
                text: str = reply.read().decode()
                return text
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
