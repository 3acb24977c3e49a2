import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from typing_extensions import override

from narthex_exporter.contract import tickets
from narthex_exporter.contract.enrolment import ca_pin
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.wire import new_run_id
from narthex_exporter.transport.identity import Role, identify, node_dns_name
from narthex_exporter.transport.keys import key_pem, make_csr, new_key, public_key_info
from narthex_exporter.transport.server import PEER_UID
from narthex_exporter.transport.tls import TLSFiles, client_context, server_context
from narthex_operator.commands import signer as signer_command
from narthex_operator.errors import LimitedError, UnreachableError
from narthex_operator.security.certificates import generation_of, signature_valid, unbase64
from narthex_operator.security.chain import canonical
from narthex_operator.security.signer_client import SignerClient, SignerRefusedError
from narthex_operator.signer.app import SignerApp
from narthex_operator.signer.keystore import TICKET_KEY_SECONDS, KeyStoreError, open_key_store
from narthex_operator.signer.ledger import Ledger, LedgerError, verified
from narthex_operator.signer.limits import Buckets
from narthex_operator.signer.messages import (
    CheckpointRequest,
    NodeCertificateRequest,
    RoleCertificateRequest,
    checkpoint_bytes,
)
from narthex_operator.signer.peers import listen_for


def node_request(csr: str, **changes: object) -> NodeCertificateRequest:
    values = {"csr": csr, "node": "n1", "generation": 1, "addresses": ("127.0.0.1",)}
    return NodeCertificateRequest.model_validate(values | changes)


def claims_for(signer: SignerClient, **changes: object) -> tickets.Claims:
    now = int(time.time())
    values = {
        "iss": signer.ca().cluster, "aud": "node:n1", "sub": "user:1", "act": "manifest",
        "htm": "GET", "htu": "/api/v1/manifest", "ph": "0" * 64, "op": new_run_id(),
        "jti": "j" * 22, "inst": "i1", "nonce": "n1", "iat": now, "nbf": now, "exp": now + 30,
    }  # fmt: skip
    return tickets.Claims.model_validate(values | changes)


def test_a_node_certificate_says_what_the_ca_chose(signer: SignerClient) -> None:
    ca = x509.load_pem_x509_certificate(signer.ca().certificate.encode())
    key = new_key()
    leaf = x509.load_pem_x509_certificate(
        signer.node_certificate(node_request(make_csr(key), generation=3)).encode()
    )
    leaf.verify_directly_issued_by(ca)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert leaf.public_key() == key.public_key()
    assert generation_of(leaf) == 3
    assert names.get_values_for_type(x509.DNSName) == [node_dns_name(signer.ca().cluster, "n1")]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert ca_pin(public_key_info(ca)) == signer.ca().pin


