"""The client for nodes against a real actor, and against nodes that lie."""

import contextlib
import json
import os
import resource
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from narthex_exporter.contract.tickets import Claims, sign
from narthex_exporter.contract.wire import new_run_id
from narthex_exporter.queries.host import HostInfo
from narthex_exporter.transport.server import Server
from narthex_operator.clients import exchange
from narthex_operator.clients.node import (
    MANY_REPLY_BYTES,
    Asker,
    Call,
    InDoubtError,
    NodeClient,
    NodeRef,
    NotUnderstoodError,
)
from narthex_operator.errors import ActorOffError, NodeProblemError, UnreachableError
from narthex_operator.security.signer_client import SignerClient
from realnode import RealNode, node_client, operator_pki

ASKER = Asker(id="user:1")
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@pytest.fixture
def node(tmp_path: Path, signer: SignerClient) -> RealNode:
    return RealNode(tmp_path / "node", signer)


@pytest.fixture
def client(tmp_path: Path, signer: SignerClient) -> NodeClient:
    return node_client(tmp_path / "operator-pki", signer)


def ref(node: RealNode) -> NodeRef:
    return NodeRef(id=node.id, name=node.name, address=node.address)


def test_a_real_actor_tells_its_manifest(node: RealNode, client: NodeClient) -> None:
    with node.front(), node.actor():
        manifest = client.manifest(ref(node), ASKER)
        again = client.manifest(ref(node), ASKER)
    assert manifest.node == node.id
    assert manifest.instance == again.instance == client.instance(node.id)


def test_an_actor_that_started_anew_is_asked_with_a_fresh_nonce(
    node: RealNode, client: NodeClient
) -> None:
    with node.front():
        with node.actor():
            first = client.manifest(ref(node), ASKER)
        with node.actor():
            second = client.manifest(ref(node), ASKER)
    assert first.instance != second.instance


def test_an_actor_that_is_off_is_told_apart(node: RealNode, client: NodeClient) -> None:
    with node.front(), pytest.raises(ActorOffError) as told:
        client.manifest(ref(node), ASKER)
    assert "systemctl enable" in told.value.hint


def test_another_node_at_the_address_gets_nothing(
    tmp_path: Path, signer: SignerClient, client: NodeClient
) -> None:
    other = RealNode(tmp_path / "other", signer, id="web-2-aaaaaa", name="web-2")
    asked: list[object] = []

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        asked.append(environ)
        start("200 OK", [])
        return []

    with other.front(app):
        impostor = NodeRef(id="web-1-3fa9c2", name="web-1", address=other.address)
        with pytest.raises(UnreachableError, match="certificate is refused") as told:
            client.manifest(impostor, ASKER)
    assert not isinstance(told.value, InDoubtError)
    assert not asked


def test_the_refusals_of_a_node_keep_their_kind(node: RealNode, client: NodeClient) -> None:
    with node.front(), node.actor(), pytest.raises(NodeProblemError) as told:
        client.get_run(ref(node), ASKER, new_run_id())
    assert told.value.problem.type == "unknown-run"
    assert told.value.status == 404


def lying(reply: Callable[[str], tuple[str, list[tuple[str, str]], Iterable[bytes]]]) -> App:
    """Give a nonce when asked for one, and whatever else one likes."""

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        fresh = [("Replay-Nonce", os.urandom(8).hex()), ("Narthex-Instance", "one")]
        if environ["PATH_INFO"] == "/api/v1/nonce":
            start("204 No Content", fresh)
            return []
        status, headers, body = reply(environ["PATH_INFO"])
        start(status, [*fresh, *headers])
        return body

    return app


def streamed() -> Iterator[bytes]:
    block = bytes(1 << 20)
    for _ in range(10_240):
        yield block


