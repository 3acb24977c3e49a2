"""A real actor on a Unix socket, its authority, and a client that signs tickets."""

import base64
import contextlib
import datetime as dt
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import override

from narthex_exporter.actor.app import Actor, build
from narthex_exporter.actor.node import CATALOGUE, Config
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.contract.tickets import Claims, body_digest, sign
from narthex_exporter.contract.wire import new_run_id
from narthex_exporter.transport.server import Limits, Listener, Server, listen_unix

CLUSTER = "0123456789abcdef"
NODE = "n-test"
MANAGE = """\
version: 1
mode: manage
danger: {process: disruptive, service: disruptive}
"""


# Every caller on a Unix socket is one peer.
LIMITS = Limits(connections=256, connections_per_peer=256)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Enrolled:
    """A node's folder as enrolment leaves it, and the secrets that only a signer has."""

    home: Path
    ca_key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    ticket_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    kid: str = "k1"
    config: Config = field(init=False)

    def __post_init__(self) -> None:
        self.config = self.layout()
        (self.home / "pki").mkdir(mode=0o700, parents=True)
        self.write_node()
        self.write_ca()
        self.write_keys(version=1)
        self.write_policy(MANAGE)

    def layout(self) -> Config:
        return Config(
            node_dir=self.home,
            state_dir=self.home / "actor",
            socket=self.home / "actor.sock",
            policy_file=self.home / "policy.yaml",
        )

    def write_node(self, **changes: str) -> None:
        node = {"id": NODE, "name": "test", "cluster": CLUSTER, "generation": 1, **changes}
        (self.home / "node.json").write_text(json.dumps(node))

    def write_ca(self) -> None:
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
        now = dt.datetime.now(tz=dt.UTC)
        ca = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.ca_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.ca_key, hashes.SHA256())
        )
        pem = ca.public_bytes(serialization.Encoding.PEM)
        (self.home / "pki" / "ca.pem").write_bytes(pem)

    def write_keys(self, *, version: int, **changes: Any) -> None:
        raw = self.ticket_key.public_key().public_bytes_raw()
        document = {
            "version": version,
            "cluster": CLUSTER,
            "keys": [{"kid": self.kid, "key": base64.urlsafe_b64encode(raw).decode()}],
            **changes,
        }
        text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        signature = self.ca_key.sign(text, ec.ECDSA(hashes.SHA256()))
        document["signature"] = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
        (self.home / "tickets.json").write_text(json.dumps(document))

    def write_policy(self, text: str) -> None:
        self.config.policy_file.write_text(text)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, *, timeout: float = 30.0) -> None:
        super().__init__("actor", timeout=timeout)
        self.path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


