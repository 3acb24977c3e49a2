"""Ten thousand generated attacks: none is executed, none is answered with a fault of ours.

Each begins as the request that would signal a process, and differs from it in one thing. They
are generated from a seed, which a failure names: the same seed gives the same attacks.
"""

import base64
import io
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.exporter.actor.conftest import CLUSTER, NODE, Rig, Sleeper

from narthex_exporter.actor.node import CATALOGUE
from narthex_exporter.contract.tickets import TYPE, body_digest
from narthex_exporter.contract.wire import new_run_id

ATTACKS = 10_000
SEED = 20_261_126
RUN = "/api/v1/actions/process.signal/runs"
# What a parameter may never carry, whichever action it is for.
HOSTILE = (
    "-x", "--help", "-oProxyCommand=id", "a\nb", "a\r\nb", "a\x00b", "a\x1b[2Jb", "$(id)", "`id`",
    ";id", "|id", "&& id", "../../etc/shadow", "a b.service", "\u202egnp.service", "\ud83d",
    "", " ", "x" * 70_000, "a.service\n", "%00", "\uff0e\uff0e/",
)  # fmt: skip
WRONG: tuple[Any, ...] = (None, True, 0, -1, 1.5, 10**30, "", "x", [], {}, ["x"], {"x": 1})


