"""SECURITY.md 22: the way in is TLS and a ticket; one without the other does nothing."""

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.exporter.actor.conftest import (
    NODE,
    Client,
    Enrolled,
    Reply,
    Rig,
    Sleeper,
    actor_process,
    running,
    until_listening,
)
from tests.exporter.conftest import Authority
from typing_extensions import override
from wsproto.events import AcceptConnection, CloseConnection, Event

from narthex_exporter.transport.identity import Role
from narthex_exporter.transport.tls import TLSFiles, client_context, verifying_context
from wsclient import Client as Talk


@dataclass
class Remote(Client):
    """The operator's part, over the network."""

    port: int
    context: ssl.SSLContext

    @override
    def raw(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=30, context=self.context
        )
        with contextlib.closing(connection):
            connection.request(method, target, body, dict(headers or {}))
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.headers), reply.read())


@dataclass
class Node:
    """An exporter that runs, for an enrolled node."""

    enrolled: Enrolled
    authority: Authority
    port: int

    def seen_by(self, role: Role) -> Remote:
        return self.with_context(client_context(self.authority.leaf(role, "peer")))

    def with_context(self, context: ssl.SSLContext) -> Remote:
        return Remote(self.enrolled, self.port, context)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Node]:
    enrolled = Enrolled(tmp_path_factory.mktemp("home") / "node", ca_key=authority.key)
    own = authority.leaf(Role.NODE, NODE)
    for source, name in (
        (authority.file, "ca.pem"),
        (own.cert, "node.pem"),
        (own.key, "node.key"),
    ):
        shutil.copy(source, enrolled.home / "pki" / name)
    (enrolled.home / "pki" / "node.key").chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable, "-Im", "narthex_exporter", "exporter",
            "--state.dir", str(enrolled.home), "--actor.socket", str(enrolled.config.socket),
            "--web.listen-address", f"127.0.0.1:{port}", "--no-logs",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        one = Node(enrolled, authority, port)
        await_ready(one, process)
        yield one
    finally:
        process.terminate()
        process.wait(20)