HOSTILE = {
    "endless": (streamed, InDoubtError),
    "not json": (lambda: [b"<script>alert(1)</script>"], NotUnderstoodError),
    "deep": (lambda: [b"[" * 1_000_000], NotUnderstoodError),
    "another shape": (lambda: [b'{"id": 1}'], NotUnderstoodError),
    "not utf-8": (lambda: [b"\xff\xfe\x00"], NotUnderstoodError),
    "empty": (list, NotUnderstoodError),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_reply_costs_little_and_is_told_in_words(
    case: str, node: RealNode, client: NodeClient
) -> None:
    body, kind = HOSTILE[case]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with node.front(lying(lambda _path: ("200 OK", [], body()))), pytest.raises(kind) as told:
        client.query(ref(node), ASKER, "host.info", {}, HostInfo)
    assert "script" not in str(told.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_a_node_that_never_accepts_a_nonce_is_asked_twice_at_most(
    node: RealNode, client: NodeClient
) -> None:
    asked: list[str] = []

    def reply(path: str) -> tuple[str, list[tuple[str, str]], Iterable[bytes]]:
        asked.append(path)
        body = {"type": "ticket-nonce", "title": "nonce", "status": 401}
        headers = [("Content-Type", "application/problem+json")]
        return "401 Unauthorized", headers, [json.dumps(body).encode()]

    with node.front(lying(reply)), pytest.raises(NodeProblemError):
        client.manifest(ref(node), ASKER)
    assert len(asked) == 2


def test_a_connection_cut_before_the_reply_is_in_doubt(node: RealNode, client: NodeClient) -> None:
    def reply(_path: str) -> tuple[str, list[tuple[str, str]], Iterable[bytes]]:
        return "200 OK", [("Content-Length", "100")], [b"{"]

    sent: list[object] = []
    with node.front(lying(reply)), pytest.raises(InDoubtError):
        client.run(
            ref(node),
            ASKER,
            "process.signal",
            run_id=new_run_id(),
            body=b"{}",
            before_sending=sent.append,
        )
    assert len(sent) == 1


class Replaced:
    """A signer whose key is replaced after the first ticket: that one comes too late."""

    def __init__(self, signer: SignerClient, times: int) -> None:
        self.signer, self.times = signer, times
        self.asked = 0

    def tickets(self, claims: Sequence[Claims]) -> Sequence[str]:
        self.asked += 1
        if self.asked <= self.times:
            key = Ed25519PrivateKey.generate()
            return [sign(one, key=key, kid="retired") for one in claims]
        return self.signer.tickets(claims)


def test_a_ticket_by_a_key_that_was_just_retired_is_signed_once_more(
    node: RealNode, client: NodeClient, signer: SignerClient
) -> None:
    client._desk.signer = Replaced(signer, 1)
    with node.front(), node.actor():
        assert client.manifest(ref(node), ASKER).node == node.id


def test_it_is_not_signed_again_and_again(
    node: RealNode, client: NodeClient, signer: SignerClient
) -> None:
    client._desk.signer = replaced = Replaced(signer, 9)
    with node.front(), node.actor(), pytest.raises(NodeProblemError, match="does not know"):
        client.manifest(ref(node), ASKER)
    assert replaced.asked == 2


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"[" * 100_000, b'{"seq": -1, "head": "", "first": 0}',
     b'{"seq": 1e400, "head": "", "first": 0}',
     b'{"seq": 1, "head": "", "first": 0, "rows": [1]}'],
)  # fmt: skip
def test_an_audit_that_is_none_is_not_understood(
    node: RealNode, client: NodeClient, body: bytes
) -> None:
    def app(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Replay-Nonce", "n" * 22), ("Narthex-Instance", "i")])
        return [body]

    with node.front(app), pytest.raises(NotUnderstoodError):
        client.audit(ref(node), ASKER, after=0)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every connection that the client makes."""
    made: list[object] = []
    connect = exchange.connect

    def counted(endpoint: exchange.Endpoint, limits: exchange.Bounds) -> socket.socket:
        sock = connect(endpoint, limits)
        made.append(sock)
        return sock

    monkeypatch.setattr(exchange, "connect", counted)
    return made


def test_nonce_and_request_share_a_connection_and_each_operation_has_its_own(
    node: RealNode, client: NodeClient, connections: list[object]
) -> None:
    with node.front(), node.actor():
        client.manifest(ref(node), ASKER)
        assert len(connections) == 1
        client.manifest(ref(node), ASKER)
        assert len(connections) == 2


def test_a_fresh_request_goes_over_a_connection_that_carried_not_even_its_nonce(
    node: RealNode, client: NodeClient, connections: list[object]
) -> None:
    call = Call(method="GET", target="/api/v1/manifest", act="manifest", fresh=True)
    with node.front(), node.actor():
        assert client._ask(ref(node), ASKER, call).status == 200
    assert len(connections) == 2


def test_a_node_that_hangs_up_behind_its_nonce_is_asked_on_another_connection(
    node: RealNode, client: NodeClient, connections: list[object]
) -> None:
    inner = node._exporter()

    def hasty(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/api/v1/nonce":
            Thread(target=hang_up, daemon=True).start()
        return inner(environ, start)

    def hang_up() -> None:
        time.sleep(0.05)
        for guest in list(server[0]._guests):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(guest.sock, socket.SHUT_RDWR)

    server: list[Server] = []
    with node.front(hasty) as front, node.actor():
        server.append(front)
        slow_signer = client.signer.tickets

        def tickets(claims: Sequence[Claims]) -> Sequence[str]:
            time.sleep(0.2)
            return slow_signer(claims)

        client._desk.signer = Signing(tickets)
        assert client.manifest(ref(node), ASKER).node == node.id
    assert len(connections) == 2


@dataclass
class Signing:
    tickets: Callable[[Sequence[Claims]], Sequence[str]]


@pytest.mark.parametrize(
    ("nonce", "instance"),
    [("x" * 257, "one"), ("a b", "one"), ("x", "y" * 129), ("x", "y z"), ("", "one")],
)
def test_a_nonce_that_the_signer_would_refuse_never_comes_to_it(
    nonce: str, instance: str, node: RealNode, client: NodeClient
) -> None:
    def app(_environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("204 No Content", [("Replay-Nonce", nonce), ("Narthex-Instance", instance)])
        return []

    client._desk.signer = Signing(lambda _: pytest.fail("the signer was asked"))
    with node.front(app), pytest.raises(NotUnderstoodError, match="no nonce"):
        client.manifest(ref(node), ASKER)


def test_the_certificate_is_read_again_when_its_file_has_changed(
    tmp_path: Path, client: NodeClient, signer: SignerClient
) -> None:
    before = client._context.get()
    assert client._context.get() is before
    operator_pki(tmp_path / "operator-pki", signer)
    after = client._context.get()
    assert after is not before
    assert client._context.get() is after


def test_of_many_each_has_its_own_result_or_error(
    tmp_path: Path, node: RealNode, client: NodeClient, signer: SignerClient
) -> None:
    off = RealNode(tmp_path / "off", signer, id="off-1", name="off")
    gone = NodeRef(id="gone-1", name="gone", address="127.0.0.1:1")
    with node.front(), node.actor(), off.front():
        found = dict(
            client.query_many([ref(node), ref(off), gone], ASKER, "host.info", {}, HostInfo)
        )
    assert isinstance(found[ref(node)], HostInfo)
    assert isinstance(found[ref(off)], ActorOffError)
    assert isinstance(found[gone], UnreachableError)
    assert not isinstance(found[gone], InDoubtError)


def test_of_many_none_sends_more_than_its_share(node: RealNode, client: NodeClient) -> None:
    def much() -> Iterator[bytes]:
        for _ in range(MANY_REPLY_BYTES // 65536 + 2):
            yield bytes(65536)

    with node.front(lying(lambda _path: ("200 OK", [], much()))):
        found = dict(client.query_many([ref(node)], ASKER, "host.info", {}, HostInfo))
    error = found[ref(node)]
    assert isinstance(error, InDoubtError)
    assert "larger than 2 MiB" in str(error)