@dataclass
class Attacker:
    """Somebody who has every secret of the operator, and one thing wrong."""

    rig: Rig
    target: dict[str, int]
    digest: str
    dice: random.Random
    strangers: list[Ed25519PrivateKey] = field(
        default_factory=lambda: [Ed25519PrivateKey.generate() for _ in range(4)]
    )
    used: list[tuple[str, bytes]] = field(default_factory=list)
    nonce: str = ""
    instance: str = ""

    def body(self, **changes: Any) -> bytes:
        document = {"params": dict(self.target), "plan": self.digest, "reason": "x", **changes}
        return json.dumps(document).encode()

    def claims(self, body: bytes, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": CLUSTER, "aud": f"node:{NODE}", "sub": "user:1", "act": "process.signal",
            "htm": "POST", "htu": RUN, "ph": body_digest(body), "op": new_run_id(),
            "jti": self.dice.randbytes(8).hex(), "inst": self.instance, "nonce": self.nonce,
            "iat": now, "nbf": now, "exp": now + 30, **changes,
        }  # fmt: skip

    def ticket(
        self, claims: Any, *, header: Any = None, key: Ed25519PrivateKey | None = None
    ) -> str:
        head = part({"alg": "EdDSA", "typ": TYPE, "kid": "k1"} | (header or {}))
        text = f"{head}.{part(claims)}"
        signer = key or self.rig.enrolled.ticket_key
        return f"{text}.{b64(signer.sign(text.encode()))}"

    def send(
        self, ticket: str, body: bytes, *, method: str = "POST", target: str = RUN
    ) -> tuple[int, dict[str, str]]:
        """Ask the actor's application, as its own server would."""
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": target.partition("?")[0], "RAW_URI": target,
            "QUERY_STRING": target.partition("?")[2], "SERVER_NAME": "actor",
            "SERVER_PORT": "0", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)),
            "HTTP_NARTHEX_TICKET": ticket, "wsgi.errors": io.StringIO(),
        }  # fmt: skip
        told: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            told.update(status=int(status.split(maxsplit=1)[0]), headers=dict(headers))

        for _ in self.rig.actor.wsgi(environ, start):
            pass
        self.nonce = told["headers"].get("Replay-Nonce", self.nonce)
        self.instance = told["headers"].get("Narthex-Instance", self.instance)
        return told["status"], told["headers"]

    # Each kind of attack gives the status it was answered with.

    def altered_claim(self) -> int:
        body = self.body()
        claims = self.claims(body)
        name = self.dice.choice(list(claims))
        if self.dice.random() < 0.2:
            del claims[name]
        elif name in {"sub", "jti"}:
            claims[name] = self.dice.choice([one for one in WRONG if not isinstance(one, str)])
        elif name in {"iat", "nbf", "exp"}:
            # To begin earlier is no attack: a ticket may be older than that.
            way = 1 if name == "nbf" else self.dice.choice((-1, 1))
            claims[name] += way * self.dice.randint(1_000, 10**9)
        elif name == "op":  # any UUIDv7 is a run's id
            claims[name] = self.dice.choice((*WRONG, claims[name].upper(), f"{claims[name]}x"))
        else:
            claims[name] = self.dice.choice((*WRONG, altered(self.dice, str(claims[name]))))
        return self.send(self.ticket(claims), body)[0]

    def altered_header(self) -> int:
        body = self.body()
        name = self.dice.choice(("alg", "typ", "kid"))
        header = {name: self.dice.choice((*WRONG, "none", "HS256", "RS256", "JWT", "k2"))}
        if name == "alg":
            header = {"alg": self.dice.choice(("none", "None", "HS256", "ES256", "", "x"))}
        return self.send(self.ticket(self.claims(body), header=header), body)[0]

    def altered_body(self) -> int:
        body = self.body()
        ticket = self.ticket(self.claims(body))
        at = self.dice.randrange(len(body))
        other = self.dice.choice(
            (
                body[:at] + bytes([body[at] ^ (1 << self.dice.randrange(8))]) + body[at + 1 :],
                body[:at] + body[at + 1 :],
                body[:at] + self.dice.randbytes(3) + body[at:],
                body[:at],
                b"",
                body + b" ",
            )
        )
        return self.send(ticket, other)[0]

    def altered_path(self) -> int:
        body = self.body()
        ticket = self.ticket(self.claims(body))
        method = self.dice.choice(("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "POST"))
        target = altered(self.dice, RUN) if method == "POST" else RUN
        return self.send(ticket, body, method=method, target=target)[0]

    def replay(self) -> int:
        """The same ticket again: the first time it is used up on a request that is refused."""
        if not self.used or self.dice.random() < 0.3:
            body = self.body(plan="0" * 64)
            ticket = self.ticket(self.claims(body))
            self.used.append((ticket, body))
            return self.send(ticket, body)[0]
        ticket, body = self.dice.choice(self.used)
        return self.send(ticket, body)[0]

    def wrong_key(self) -> int:
        body = self.body()
        key = self.dice.choice(self.strangers)
        kid = self.dice.choice(("k1", "k2", b64(key.public_key().public_bytes_raw())))
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
        header = {"kid": kid} | self.dice.choice(({}, {"jwk": jwk}, {"jku": "https://x/"}))
        return self.send(self.ticket(self.claims(body), header=header, key=key), body)[0]

    def altered_signature(self) -> int:
        body = self.body()
        head, payload, signature = self.ticket(self.claims(body)).split(".")
        raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
        raw[self.dice.randrange(64)] ^= 1 << self.dice.randrange(8)
        cut = self.dice.choice((raw, raw[:-1], raw + b"\0", b""))
        return self.send(f"{head}.{payload}.{b64(bytes(cut))}", body)[0]

    def duplicate_key(self) -> int:
        name = self.dice.choice(("params", "plan", "reason"))
        body = self.body()
        value = json.dumps(self.dice.choice((self.target, self.digest, "x", {})))
        twice = body[:-1] + f', "{name}": {value}}}'.encode()
        inner = body.replace(b'{"pid"', b'{"pid": 1, "pid"')
        body = self.dice.choice((twice, inner))
        return self.send(self.ticket(self.claims(body)), body)[0]

    def unknown_field(self) -> int:
        name = self.dice.choice(("x", "Pid", "pid ", "__class__", "unit", "signal2", "\u200bpid"))
        params = {**self.target, name: self.dice.choice(WRONG)}
        outside = self.body(**{name: 1})
        body = self.dice.choice((self.body(params=params), outside))
        return self.send(self.ticket(self.claims(body)), body)[0]

    def hostile_parameter(self) -> int:
        action = CATALOGUE.actions[self.dice.choice(sorted(CATALOGUE.actions))]
        fields = list(action.params.model_fields)
        params: dict[str, Any] = {**self.target} if action.family == "process" else {}
        name = self.dice.choice(fields)
        params[name] = self.dice.choice((*HOSTILE, *WRONG))
        target = f"/api/v1/actions/{action.name}/runs"
        body = json.dumps({"params": params, "plan": self.digest}).encode()
        claims = self.claims(body, act=action.name, htu=target)
        return self.send(self.ticket(claims), body, target=target)[0]

    def no_json(self) -> int:
        body = self.dice.choice(
            (
                b"[" * self.dice.randint(1, 60_000),
                b'{"params": NaN}',
                self.dice.randbytes(self.dice.randint(0, 300)),
                b'{"params": {"pid": 1e999}}',
                json.dumps(self.dice.choice(WRONG)).encode(),
                b"\xff\xfe" + self.body(),
            )
        )
        return self.send(self.ticket(self.claims(body)), body)[0]

    def no_ticket(self) -> int:
        junk = "".join(chr(self.dice.randrange(33, 126)) for _ in range(self.dice.randrange(400)))
        ticket = self.dice.choice(("", "..", "a.b.c", junk, "A" * 9000, part({}) * 3))
        return self.send(ticket, self.body())[0]

    @property
    def kinds(self) -> tuple[Callable[[], int], ...]:
        return (
            self.altered_claim, self.altered_header, self.altered_body, self.altered_path,
            self.replay, self.wrong_key, self.altered_signature, self.duplicate_key,
            self.unknown_field, self.hostile_parameter, self.no_json, self.no_ticket,
        )  # fmt: skip


def part(document: Any) -> str:
    return b64(json.dumps(document).encode())


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def altered(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text))
    other = dice.choice([c for c in "abcxyz019-_./%" if c != text[at]])
    return dice.choice(
        (text[:at] + other + text[at + 1 :], text[:at] + text[at + 1 :], text + "x")
    )


@pytest.fixture
def attacker(rig: Rig, sleeper: Sleeper) -> Iterator[Attacker]:
    digest = rig.client.plan("process.signal", **sleeper.named).json()["digest"]
    one = Attacker(rig, sleeper.named, digest, random.Random(SEED))  # noqa: S311 - repeatable
    one.send("", b"", method="GET", target="/api/v1/nonce")
    yield one
    # The request that all of them began as would have been executed.
    assert one.send(one.ticket(one.claims(one.body())), one.body())[0] == 202
    assert sleeper.process.wait(10) == -15


def test_none_of_ten_thousand_attacks_is_executed(attacker: Attacker, sleeper: Sleeper) -> None:
    found: Counter[tuple[str, int]] = Counter()
    for number in range(ATTACKS):
        kind = attacker.kinds[number % len(attacker.kinds)]
        status = kind()
        found[kind.__name__, status] += 1
        assert 400 <= status < 500, (SEED, number, kind.__name__, status)
    assert found.total() == ATTACKS
    assert {kind for kind, _ in found} == {kind.__name__ for kind in attacker.kinds}
    assert sleeper.process.poll() is None
    rows = attacker.rig.audit_rows
    assert [row for row in rows if row["event"].startswith("run.")] == []
    assert attacker.rig.actor.store.unfinished() == []
