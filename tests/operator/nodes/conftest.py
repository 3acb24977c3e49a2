from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from narthex_exporter.contract.enrolment import (
    EnrolmentReply,
    EnrolmentRequest,
    JoinToken,
    RenewalRequest,
    enrolment_mac,
    renewal_bytes,
    secret_digest,
)
from narthex_exporter.transport.keys import make_csr, new_key
from narthex_operator.db import Database
from narthex_operator.security.certificates import base64url
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import local_actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.nodes import NodeService


@dataclass
class Clock:
    offset: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(tz=UTC) + self.offset


@dataclass
class Machine:
    """What a node does to join and to renew, with its key in memory."""

    nodes: NodeService
    token: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    reply: EnrolmentReply | None = None

    def request(self, csr: str | None = None, **changes: str) -> EnrolmentRequest:
        token, nonce = JoinToken.parse(self.token), self.nodes.nonce().nonce
        csr = csr or make_csr(self.key)
        values = {
            "node": token.node, "csr": csr, "nonce": nonce,
            "mac": enrolment_mac(
                digest=secret_digest(token.secret), node=token.node, csr=csr, nonce=nonce
            ),
        }  # fmt: skip
        return EnrolmentRequest.model_validate(values | changes)

    def join(self) -> EnrolmentReply:
        self.reply = self.nodes.enrol(self.request(), address="192.0.2.1")
        return self.reply

    def renewal(self, csr: str, **changes: str) -> RenewalRequest:
        assert self.reply
        nonce = self.nodes.nonce().nonce
        data = renewal_bytes(node=self.reply.id, csr=csr, nonce=nonce)
        values = {
            "certificate": self.reply.certificate, "csr": csr, "nonce": nonce,
            "signature": base64url(self.key.sign(data, ec.ECDSA(hashes.SHA256()))),
        }  # fmt: skip
        return RenewalRequest.model_validate(values | changes)

    def renew(self) -> EnrolmentReply:
        key = new_key()
        self.reply = self.nodes.renew(self.renewal(make_csr(key)), address="192.0.2.1")
        self.key = key
        return self.reply


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def nodes(database: Database, signer: SignerClient, clock: Clock) -> NodeService:
    return NodeService(
        database=database,
        audit=AuditLedger(database=database, signer=signer),
        signer=signer,
        operator_url="https://192.0.2.9:19101",
        gateway_url="https://192.0.2.9:19105",
        nonce_key=b"k" * 32,
        clock=clock,
    )


@pytest.fixture
def machine(nodes: NodeService) -> Callable[..., Machine]:
    def make(name: str = "web-1") -> Machine:
        join = nodes.add(local_actor("t"), name=name, address="192.0.2.17:19100",
                         lifetime=timedelta(minutes=30))  # fmt: skip
        return Machine(nodes=nodes, token=join.token)

    return make