def test_names_in_a_request_are_ignored(signer: SignerClient) -> None:
    cluster = signer.ca().cluster
    wanted: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(f"spiffe://{cluster}.narthex.internal/operator/evil"),
        *(x509.DNSName(f"x{i}.example.org") for i in range(50)),
    ]
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "operator")]))
        .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(new_key(), hashes.SHA256())
    )
    pem = csr.public_bytes(Encoding.PEM).decode()
    leaf = x509.load_pem_x509_certificate(signer.node_certificate(node_request(pem)).encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert len(list(names)) == 3
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []


@pytest.mark.parametrize("kind", ["p384", "not a csr", "broken signature"])
def test_a_request_that_is_not_for_a_p256_key_is_refused(signer: SignerClient, kind: str) -> None:
    if kind == "p384":
        key = ec.generate_private_key(ec.SECP384R1())
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .sign(key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )
    elif kind == "not a csr":
        csr = "-----BEGIN CERTIFICATE REQUEST-----\nxx\n-----END CERTIFICATE REQUEST-----\n"
    else:
        lines = make_csr(new_key()).splitlines()
        middle = lines[-2]
        lines[-2] = middle[:10] + ("A" if middle[10] != "A" else "B") + middle[11:]
        csr = "\n".join(lines)
    with pytest.raises(SignerRefusedError):
        signer.node_certificate(node_request(csr))


def test_its_leaves_pass_strict_verification_both_ways(
    signer: SignerClient, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text(signer.ca().certificate)
    files = {}
    for name in ("node", "scrape"):
        key = new_key()
        csr = make_csr(key)
        pem = (
            signer.node_certificate(node_request(csr))
            if name == "node"
            else signer.role_certificate(
                RoleCertificateRequest(csr=csr, role="scrape", id="prometheus")
            )
        )
        (tmp_path / f"{name}.pem").write_text(pem)
        (tmp_path / f"{name}.key").write_bytes(key_pem(key))
        (tmp_path / f"{name}.key").chmod(0o600)
        files[name] = TLSFiles(
            cert=tmp_path / f"{name}.pem", key=tmp_path / f"{name}.key", ca=tmp_path / "ca.pem"
        )
    left, right = socket.socketpair()
    seen = []

    def serve() -> None:
        with server_context(files["node"]).wrap_socket(right, server_side=True) as tls:
            der = tls.getpeercert(binary_form=True)
            assert der
            seen.append(identify(der, cluster=signer.ca().cluster))
            tls.sendall(b"ok")

    thread = threading.Thread(target=serve)
    thread.start()
    name = node_dns_name(signer.ca().cluster, "n1")
    with client_context(files["scrape"]).wrap_socket(left, server_hostname=name) as tls:
        assert tls.recv(2) == b"ok"
    thread.join()
    assert (seen[0].role, seen[0].id) == (Role.SCRAPE, "prometheus")


def test_the_ca_vouches_for_no_name_outside(signer: SignerClient) -> None:
    ca = x509.load_pem_x509_certificate(signer.ca().certificate.encode())
    constraints = ca.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert [str(name.value) for name in constraints.value.permitted_subtrees or []] == [
        "narthex.internal",
        ".narthex.internal",
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"role": "server", "names": ("example.org",)},
        {"role": "server", "names": ("n1.node.{cluster}.narthex.internal",)},
        {"role": "server", "names": ("panel.0000000000000000.narthex.internal",)},
        {"role": "scrape", "addresses": ("127.0.0.1",)},
        {"role": "server", "addresses": ("0.0.0.0",)},  # noqa: S104
    ],
)
def test_a_certificate_of_ours_carries_no_other_names(
    signer: SignerClient, values: dict[str, tuple[str, ...]]
) -> None:
    names = tuple(n.format(cluster=signer.ca().cluster) for n in values.get("names", ()))
    request = RoleCertificateRequest.model_validate(
        values | {"csr": make_csr(new_key()), "id": "panel", "names": names}
    )
    with pytest.raises(SignerRefusedError):
        signer.role_certificate(request)


@pytest.mark.parametrize("node", ["../x", "a\nb", "ü", "-x", "A", "x" * 64, "a\0b", ""])
def test_an_id_that_is_none_is_refused(node: str) -> None:
    with pytest.raises(ValueError, match="node"):
        node_request("x", node=node)


def test_a_ticket_verifies_with_the_published_keys(signer: SignerClient) -> None:
    document = signer.ticket_keys()
    ca = x509.load_pem_x509_certificate(signer.ca().certificate.encode())
    signed = {name: value for name, value in document.items() if name != "signature"}
    assert signature_valid(ca.public_key(), document["signature"], canonical(signed))
    assert len(document["keys"]) == 2
    keys = {
        entry["kid"]: Ed25519PublicKey.from_public_bytes(unbase64(entry["key"]))
        for entry in document["keys"]
    }
    claims = claims_for(signer, ph=tickets.body_digest(b""))
    verified_claims = tickets.verify(
        signer.ticket(claims), keys=keys, cluster=signer.ca().cluster, node="n1", instance="i1",
        spend_nonce=lambda nonce: nonce == "n1", method="GET", target="/api/v1/manifest", body=b"",
    )  # fmt: skip
    assert verified_claims == claims


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "0" * 16},
        {"aud": "n1"},
        {"aud": "node:../x"},
        {"sub": "root"},
        {"sub": "user:1\nx"},
        {"htm": "TRACE"},
        {"htu": "/metrics"},
        {"ph": "x"},
        {"exp": 4102444800},
        {"exp": 0},
        {"iat": 0, "nbf": 0, "exp": 30},
        {"rsn": "x" * 2000},
        {"nonce": ""},
    ],
)
def test_a_ticket_that_says_too_much_is_not_signed(
    signer: SignerClient, changes: dict[str, object]
) -> None:
    with pytest.raises(SignerRefusedError):
        signer.ticket(claims_for(signer, **changes))


def test_one_subject_cannot_have_tickets_without_end(signer: SignerClient) -> None:
    claims = [claims_for(signer)] * 256
    # What a run on a thousand nodes takes is let through.
    for _ in range(15):
        signer.tickets(claims)

    def exhaust() -> None:
        # On a busy machine what comes back meanwhile is to be taken too.
        for _ in range(40):
            signer.tickets(claims)

    with pytest.raises(LimitedError):
        exhaust()
    assert signer.ticket(claims_for(signer, sub="user:2"))


def test_a_batch_is_counted_by_its_tickets() -> None:
    now = [0.0]
    buckets = Buckets(burst=10, per_second=1, clock=lambda: now[0])
    assert buckets.take("a", 7)
    assert not buckets.take("a", 4)
    assert buckets.take("a", 3)
    assert not buckets.take("a")
    now[0] += 2
    assert not buckets.take("a", 3)
    assert buckets.take("a", 2)