@dataclass
class Client:
    """The operator's part: nonce, ticket, request."""

    enrolled: Enrolled

    def raw(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = UnixConnection(self.enrolled.config.socket)
        with contextlib.closing(connection):
            connection.request(method, target, body, dict(headers or {}))
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.headers), reply.read())

    def claims(self, method: str, target: str, body: bytes, *, act: str, **changes: Any) -> Claims:
        fresh = self.raw("GET", "/api/v1/nonce").headers
        now = int(time.time())
        return Claims(
            **{
                "iss": CLUSTER,
                "aud": f"node:{NODE}",
                "sub": "user:1",
                "act": act,
                "htm": method,
                "htu": target,
                "ph": body_digest(body),
                "op": new_run_id(),
                "jti": os.urandom(8).hex(),
                "inst": fresh["Narthex-Instance"],
                "nonce": fresh["Replay-Nonce"],
                "iat": now,
                "nbf": now,
                "exp": now + 30,
                **changes,
            }
        )

    def sign(self, claims: Claims) -> str:
        return sign(claims, key=self.enrolled.ticket_key, kid=self.enrolled.kid)

    def call(
        self, method: str, target: str, document: Any = None, *, act: str, **changes: Any
    ) -> Reply:
        body = b"" if document is None else json.dumps(document).encode()
        ticket = self.sign(self.claims(method, target, body, act=act, **changes))
        return self.raw(method, target, body, {"Narthex-Ticket": ticket})

    def query(self, name: str, /, **params: Any) -> Reply:
        return self.call("POST", f"/api/v1/queries/{name}", {"params": params}, act=name)

    def plan(self, name: str, /, **params: Any) -> Reply:
        return self.call("POST", f"/api/v1/actions/{name}/plans", {"params": params}, act=name)

    def submit(self, name: str, /, *, plan: str, run_id: str, **params: Any) -> Reply:
        body = {"params": params, "plan": plan}
        return self.call("POST", f"/api/v1/actions/{name}/runs", body, act=name, op=run_id)

    def run(self, name: str, /, **params: Any) -> Any:
        """Plan, run, and wait for the end."""
        planned = self.plan(name, **params)
        assert planned.status == 200, planned.body
        run_id = new_run_id()
        accepted = self.submit(name, plan=planned.json()["digest"], run_id=run_id, **params)
        assert accepted.status == 202, accepted.body
        return self.wait(run_id)

    def get(self, run_id: str) -> Reply:
        return self.call("GET", f"/api/v1/runs/{run_id}", act="run", op=run_id)

    def wait(self, run_id: str) -> Any:
        """Follow a run to its end and return its last state."""
        reply = self.call("GET", f"/api/v1/runs/{run_id}/events", act="run", op=run_id)
        assert reply.status == 200, reply.body
        return json.loads([line for line in reply.body.splitlines() if line][-1])


@dataclass
class Rig:
    """A running actor in this process."""

    enrolled: Enrolled
    actor: Actor
    client: Client

    @property
    def audit_rows(self) -> list[dict[str, Any]]:
        text = (self.enrolled.home / "actor" / "audit.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


@contextlib.contextmanager
def running(enrolled: Enrolled, *, catalogue: Catalogue = CATALOGUE) -> Iterator[Rig]:
    with build(enrolled.config, catalogue=catalogue) as actor:
        listener = Listener(sock=listen_unix(enrolled.config.socket, mode=0o660))
        with Server(app=actor.wsgi, listeners=[listener], limits=LIMITS):
            yield Rig(enrolled, actor, Client(enrolled))


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    return Enrolled(tmp_path / "node")


@pytest.fixture
def rig(enrolled: Enrolled) -> Iterator[Rig]:
    with running(enrolled) as one:
        yield one


@dataclass
class Sleeper:
    """A real process to act on."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def start_ticks(self) -> int:
        text = Path(f"/proc/{self.pid}/stat").read_text()
        return int(text.rpartition(")")[2].split()[19])

    @property
    def named(self) -> dict[str, int]:
        return {"pid": self.pid, "start_ticks": self.start_ticks}


@contextlib.contextmanager
def started(*argv: str) -> Iterator[Sleeper]:
    process = subprocess.Popen(argv or ("sleep", "300"), stdin=subprocess.DEVNULL)
    try:
        yield Sleeper(process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def sleeper() -> Iterator[Sleeper]:
    with started() as one:
        yield one


@contextlib.contextmanager
def actor_process(enrolled: Enrolled, *extra: str) -> Iterator[subprocess.Popen[bytes]]:
    """The real program, as the supervisor starts it; killed at the end."""
    config = enrolled.config
    process = subprocess.Popen(
        [
            sys.executable, "-Im", "narthex_exporter", "actor",
            "--state.dir", str(config.node_dir),
            "--actor.state-dir", str(config.state_dir), "--actor.socket", str(config.socket),
            "--policy.file", str(config.policy_file), *extra,
        ],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def until_listening(enrolled: Enrolled, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with contextlib.suppress(OSError):
            if Client(enrolled).raw("GET", "/api/v1/nonce").status == 204:
                return
        time.sleep(0.05)
    raise AssertionError("the actor did not listen in 20 s")