def await_ready(node: Node, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None
        with contextlib.suppress(OSError):
            if node.seen_by(Role.OPERATOR).raw("GET", "/-/healthy").status == 200:
                return
        time.sleep(0.1)
    raise AssertionError("the exporter was not ready in 30 s")


def test_an_operator_stops_a_process_through_the_exporter(node: Node, sleeper: Sleeper) -> None:
    with running(node.enrolled):
        run = node.seen_by(Role.OPERATOR).run("process.signal", **sleeper.named)
    assert (run["state"], run["after"]) == ("succeeded", {"exists": False})
    assert sleeper.process.wait(5) == -15


def test_tls_without_the_signing_key_does_nothing(node: Node, sleeper: Sleeper) -> None:
    operator = node.seen_by(Role.OPERATOR)
    thief = Enrolled(node.enrolled.home / "thief", ticket_key=Ed25519PrivateKey.generate())
    operator.enrolled = thief
    with running(node.enrolled):
        assert operator.plan("process.signal", **sleeper.named).status == 401
    assert sleeper.process.poll() is None


@pytest.mark.parametrize("role", [Role.SCRAPE, Role.NODE, Role.SERVER])
def test_a_ticket_under_another_role_does_nothing(
    node: Node, sleeper: Sleeper, role: Role
) -> None:
    with running(node.enrolled) as rig:
        body = b'{"params": {}}'
        claims = rig.client.claims("POST", "/api/v1/queries/host.info", body, act="host.info")
        headers = {"Narthex-Ticket": rig.client.sign(claims)}
        reply = node.seen_by(role).raw("POST", "/api/v1/queries/host.info", body, headers)
        assert reply.status == 403
        assert rig.client.raw("POST", "/api/v1/queries/host.info", body, headers).status == 200


def test_a_ticket_without_a_certificate_does_nothing(node: Node, tmp_path: Path) -> None:
    context = verifying_context(node.authority.file)
    with running(node.enrolled), pytest.raises((ssl.SSLError, ConnectionError)):
        node.with_context(context).raw("GET", "/api/v1/nonce")


def test_an_actor_that_is_off_is_told(node: Node) -> None:
    reply = node.seen_by(Role.OPERATOR).raw("GET", "/api/v1/nonce")
    assert (reply.status, reply.json()["type"]) == (503, "actor-off")


def test_a_certificate_of_another_ca_does_nothing(node: Node, stranger: Authority) -> None:
    leaf = stranger.leaf(Role.OPERATOR, "peer")
    files = TLSFiles(cert=leaf.cert, key=leaf.key, ca=node.authority.file)
    with running(node.enrolled), pytest.raises((ssl.SSLError, ConnectionError)):
        node.with_context(client_context(files)).raw("GET", "/api/v1/nonce")


@contextlib.contextmanager
def listening(
    node: Node, client: Client, role: Role = Role.OPERATOR
) -> Iterator[tuple[Talk, Event]]:
    """Ask for a live stream through the exporter."""
    target = "/api/v1/follow/process.top"
    ticket = client.sign(client.claims("GET", target, b"", act="process.top"))
    raw = socket.create_connection(("127.0.0.1", node.port), timeout=15)
    with contextlib.closing(
        node.seen_by(role).context.wrap_socket(raw, server_hostname="127.0.0.1")
    ) as sock:
        talk = Talk(sock)
        yield talk, talk.ask(target, extra_headers=[(b"Narthex-Ticket", ticket.encode())])


def test_a_stream_passes_through_the_exporter(node: Node) -> None:
    with running(node.enrolled) as rig:
        with listening(node, rig.client) as (talk, answer):
            assert isinstance(answer, AcceptConnection), talk.refusal(answer)
            assert {b"replay-nonce", b"narthex-instance"} <= dict(answer.extra_headers).keys()
            assert talk.json()["data"]["rows"]
        assert _open_streams(rig) == 0


def _open_streams(rig: Rig) -> int:
    streams = rig.actor.wsgi.view_functions["follow"].__self__.streams  # type: ignore[attr-defined]
    deadline = time.monotonic() + 3
    while streams.slots.held and time.monotonic() < deadline:
        time.sleep(0.02)
    held: int = streams.slots.held
    return held


@pytest.mark.parametrize("role", [Role.SCRAPE, Role.NODE, Role.SERVER])
def test_a_stream_is_for_the_operator_alone(node: Node, role: Role) -> None:
    with running(node.enrolled) as rig, listening(node, rig.client, role) as (talk, answer):
        assert talk.refusal(answer) == (403, "role-refused")


def test_an_actor_that_is_off_opens_no_stream(node: Node) -> None:
    raw = socket.create_connection(("127.0.0.1", node.port), timeout=15)
    context = node.seen_by(Role.OPERATOR).context
    with contextlib.closing(context.wrap_socket(raw, server_hostname="127.0.0.1")) as sock:
        talk = Talk(sock)
        assert talk.refusal(talk.ask("/api/v1/follow/process.top")) == (503, "actor-off")


def test_an_actor_that_is_killed_ends_its_streams(node: Node) -> None:
    with actor_process(node.enrolled) as process:
        until_listening(node.enrolled, process)
        client = Client(node.enrolled)
        with listening(node, client) as (talk, answer):
            assert isinstance(answer, AcceptConnection)
            talk.json()
            process.kill()
            last: object = None
            while not isinstance(last, CloseConnection):
                last = talk.message()
            assert last.code == 1006


def test_a_stalled_stream_delays_no_scrape_and_no_request(node: Node) -> None:
    with running(node.enrolled) as rig, contextlib.ExitStack() as stack:
        for _ in range(20):
            _, answer = stack.enter_context(listening(node, rig.client))
            assert isinstance(answer, AcceptConnection)
        operator = node.seen_by(Role.OPERATOR)
        slowest = 0.0
        for _ in range(10):
            began = time.monotonic()
            assert operator.raw("GET", "/-/healthy").status == 200
            assert operator.query("host.info").status == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2
