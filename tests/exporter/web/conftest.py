"""A whole exporter, built as its command builds it, and a client for it."""

import contextlib
import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.app import Exporter, build
from narthex_exporter.config import Config
from narthex_exporter.transport.identity import Role
from narthex_exporter.transport.tls import TLSFiles, client_context

CLUSTER = "0123456789abcdef"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Site:
    """A running exporter, and who asks it."""

    exporter: Exporter
    authority: Any
    state: Path

    @property
    def port(self) -> int:
        found: int = self.exporter.server.listeners[0].sock.getsockname()[1]
        return found

    def connect(
        self, files: TLSFiles | None, *, plain: bool = False
    ) -> http.client.HTTPConnection:
        if plain:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        context = (
            client_context(files)
            if files
            else ssl.create_default_context(cafile=self.authority.file)
        )
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)

    def ask(
        self,
        path: str,
        *,
        role: Role | None = Role.SCRAPE,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        plain: bool = False,
        files: TLSFiles | None = None,
    ) -> Answer:
        if role is not None and files is None:
            files = self.authority.leaf(role, "asker")
        with contextlib.closing(self.connect(files, plain=plain)) as connection:
            connection.request(method, path, body=body, headers=headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, reply.headers, reply.read())


@pytest.fixture
def state(tmp_path: Path, authority: Any) -> Path:
    """An enrolled node's folder."""
    folder = tmp_path / "state"
    (folder / "pki").mkdir(parents=True)
    files = authority.leaf(Role.NODE, "n1", file=f"node-{tmp_path.name}")
    for source, name in ((files.cert, "node.pem"), (files.key, "node.key"), (files.ca, "ca.pem")):
        target = folder / "pki" / name
        target.touch(mode=0o600)
        target.write_bytes(source.read_bytes())
    (folder / "node.json").write_text(
        json.dumps({"id": "n1", "name": "alpha", "cluster": CLUSTER})
    )
    return folder


@pytest.fixture
def start(state: Path, authority: Any, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start the web server of an exporter on any port."""
    with contextlib.ExitStack() as stack:

        def begin(**given: Any) -> Site:
            given.setdefault("actor_socket", tmp_path / "actor.sock")
            config = Config(listen=(("127.0.0.1", 0),), **({"state_dir": state} | given))
            exporter = build(config)
            stack.enter_context(exporter.server)
            return Site(exporter, authority, state)

        yield begin


@pytest.fixture
def site(start: Callable[..., Site]) -> Site:
    return start()
