"""Run Debian's Prometheus and Alertmanager for tests, on ports of their own."""

import contextlib
import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from narthex_exporter.transport.server import Listener, Server, listen_tcp
from rig import until


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def process(argv: Sequence[str | Path], url: str, log: Path) -> Iterator[str]:
    with log.open("wb") as file:
        running = subprocess.Popen(argv, stdout=file, stderr=file)
        try:
            until(lambda: _ready(url), seconds=20, what=f"{argv[0]} is ready")
            yield url
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as reply:  # noqa: S310
            return bool(reply.status == 200)
    except OSError:
        return False


@contextlib.contextmanager
def prometheus(folder: Path, config: dict[str, Any]) -> Iterator[str]:
    """Start Prometheus; gives its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    argv = (
        "prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    )  # fmt: skip
    with process(argv, f"http://127.0.0.1:{port}", folder / "prometheus.log") as url:
        yield url


@contextlib.contextmanager
def alertmanager(folder: Path, webhook_url: str) -> Iterator[str]:
    """Start Alertmanager, every alert sent on at once; gives its URL."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    file = folder / "alertmanager.yml"
    route = {"receiver": "operator", "group_by": ["..."], "group_wait": "0s",
             "group_interval": "1s", "repeat_interval": "1h"}  # fmt: skip
    hooks = [{"url": webhook_url, "send_resolved": True}]
    file.write_text(
        yaml.safe_dump(
            {"route": route, "receivers": [{"name": "operator", "webhook_configs": hooks}]}
        )
    )
    argv = (
        "prometheus-alertmanager", f"--config.file={file}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn",
    )  # fmt: skip
    with process(argv, f"http://127.0.0.1:{port}", folder / "alertmanager.log") as url:
        yield url


def post(url: str, document: Any) -> None:
    request = urllib.request.Request(  # noqa: S310 - our own URL
        url, json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as reply:  # noqa: S310
        reply.read()


@contextlib.contextmanager
def site(answer: Callable[[str, bytes], tuple[int, str, bytes]]) -> Iterator[str]:
    """Serve plain HTTP: ``answer`` gets path and body, gives status, media type and body."""

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if environ["QUERY_STRING"]:
            path += f"?{environ['QUERY_STRING']}"
        status, media, body = answer(path, environ["wsgi.input"].read())
        start(f"{status} Said", [("Content-Type", media), ("Content-Length", str(len(body)))])
        return [body]

    sock = listen_tcp("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    with Server(app=app, listeners=[Listener(sock=sock)]):
        yield url


class Machine:
    """Metrics of a pretended machine, true to a real one's names; they may be changed."""

    def __init__(self) -> None:
        self.down = False
        self.lock = threading.Lock()
        self.began = time.time()

    def answer(self, _path: str, _body: bytes) -> tuple[int, str, bytes]:
        if self.down:
            return 500, "text/plain", b"down"
        seconds = time.time() - self.began
        lines = [
            f"node_time_seconds {time.time()}",
            f"node_boot_time_seconds {self.began - 3600}",
            f'node_cpu_seconds_total{{cpu="0",mode="idle"}} {seconds * 0.75}',
            f'node_cpu_seconds_total{{cpu="0",mode="user"}} {seconds * 0.25}',
            'node_cpu_seconds_total{cpu="0",mode="iowait"} 0',
            "node_memory_MemTotal_bytes 1000",
            "node_memory_MemAvailable_bytes 400",
            "node_load1 0.5", "node_load5 0.4", "node_load15 0.3",
            'node_filesystem_size_bytes{device="/dev/a",fstype="ext4",mountpoint="/"} 1000',
            'node_filesystem_avail_bytes{device="/dev/a",fstype="ext4",mountpoint="/"} 900',
            'node_filesystem_size_bytes{device="/dev/b",fstype="ext4",mountpoint="/data"} 1000',
            'node_filesystem_avail_bytes{device="/dev/b",fstype="ext4",mountpoint="/data"} 200',
            'node_filesystem_size_bytes{device="t",fstype="tmpfs",mountpoint="/run"} 1000',
            'node_filesystem_avail_bytes{device="t",fstype="tmpfs",mountpoint="/run"} 1',
            f'node_network_receive_bytes_total{{device="eth0"}} {seconds * 1000}',
            f'node_network_transmit_bytes_total{{device="eth0"}} {seconds * 500}',
            f'node_network_receive_bytes_total{{device="lo"}} {seconds * 1e6}',
        ]  # fmt: skip
        return 200, "text/plain; version=0.0.4", ("\n".join(lines) + "\n").encode()
