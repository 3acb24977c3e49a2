"""Runs log shippers and the bad networks they meet."""

import contextlib
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from narthex_exporter.logs.config import load_logs_config
from narthex_exporter.logs.metrics import METRICS
from narthex_exporter.logs.shipper import Shipper
from narthex_exporter.transport.server import Limits, Listener, Server, listen_tcp
from narthex_exporter.transport.tls import ContextSource


@contextlib.contextmanager
def shipping(folder: Path, url: str, **more: Any) -> Iterator[Shipper]:
    """Ship the ``*.log`` files of a folder."""
    file = folder / "logs.yml"
    given = {"journal": False, "default_files": False, "files": [f"{folder}/*.log"]}
    given |= more.pop("config", {})
    file.write_text(json.dumps(given))
    shipper = Shipper(
        config=load_logs_config(file),
        spool=more.pop("spool", folder / "spool.sqlite3"),
        push_url=url,
        labels={"node": "n1"},
        poll_seconds=0.02,
        degraded_seconds=0.2,
        **more,
    )
    shipper.start()
    try:
        yield shipper
    finally:
        shipper.stop()


def metrics(shipper: Shipper) -> dict[str, float]:
    """Give the sum of each of the shipper's metrics, by its name without prefix."""
    found = {_plain(metric.name): 0.0 for metric in METRICS}
    for sample in shipper.samples():
        found[_plain(sample.metric.name)] += sample.value
    return found


def _plain(name: str) -> str:
    return name.removeprefix("narthex_logship_").removesuffix("_total")


def until(look: Callable[[], Any], seconds: float = 15.0) -> Any:
    """Look again until there is something to see."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)
    return found


@dataclass
class Proxy:
    """Stand before a store; refuse some requests, lose some replies."""

    target: str
    refuse: float = 0.0
    lose: float = 0.0
    status: int = 503
    away: bool = False
    limit_bytes: int = 1 << 30
    requests: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    peers: set[Any] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(7)  # noqa: S311
        self.session = requests.Session()
        self.session.trust_env = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.requests += 1
        peer = environ["narthex.peer"]
        self.peers.add(peer.uri if peer else None)
        if self.away or self.random.random() < self.refuse:
            start(f"{self.status} Refused", [("Content-Length", "2"), *self.headers])
            return [b"no"]
        body = environ["wsgi.input"].read()
        if len(body) > self.limit_bytes:
            start("413 Too Large", [("Content-Length", "0")])
            return []
        reply = self.session.post(
            self.target + environ["PATH_INFO"],
            data=body,
            headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
            timeout=10,
        )
        if self.random.random() < self.lose:
            raise ConnectionResetError("the reply is lost")
        start(f"{reply.status_code} {reply.reason}", [("Content-Length", str(len(reply.content)))])
        return [reply.content]


@contextlib.contextmanager
def proxied(proxy: Proxy, tls: ContextSource | None = None) -> Iterator[str]:
    """Run a proxy and give its address."""
    sock = listen_tcp("127.0.0.1", 0)
    port = sock.getsockname()[1]
    limits = Limits(body_bytes=8 << 20)
    with proxy.session, Server(proxy, [Listener(sock=sock, tls=tls)], limits):
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
