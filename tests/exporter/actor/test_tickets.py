"""SECURITY.md 20 to 22: what is not exactly what was signed is not executed."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.exporter.actor.conftest import Client, Enrolled, Rig, Sleeper, running

from narthex_exporter.contract.tickets import TYPE
from narthex_exporter.contract.wire import new_run_id

TARGET = "/api/v1/actions/process.signal/runs"
TEXT = ("iss", "aud", "act", "htm", "htu", "ph", "op", "inst", "nonce")
WRONG: tuple[Any, ...] = ("", "x", " ", None, 0, 1, True, [], {}, ["x"])
NO_TEXT: tuple[Any, ...] = (None, 0, True, [], {})
WRONG_HEADERS: dict[str, tuple[Any, ...]] = {
    "kid": ("", "k2", "../k1", None, 1, [], {}, ["k1"]),
    "typ": ("JWT", "narthex-act", TYPE.upper(), "application/" + TYPE, "", None, 1, []),
    "alg": ("ES256", "RS256", "Ed25519x", "eddsa", None, 1, []),
}
OTHER_METHODS = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "X")
OTHER_TARGETS = (
    TARGET + "/",
    TARGET + "?",
    TARGET + "?x=1",
    TARGET + "#x",
    "/" + TARGET,
    TARGET.replace("signal", "renice"),
    TARGET.replace("signal", "SIGNAL"),
    TARGET.replace("runs", "plans"),
    TARGET.replace(".", "%2e"),
    TARGET.replace("v1", "v2"),
    "/api/v1/x/../actions/process.signal/runs",
    "/api/v1/manifest",
    "/",
    "/metrics",
)
YEARS = 10 * 365 * 86_400


@dataclass
class Valid:
    """A request that would be executed, in parts that can be altered."""

    client: Client
    body: bytes

    def claims(self, **changes: Any) -> dict[str, Any]:
        plain = self.client.claims("POST", TARGET, self.body, act="process.signal")
        return plain.model_dump(mode="json", exclude_none=True) | changes

    def header(self, **changes: Any) -> dict[str, Any]:
        return {"alg": "EdDSA", "typ": TYPE, "kid": self.client.enrolled.kid} | changes

    def jws(
        self, header: Any, payload: Any, key: Ed25519PrivateKey | None = None
    ) -> tuple[str, str, str]:
        head, body = part(header), part(payload)
        signer = key or self.client.enrolled.ticket_key
        return head, body, b64(signer.sign(f"{head}.{body}".encode()))

    def send(
        self, ticket: str, *, method: str = "POST", target: str = TARGET, body: bytes | None = None
    ) -> int:
        reply = self.client.raw(
            method, target, self.body if body is None else body, {"Narthex-Ticket": ticket}
        )
        return reply.status


@pytest.fixture
def valid(rig: Rig, sleeper: Sleeper) -> Valid:
    plan = rig.client.plan("process.signal", **sleeper.named).json()
    body = {"params": sleeper.named, "plan": plan["digest"], "reason": "test"}
    return Valid(rig.client, json.dumps(body).encode())


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def part(document: Any) -> str:
    return b64(document if isinstance(document, bytes) else json.dumps(document).encode())


def altered_claims(valid: Valid) -> Iterator[dict[str, Any]]:
    now = int(time.time())
    for name in TEXT:
        for wrong in (*WRONG, valid.claims()[name] + "x", [valid.claims()[name]]):
            yield valid.claims(**{name: wrong})
    for name in ("sub", "jti"):
        yield from (valid.claims(**{name: wrong}) for wrong in NO_TEXT)
    wrong_times: dict[str, tuple[Any, ...]] = {
        "iat": (now - 61, now - YEARS, now + 1000, None, "x", [], {}, 1e300),
        "nbf": (now + 1000, now + YEARS, None, "x", [], {}, 1e300),
        "exp": (now - 1000, now + 1000, now + YEARS, 0, -1, None, "x", [], {}, 1e300),
    }
    for name, wrongs in wrong_times.items():
        yield from (valid.claims(**{name: wrong}) for wrong in wrongs)
    for name in (*TEXT, "sub", "jti", "iat", "nbf", "exp"):
        claims = valid.claims()
        del claims[name]
        yield claims


def forged(valid: Valid) -> Iterator[str]:
    """Tickets that a holder of everything but the signing key can make."""
    key = valid.client.enrolled.ticket_key.public_key()
    raw = key.public_bytes_raw()
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    other = Ed25519PrivateKey.generate()
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(other.public_key().public_bytes_raw())}
    for alg in ("none", "None", "NONE", ""):
        head, body = part(valid.header(alg=alg)), part(valid.claims())
        yield f"{head}.{body}."
        yield f"{head}.{body}.{b64(bytes(64))}"
    for secret in (raw, pem, b64(raw).encode(), b""):
        for alg, hashed in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
            head, body = part(valid.header(alg=alg)), part(valid.claims())
            mac = hmac.digest(secret, f"{head}.{body}".encode(), hashed)
            yield f"{head}.{body}.{b64(mac)}"
    for extra in ({}, {"jwk": jwk}, {"jku": "https://x/"}, {"x5u": "https://x/"}, {"x5c": ["AA"]}):
        yield ".".join(valid.jws(valid.header(**extra), valid.claims(), other))
    for index in range(0, 86, 2):
        head, body, signature = valid.jws(valid.header(), valid.claims())
        flipped = "A" if signature[index] != "A" else "B"
        yield f"{head}.{body}.{signature[:index]}{flipped}{signature[index + 1 :]}"
    for index in range(0, 300, 4):
        head, body, signature = valid.jws(valid.header(), valid.claims())
        flipped = "A" if body[index] != "A" else "B"
        yield f"{head}.{body[:index]}{flipped}{body[index + 1 :]}.{signature}"


def misheaded(valid: Valid) -> Iterator[str]:
    """Tickets that are signed by the right key, under a wrong header."""
    for name, wrongs in WRONG_HEADERS.items():
        for wrong in wrongs:
            yield ".".join(valid.jws(valid.header(**{name: wrong}), valid.claims()))
        header = valid.header()
        del header[name]
        yield ".".join(valid.jws(header, valid.claims()))
    yield ".".join(valid.jws(valid.header(crit=["b64"], b64=False), valid.claims()))
    yield ".".join(valid.jws(valid.header(crit=["x"], x=1), valid.claims()))


def malformed(valid: Valid) -> Iterator[str]:
    """Things that are no tickets at all."""
    head, body, signature = valid.jws(valid.header(), valid.claims())
    whole = f"{head}.{body}.{signature}"
    yield from ("", ".", "..", "...", "x", head, f"{head}.{body}", whole[:-1], whole + "x")
    yield from (
        whole + ".x",
        whole.replace(".", " "),
        f"Bearer {whole}",
        "A" * 9000,
        "%00",
        "\xff",
    )
    for nothing in (b"", b"[]", b"null", b"1", b'"x"', b"{", b"\xff", b"[" * 5000):
        yield ".".join(valid.jws(valid.header(), nothing))
        yield ".".join(valid.jws(nothing, valid.claims()))


def test_no_altered_ticket_is_accepted(rig: Rig, sleeper: Sleeper, valid: Valid) -> None:
    tickets = [".".join(valid.jws(valid.header(), claims)) for claims in altered_claims(valid)]
    tickets += [*forged(valid), *misheaded(valid), *malformed(valid)]
    found = [valid.send(ticket) for ticket in tickets]
    assert [ticket for ticket, status in zip(tickets, found, strict=True) if status != 401] == []
    assert nothing_was_done(rig, sleeper)
    assert len(found) > 350


def test_no_altered_request_is_accepted(rig: Rig, sleeper: Sleeper, valid: Valid) -> None:
    bodies = [flipped(valid.body, index) for index in range(len(valid.body))]
    found = [valid.send(fresh(valid), body=body) for body in bodies]
    found += [valid.send(fresh(valid), method=method) for method in OTHER_METHODS]
    found += [valid.send(fresh(valid), target=target) for target in OTHER_TARGETS]
    assert set(found) == {401}
    assert nothing_was_done(rig, sleeper)
    assert len(found) > 150


def fresh(valid: Valid) -> str:
    claims = valid.client.claims("POST", TARGET, valid.body, act="process.signal")
    return valid.client.sign(claims)


def flipped(body: bytes, index: int) -> bytes:
    return body[:index] + bytes([body[index] ^ 1]) + body[index + 1 :]


def nothing_was_done(rig: Rig, sleeper: Sleeper) -> bool:
    begun = [row for row in rig.audit_rows if row["event"].startswith("run.")]
    return sleeper.process.poll() is None and not begun


def test_the_unaltered_request_is_accepted(sleeper: Sleeper, valid: Valid) -> None:
    assert valid.send(".".join(valid.jws(valid.header(), valid.claims()))) == 202
    assert sleeper.process.wait(10) == -15


def test_a_captured_request_is_executed_once(enrolled: Enrolled, sleeper: Sleeper) -> None:
    params = {**sleeper.named, "signal": "CONT"}
    with running(enrolled) as rig:
        plan = rig.client.plan("process.signal", **params).json()
        body = json.dumps({"params": params, "plan": plan["digest"]}).encode()
        valid = Valid(rig.client, body)
        ticket = ".".join(valid.jws(valid.header(), valid.claims()))
        assert [valid.send(ticket) for _ in range(101)] == [202, *[401] * 100]
    with running(enrolled) as rig:
        assert valid.send(ticket) == 401
        accepted = [row for row in rig.audit_rows if row["event"] == "run.accepted"]
        assert len(accepted) == 1


def test_a_ticket_is_good_for_one_node_only(rig: Rig, valid: Valid) -> None:
    claims = valid.claims(aud="node:n-other")
    assert valid.send(".".join(valid.jws(valid.header(), claims))) == 401


@pytest.mark.parametrize("skew", [-110, 110])
def test_a_clock_that_is_wrong_by_two_minutes_is_forgiven(valid: Valid, skew: int) -> None:
    now = int(time.time()) + skew
    claims = valid.claims(iat=now, nbf=now, exp=now + 30)
    assert valid.send(".".join(valid.jws(valid.header(), claims))) == 202


def test_a_ticket_for_a_query_runs_no_action(rig: Rig, valid: Valid) -> None:
    claims = valid.claims(act="process.list")
    assert valid.send(".".join(valid.jws(valid.header(), claims))) == 401


def test_a_signed_body_that_names_a_key_twice_is_refused(rig: Rig, sleeper: Sleeper) -> None:
    named = json.dumps(sleeper.named)
    body = b'{"plan": "x", "params": %s, "params": %s}' % (b"{}", named.encode())
    claims = rig.client.claims("POST", TARGET, body, act="process.signal")
    reply = rig.client.raw("POST", TARGET, body, {"Narthex-Ticket": rig.client.sign(claims)})
    assert (reply.status, reply.json()["type"]) == (400, "body-invalid")


def test_a_stale_nonce_is_told_apart_so_that_the_operator_asks_anew(rig: Rig) -> None:
    for stale in ({"nonce": "x"}, {"inst": "x"}):
        reply = rig.client.call("GET", "/api/v1/manifest", act="manifest", **stale)
        assert (reply.status, reply.json()["type"]) == (401, "ticket-nonce")
        assert reply.headers["Replay-Nonce"]


def test_the_run_in_a_path_is_the_run_of_the_ticket(rig: Rig) -> None:
    reply = rig.client.call("GET", f"/api/v1/runs/{new_run_id()}", act="run", op=new_run_id())
    assert (reply.status, reply.json()["title"]) == (401, "op")


def test_refused_tickets_are_audited_and_cannot_flood_the_audit(rig: Rig) -> None:
    for _ in range(100):
        rig.client.raw("GET", "/api/v1/manifest")
    refused = [row for row in rig.audit_rows if row["event"] == "request.refused"]
    assert len(refused) == 60
    assert refused[0]["reason"] == "missing"
