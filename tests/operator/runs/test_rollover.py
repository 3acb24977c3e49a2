"""SECURITY.md 2.1: the ticket key changes without one request lost, and the old one is dead."""

import contextlib
import ipaddress
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from prometheus_client.registry import CollectorRegistry

from narthex_exporter.contract import tickets
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.tickets import Claims
from narthex_exporter.durable import write_durably
from narthex_exporter.join import JoinError, State, fetch_keys
from narthex_exporter.queries.host import HostInfo
from narthex_exporter.transport.keys import key_pem, make_csr, new_key
from narthex_exporter.transport.server import Listener, Server, listen_tcp
from narthex_exporter.transport.tls import ReloadingContext, TLSFiles
from narthex_operator.clients.node import Asker, NodeClient, NodeRef
from narthex_operator.errors import NodeProblemError
from narthex_operator.gateway import build_gateway
from narthex_operator.security.signer_client import SignerClient, SignerRefusedError
from narthex_operator.signer.ledger import verified
from narthex_operator.signer.messages import RoleCertificateRequest
from realnode import RealNode, node_client
from rig import until

ME = Asker(id="user:1")


class Retired:
    """Somebody who kept a copy of a ticket key."""

    def __init__(self, folder: Path, kid: str) -> None:
        key = load_pem_private_key((folder / f"ticket-{kid}.key").read_bytes(), password=None)
        assert isinstance(key, Ed25519PrivateKey)
        self.key, self.kid = key, kid

    def tickets(self, claims: Sequence[Claims]) -> Sequence[str]:
        return [tickets.sign(one, key=self.key, kid=self.kid) for one in claims]


@pytest.fixture
def gateway(tmp_path: Path, signer: SignerClient) -> Iterator[str]:
    """The operator's gateway, as nodes reach it."""
    key = new_key()
    request = RoleCertificateRequest(
        csr=make_csr(key), role="server", id="gateway",
        addresses=(ipaddress.ip_address("127.0.0.1"),),
    )  # fmt: skip
    pki = tmp_path / "gateway-pki"
    pki.mkdir(mode=0o700)
    files = TLSFiles(cert=pki / "g.pem", key=pki / "g.key", ca=pki / "ca.pem")
    write_durably(files.key, key_pem(key))
    write_durably(files.cert, signer.role_certificate(request).encode())
    write_durably(pki / "ca.pem", signer.ca().certificate.encode())
    app = build_gateway(
        name_of=lambda _: "web-1", logs_url="http://127.0.0.1:9",
        ticket_keys=signer.ticket_keys, registry=CollectorRegistry(),
    )  # fmt: skip
    sock = listen_tcp("127.0.0.1", 0)
    listener = Listener(sock=sock, tls=ReloadingContext(files), cluster=signer.ca().cluster)
    with Server(app, [listener]):
        yield f"https://127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def node(tmp_path: Path, signer: SignerClient, gateway: str) -> Iterator[RealNode]:
    node = RealNode(tmp_path / "node", signer)
    about = json.loads((node.folder / "node.json").read_text())
    (node.folder / "node.json").write_text(json.dumps(about | {"gateway_url": gateway}))
    with node.front(), node.actor():
        yield node


def ask(client: NodeClient, node: RealNode) -> None:
    ref = NodeRef(id=node.id, name=node.name, address=node.address)
    client.query(ref, ME, "host.info", {}, HostInfo)


@contextlib.contextmanager
def traffic(ask_once: Callable[[], None]) -> Iterator[list[Exception | None]]:
    """Ask without a pause; every outcome is kept."""
    outcomes: list[Exception | None] = []
    stopping = threading.Event()

    def work() -> None:
        while not stopping.is_set():
            try:
                ask_once()
                outcomes.append(None)
            except NarthexError as error:
                outcomes.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield outcomes
    finally:
        stopping.set()
        thread.join()