def test_a_batch_is_signed_in_order_written_down_by_row_and_waited_for_once(
    signer: SignerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [
        claims_for(signer, aud=f"node:n{n}", jti=f"{n:08}", ph=tickets.body_digest(b""))
        for n in range(256)
    ]
    synced: list[int] = []
    real = os.fsync

    def fsync(number: int) -> None:
        synced.append(number)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    signed = signer.tickets(wanted)
    assert len(synced) == 1
    keys = {
        entry["kid"]: Ed25519PublicKey.from_public_bytes(unbase64(entry["key"]))
        for entry in signer.ticket_keys()["keys"]
    }
    for number, ticket in enumerate(signed):
        found = tickets.verify(
            ticket, keys=keys, cluster=signer.ca().cluster, node=f"n{number}", instance="i1",
            spend_nonce=lambda _: True, method="GET", target="/api/v1/manifest", body=b"",
        )  # fmt: skip
        assert found == wanted[number]
    rows = list(verified(tmp_path / "signer" / "audit.jsonl"))
    assert [row["jti"] for row in rows] == [one.jti for one in wanted]
    assert {row["event"] for row in rows} == {"ticket.signed"}
    assert {row["sub"] for row in rows} == {"user:1"}


@pytest.mark.parametrize(
    "changes", [{"sub": "user:2"}, {"sub": "root"}, {"aud": "n1"}, {"exp": 0}, {"nonce": "\n"}]
)
def test_one_wrong_ticket_keeps_its_batch_from_being_signed(
    signer: SignerClient, tmp_path: Path, changes: dict[str, object]
) -> None:
    wanted = [claims_for(signer) for _ in range(5)]
    wanted[3] = claims_for(signer, **changes)
    with pytest.raises(SignerRefusedError):
        signer.tickets(wanted)
    assert not (tmp_path / "signer" / "audit.jsonl").read_bytes()
    assert len(signer.tickets(wanted[:3])) == 3


@pytest.mark.parametrize("count", [0, 257])
def test_a_batch_has_a_size(signer: SignerClient, count: int) -> None:
    body = json.dumps({"claims": [claims_for(signer).model_dump()] * count})
    with pytest.raises(SignerRefusedError, match="claims"):
        signer._json("POST", "/v1/tickets/batch", _Raw(body))


class _Raw(tickets.AuditHead):
    """A message of another making."""

    def __init__(self, text: str) -> None:
        super().__init__(seq=0, head=text)

    @override
    def model_dump_json(self, **_: object) -> str:
        return self.head


def test_the_largest_batch_that_nodes_would_read_is_signed(signer: SignerClient) -> None:
    big = claims_for(
        signer, rsn="\N{SNOWMAN}" * 1000, htu="/api/v1/" + "x" * 1000, nonce="n" * 250
    )
    assert len(signer.tickets([big] * 256)) == 256


def test_what_cannot_be_written_down_leaves_no_row_of_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    with contextlib.closing(Ledger(path)) as ledger:
        ledger.append("a")
        real = os.write
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda number, data: real(number, data[: len(data) // 2]))
            with pytest.raises(LedgerError, match="No space left"):
                ledger.append_many("b", [{"n": n} for n in range(10)])
        ledger.append_many("c", [{"n": 1}, {"n": 2}])
    assert [(row["seq"], row["event"]) for row in verified(path)] == [(1, "a"), (2, "c"), (3, "c")]


def test_a_checkpoint_is_the_signers_word(signer: SignerClient) -> None:
    request = CheckpointRequest.model_validate(
        {"seq": 7, "head": "a" * 64, "at": "2026-01-01T00:00:00Z"}
    )
    ca = x509.load_pem_x509_certificate(signer.ca().certificate.encode())
    data = checkpoint_bytes(signer.ca().cluster, request)
    assert signature_valid(ca.public_key(), signer.checkpoint(request), data)


def test_everything_signed_is_written_down(signer: SignerClient, tmp_path: Path) -> None:
    signer.node_certificate(node_request(make_csr(new_key())))
    signer.ticket(claims_for(signer))
    events = [row["event"] for row in verified(tmp_path / "signer" / "audit.jsonl")]
    assert events == ["certificate.issued", "ticket.signed"]


def test_a_signer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"signer\.sock") as caught:
        SignerClient(socket=tmp_path / "signer.sock").ca()
    assert caught.value.hint


def test_its_keys_survive_a_restart_and_are_closed_to_others(tmp_path: Path) -> None:
    first = open_key_store(tmp_path / "s")
    kept = (first.pin, first.cluster, first.ticket_keys()["keys"])
    first.close()
    for path in (tmp_path / "s").glob("*.key"):
        assert path.stat().st_mode & 0o077 == 0
    with contextlib.closing(open_key_store(tmp_path / "s")) as second:
        assert (second.pin, second.cluster, second.ticket_keys()["keys"]) == kept


def test_two_signers_cannot_share_keys(tmp_path: Path) -> None:
    with (
        contextlib.closing(open_key_store(tmp_path / "s")),
        pytest.raises(KeyStoreError, match="another signer"),
    ):
        open_key_store(tmp_path / "s")


@pytest.mark.parametrize("damage", ["open", "folder open", "lost ca.key", "lost state", "mixed"])
def test_it_fails_closed_on_damaged_keys(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "s"
    open_key_store(folder).close()
    if damage == "open":
        (folder / "ca.key").chmod(0o644)
    elif damage == "folder open":
        folder.chmod(0o755)
    elif damage == "lost ca.key":
        (folder / "ca.key").unlink()
    elif damage == "lost state":
        (folder / "state.json").unlink()
    else:
        (folder / "ca.key").write_bytes(key_pem(new_key()))
    with pytest.raises(NarthexError):
        open_key_store(folder)


def test_ticket_keys_rotate_to_the_one_that_nodes_know_already(tmp_path: Path) -> None:
    now = [time.time()]
    with contextlib.closing(open_key_store(tmp_path / "s", clock=lambda: now[0])) as store:
        before = store.ticket_keys()
        now[0] += TICKET_KEY_SECONDS + 1
        after = store.ticket_keys()
        assert after["version"] == before["version"] + 1
        assert after["keys"][0] == before["keys"][1]
        assert store.ticket_key()[0] == after["keys"][0]["kid"]


def test_its_audit_goes_on_after_a_row_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    ledger = Ledger(path)
    ledger.append("a")
    ledger.close()
    with path.open("ab") as file:
        file.write(b'{"seq": 2, "ev')
    ledger = Ledger(path, file_bytes=10)
    ledger.append("b")
    ledger.append("c")
    ledger.close()
    assert [row["event"] for row in verified(path)] == ["c"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_changed_audit_stops_it(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    ledger = Ledger(path)
    ledger.append("a", who="x")
    ledger.close()
    path.write_bytes(path.read_bytes().replace(b'"x"', b'"y"'))
    with pytest.raises(LedgerError, match="line 1"):
        Ledger(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_user_is_hung_up_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.geteuid() and str(parent).startswith(("/tmp/", "/var/tmp/")):  # noqa: S108
            parent.chmod(0o755)
    path = tmp_path / "s.sock"
    sock = listen_for(path)
    path.chmod(0o666)
    accepted: list[object] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            peer, _ = sock.accept()
            accepted.append(peer)
            peer.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    code = (
        "import os,socket,sys; os.setuid(65534);"
        "s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.settimeout(5); assert s.recv(1) == b''"
    )
    done = subprocess.run([sys.executable, "-Ic", code, str(path)], check=False, timeout=20)
    assert done.returncode == 0
    assert not accepted
    sock.shutdown(socket.SHUT_RDWR)
    thread.join()
    sock.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_only_root_and_the_signers_own_user_may_rotate_its_keys(
    signer: SignerClient, tmp_path: Path
) -> None:
    app = SignerApp(store=FakeStore(), ledger=FakeStore())  # type: ignore[arg-type] # never reached
    told: list[str] = []
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/v1/ticket-keys/rotate", PEER_UID: 65534}
    body = b"".join(app(environ, lambda status, _headers: told.append(status)))
    assert told == ["403 Forbidden"]
    assert b"only root" in body
    assert signer.rotate(force=True).version == 2


class FakeStore:
    """What nobody may reach."""


def test_the_command_rotates_and_says_what_it_would_break(
    signer: SignerClient, tmp_path: Path
) -> None:
    words = ["rotate", "--socket", str(signer.socket)]
    refused = CliRunner().invoke(signer_command, words)
    assert isinstance(refused.exception, SignerRefusedError)
    assert "would refuse every action" in str(refused.exception)
    done = CliRunner().invoke(signer_command, [*words, "--force"])
    assert done.exit_code == 0
    assert done.output.startswith("rotated to version 2: ")


def test_a_rotation_that_cannot_be_written_down_does_not_happen(tmp_path: Path) -> None:
    with contextlib.closing(open_key_store(tmp_path / "s")) as store:
        ledger = Ledger(tmp_path / "s" / "audit.jsonl")
        SignerApp(store=store, ledger=ledger)
        before = store.ticket_keys()["keys"]
        ledger.close()
        with pytest.raises(LedgerError):
            store.rotate(force=True)
        assert store.ticket_keys()["keys"] == before
        assert store.ticket_key()[0] == before[0]["kid"]
