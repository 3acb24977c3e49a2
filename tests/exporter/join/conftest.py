"""A real operator's enrolment: signer, database and nodes behind TLS, as the API serves it."""

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from narthex_exporter.contract import enrolment
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.durable import write_durably
from narthex_exporter.transport.keys import (
    key_pem,
    make_csr,
    new_key,
)
from narthex_exporter.transport.server import Listener, Server, listen_tcp, listen_unix
from narthex_exporter.transport.tls import ReloadingContext, TLSFiles
from narthex_operator.db import open_database
from narthex_operator.errors import OperatorError
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import local_actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.nodes import NodeService
from narthex_operator.services.views import JoinView
from narthex_operator.signer.app import SignerApp
from narthex_operator.signer.keystore import open_key_store
from narthex_operator.signer.ledger import Ledger
from narthex_operator.signer.messages import RoleCertificateRequest


@dataclass
class FakeApi:
    """The four enrolment routes over real services; ``seen`` keeps every request's bytes."""

    nodes: NodeService | None = None
    seen: list[bytes] = field(default_factory=list)
    lose_replies: int = 0
    url: str = ""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read()
        self.seen.append(environ["REQUEST_URI"].encode() + b" " + body)
        try:
            status, reply = "200 OK", self._answer(environ["PATH_INFO"], body)
        except OperatorError as error:
            status, reply = f"{error.status} Refused", _problem(error)
        if environ["REQUEST_METHOD"] == "POST" and self.lose_replies:
            self.lose_replies -= 1
            raise ConnectionError("the reply got lost")
        start(status, [("Content-Length", str(len(reply)))])
        return [reply]

    def _answer(self, path: str, body: bytes) -> bytes:
        assert self.nodes
        if path == enrolment.CA_PATH:
            return self.nodes.ca_pem().encode()
        reply: BaseModel
        if path == enrolment.NONCE_PATH:
            reply = self.nodes.nonce()
        elif path == enrolment.CERTIFICATES_PATH:
            request = enrolment.EnrolmentRequest.model_validate_json(body)
            reply = self.nodes.enrol(request, address="127.0.0.1")
        else:
            renewal = enrolment.RenewalRequest.model_validate_json(body)
            reply = self.nodes.renew(renewal, address="127.0.0.1")
        return reply.model_dump_json().encode()

    def add(self, name: str = "web-1") -> JoinView:
        assert self.nodes
        return self.nodes.add(
            local_actor("t"), name=name, address="127.0.0.1:19100", lifetime=timedelta(minutes=9)
        )


def _problem(error: NarthexError) -> bytes:
    from narthex_exporter.contract.wire import Problem

    problem = Problem(
        type="denied", title="Denied", status=403, detail=str(error), hint=error.hint
    )
    return problem.model_dump_json().encode()


@pytest.fixture
def signer(tmp_path: Path) -> Iterator[SignerClient]:
    store = open_key_store(tmp_path / "signer")
    ledger = Ledger(tmp_path / "signer" / "audit.jsonl")
    sock = listen_unix(tmp_path / "signer.sock")
    with Server(SignerApp(store=store, ledger=ledger), [Listener(sock=sock)]):
        yield SignerClient(socket=tmp_path / "signer.sock")
    ledger.close()
    store.close()


@pytest.fixture
def api(signer: SignerClient, tmp_path: Path) -> Iterator[FakeApi]:
    key = new_key()
    pem = signer.role_certificate(
        RoleCertificateRequest(
            csr=make_csr(key), role="server", id="panel",
            addresses=(ipaddress.ip_address("127.0.0.1"),),
        )
    )  # fmt: skip
    write_durably(tmp_path / "panel.pem", pem.encode())
    write_durably(tmp_path / "panel.key", key_pem(key))
    files = TLSFiles(cert=tmp_path / "panel.pem", key=tmp_path / "panel.key")
    sock, app = listen_tcp("127.0.0.1", 0), FakeApi()
    app.url = f"https://127.0.0.1:{sock.getsockname()[1]}"
    database = open_database(f"sqlite:///{tmp_path / 'db.sqlite3'}")
    database.upgrade()
    app.nodes = NodeService(
        database=database,
        audit=AuditLedger(database=database, signer=signer),
        signer=signer,
        operator_url=app.url,
        gateway_url="https://127.0.0.1:1",
        nonce_key=b"k" * 32,
    )
    with Server(app, [Listener(sock=sock, tls=ReloadingContext(files))]):
        yield app
    database.close()