def more(outcomes: list[Exception | None], count: int) -> None:
    """Wait for so many outcomes more."""
    enough = len(outcomes) + count
    until(lambda: len(outcomes) >= enough)


def test_two_rotations_lose_no_request_and_the_old_key_is_dead(
    tmp_path: Path, signer: SignerClient, node: RealNode
) -> None:
    state = State(folder=node.folder)
    client = node_client(tmp_path / "operator-pki", signer)
    first = signer.ticket_keys()["keys"][0]["kid"]
    thief = node_client(tmp_path / "thief-pki", signer)
    thief._desk.signer = Retired(tmp_path / "signer", first)
    ask(thief, node)  # before, it is good
    with traffic(lambda: ask(client, node)) as outcomes:
        assert fetch_keys(state) is None  # as they were
        for version in (2, 3):
            signer.rotate(force=True)
            # The node does not know of it yet: the key that signs now was the next one.
            more(outcomes, 2)
            assert fetch_keys(state) == version
            more(outcomes, 20)
    assert {str(one) for one in outcomes if one is not None} == set()
    assert len(outcomes) > 40
    for_what = [row for row in audit(node) if row["event"] == "keys.changed"]
    assert [row["version"] for row in for_what] == [2, 3]
    with pytest.raises(NodeProblemError) as refused:
        ask(thief, node)
    assert (refused.value.problem.status, refused.value.problem.title) == (401, "key")


def audit(node: RealNode) -> list[dict[str, object]]:
    text = (node.folder / "actor" / "audit.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_a_key_is_not_retired_before_nodes_had_time_to_learn_the_next(
    tmp_path: Path, signer: SignerClient
) -> None:
    before = signer.ticket_keys()
    with pytest.raises(SignerRefusedError, match="would refuse every action") as refused:
        signer.rotate()
    assert "--force" in refused.value.hint
    assert signer.ticket_keys() | {"signature": ""} == before | {"signature": ""}
    done = signer.rotate(force=True)
    after = signer.ticket_keys()
    assert (done.retired, done.current) == tuple(key["kid"] for key in before["keys"])
    assert [key["kid"] for key in after["keys"]] == [done.current, done.next]
    assert not (tmp_path / "signer" / f"ticket-{done.retired}.key").exists()
    rows = list(verified(tmp_path / "signer" / "audit.jsonl"))
    assert [row["retired"] for row in rows if row["event"] == "ticket-keys.rotated"] == [
        done.retired
    ]


def test_a_node_that_was_down_for_two_rotations_refuses_until_it_has_fetched(
    tmp_path: Path, signer: SignerClient, node: RealNode
) -> None:
    client = node_client(tmp_path / "operator-pki", signer)
    signer.rotate(force=True)
    signer.rotate(force=True)
    with pytest.raises(NodeProblemError, match="does not know"):
        ask(client, node)
    assert fetch_keys(State(folder=node.folder)) == 3
    with contextlib.suppress(NodeProblemError):  # looked at less than a second ago, perhaps
        ask(client, node)
    threading.Event().wait(1.05)
    ask(client, node)


@pytest.mark.parametrize("what", ["older", "of another CA", "of another cluster", "no JSON"])
def test_what_the_gateway_gives_is_believed_only_by_its_signature(
    tmp_path: Path, signer: SignerClient, node: RealNode, what: str
) -> None:
    state, path = State(folder=node.folder), node.folder / "tickets.json"
    old = path.read_bytes()
    signer.rotate(force=True)
    fetch_keys(state)
    kept = path.read_bytes()
    forged = json.loads(old) | {"version": 9}
    data = {
        "older": old,
        "of another CA": json.dumps(forged).encode(),
        "of another cluster": json.dumps(json.loads(kept) | {"cluster": "f" * 16}).encode(),
        "no JSON": b"<html>",
    }[what]
    with pytest.raises(JoinError):
        state.keep_keys(data, cluster=signer.ca().cluster)
    assert path.read_bytes() == kept
