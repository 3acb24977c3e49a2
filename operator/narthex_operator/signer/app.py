"""Answer the operator's requests for signatures, under limits of the signer's own."""

import dataclasses
import ipaddress
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ValidationError

from narthex_exporter.contract import tickets
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.wire import strict_json
from narthex_exporter.transport.identity import TRUST_ROOT, Role, node_dns_name
from narthex_exporter.transport.server import PEER_UID, Limits
from narthex_operator.security.certificates import read_csr, to_pem
from narthex_operator.signer.ca import IPAddress, Leaf, issue
from narthex_operator.signer.keystore import KeyRotation, KeyStore, TooSoonError
from narthex_operator.signer.ledger import Ledger, LedgerError
from narthex_operator.signer.limits import Buckets
from narthex_operator.signer.messages import (
    MAX_TICKETS,
    CAReply,
    CertificateReply,
    CheckpointReply,
    CheckpointRequest,
    ErrorReply,
    NodeCertificateRequest,
    RoleCertificateRequest,
    RotationReply,
    RotationRequest,
    TicketReply,
    TicketRequest,
    TicketsReply,
    TicketsRequest,
    checkpoint_bytes,
)

log = logging.getLogger(__name__)

MAX_BODY_BYTES: Final = 64 * 1024
# The largest batch of the largest claims that a node would still read.
MAX_BATCH_BYTES: Final = MAX_TICKETS * tickets.MAX_TICKET_BYTES
# What its server lets a peer do.
LIMITS: Final = Limits(connections=64, body_bytes=MAX_BATCH_BYTES)
_SKEW_SECONDS: Final = 30
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})
_TEXT: Final = {
    "aud": re.compile(r"node:[a-z0-9][a-z0-9-]{0,62}"),
    "sub": re.compile(r"(?:user|key|sched|local):[A-Za-z0-9._-]{1,64}"),
    "act": re.compile(r"[a-z][a-z0-9.-]{0,127}"),
    "htu": re.compile(r"/api/v1/[\x21-\x7e]{1,1024}"),
    "ph": re.compile(r"[0-9a-f]{64}"),
    "op": re.compile(r"[0-9a-f-]{36}"),
    "jti": re.compile(r"[A-Za-z0-9._-]{8,64}"),
    "inst": re.compile(r"[\x21-\x7e]{1,128}"),
    "nonce": re.compile(r"[\x21-\x7e]{1,256}"),
}


class SignerRefusalError(NarthexError):
    """The signer does not sign this."""

    def __init__(self, message: str, *, status: str = "400 Bad Request", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


def _ticket_buckets() -> Buckets:
    # A run on a thousand nodes takes four tickets for each at once: what it can do, the plan, the
    # run, its result. Thereafter the operator looks every 5 s after what still runs: fifty a
    # second are 250 of those, and a look that is refused is made again later. Somebody who has
    # taken the operator over gets no more than that for one subject, and each stands in the audit.
    return Buckets(burst=4000, per_second=50)


def _certificate_buckets() -> Buckets:
    return Buckets(burst=20, per_second=1 / 30)


@dataclass(slots=True, kw_only=True)
class SignerApp:
    """The signer as a WSGI application; its socket decides who may talk to it."""

    store: KeyStore
    ledger: Ledger
    clock: Callable[[], float] = time.time
    tickets_allowed: Buckets = field(default_factory=_ticket_buckets)
    certificates_allowed: Buckets = field(default_factory=_certificate_buckets)

    def __post_init__(self) -> None:
        self.store.rotating = self._note_rotation

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        status, body = self._answer(environ)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, bytes]:
        route = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
        handler = self._routes().get(route)
        if handler is None:
            return "404 Not Found", _json(ErrorReply(error="there is no such request"))
        try:
            if route in _OWNERS_ALONE:
                _check_owner(environ.get(PEER_UID))
            most = MAX_BATCH_BYTES if route == _BATCH else MAX_BODY_BYTES
            return "200 OK", handler(environ["wsgi.input"].read(most))
        except SignerRefusalError as error:
            log.warning("signer.refused", extra={"path": route[1], "error": str(error)})
            return error.status, _json(ErrorReply(error=str(error), hint=error.hint))
        except ValueError as error:  # pydantic's ValidationError is one
            text = _explain(error)
            log.warning("signer.refused", extra={"path": route[1], "error": text})
            return "400 Bad Request", _json(ErrorReply(error=text))
        except LedgerError as error:
            log.exception("signer.unaudited", extra={"path": route[1]})
            return "503 Service Unavailable", _json(ErrorReply(error=str(error), hint=error.hint))

    def _routes(self) -> dict[tuple[str, str], Callable[[bytes], bytes]]:
        return {
            ("GET", "/v1/ca"): self._ca,
            ("GET", "/v1/ticket-keys"): self._ticket_keys,
            ("POST", "/v1/ticket-keys/rotate"): self._rotate,
            ("POST", "/v1/certificates/node"): self._node_certificate,
            ("POST", "/v1/certificates/role"): self._role_certificate,
            ("POST", "/v1/tickets"): self._ticket,
            _BATCH: self._tickets,
            ("POST", "/v1/checkpoints"): self._checkpoint,
        }

    def _ca(self, _body: bytes) -> bytes:
        return _json(
            CAReply(
                cluster=self.store.cluster,
                certificate=to_pem(self.store.ca),
                pin=self.store.pin,
            )
        )

    def _ticket_keys(self, _body: bytes) -> bytes:
        return json.dumps(self.store.ticket_keys()).encode()

    def _rotate(self, body: bytes) -> bytes:
        request = RotationRequest.model_validate(strict_json(body))
        try:
            done = self.store.rotate(force=request.force)
        except TooSoonError as error:
            raise SignerRefusalError(str(error), status=_CONFLICT, hint=error.hint) from error
        return _json(RotationReply.model_validate(dataclasses.asdict(done)))

    def _note_rotation(self, rotation: KeyRotation) -> None:
        self.ledger.append("ticket-keys.rotated", **dataclasses.asdict(rotation))
        log.info("ticket-keys.rotated", extra=dataclasses.asdict(rotation))

    def _node_certificate(self, body: bytes) -> bytes:
        request = NodeCertificateRequest.model_validate(strict_json(body))
        leaf = Leaf(
            role=Role.NODE,
            id=request.node,
            names=(node_dns_name(self.store.cluster, request.node),),
            addresses=_addresses(request.addresses),
            generation=request.generation,
        )
        return self._issue(leaf, request.csr)

    def _role_certificate(self, body: bytes) -> bytes:
        request = RoleCertificateRequest.model_validate(strict_json(body))
        names = request.names
        for name in names:
            if not name.endswith(f".{self.store.cluster}.{TRUST_ROOT}"):
                raise SignerRefusalError(f"the name {name!r} is not one of this cluster's")
            if f".node.{self.store.cluster}." in name:
                raise SignerRefusalError(f"the name {name!r} is a node's")
        if request.role != "server" and (names or request.addresses):
            raise SignerRefusalError(f"a certificate for the role {request.role} has no names")
        leaf = Leaf(
            role=Role(request.role),
            id=request.id,
            names=names,
            addresses=_addresses(request.addresses),
        )
        return self._issue(leaf, request.csr)

    def _issue(self, leaf: Leaf, csr: str) -> bytes:
        subject = f"{leaf.role}/{leaf.id}"
        if not self.certificates_allowed.take(subject):
            raise SignerRefusalError(f"too many certificates for {subject}", status=_TOO_MANY)
        key = read_csr(csr).public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise SignerRefusalError("the request is for a key of another kind")
        certificate = issue(
            leaf, key, ca=self.store.ca, key=self.store.ca_key, cluster=self.store.cluster
        )
        self.ledger.append(
            "certificate.issued",
            subject=subject,
            generation=leaf.generation,
            serial=f"{certificate.serial_number:x}",
            addresses=[str(address) for address in leaf.addresses],
            not_after=certificate.not_valid_after_utc.isoformat(),
        )
        return _json(CertificateReply(certificate=to_pem(certificate)))

    def _ticket(self, body: bytes) -> bytes:
        claims = TicketRequest.model_validate(strict_json(body)).claims
        return _json(TicketReply(ticket=self._signed((claims,))[0]))

    def _tickets(self, body: bytes) -> bytes:
        claims = TicketsRequest.model_validate(strict_json(body)).claims
        if len({one.sub for one in claims}) != 1:
            raise SignerRefusalError("the tickets of one request must have one subject")
        return _json(TicketsReply(tickets=self._signed(claims)))

    def _signed(self, wanted: tuple[tickets.Claims, ...]) -> tuple[str, ...]:
        """Sign tickets of one subject: all or none."""
        for claims in wanted:
            self._check_claims(claims)
        subject = wanted[0].sub
        if not self.tickets_allowed.take(subject, len(wanted)):
            raise SignerRefusalError(f"too many tickets for {subject}", status=_TOO_MANY)
        kid, key = self.store.ticket_key()
        self.ledger.append_many("ticket.signed", map(_written, wanted))
        return tuple(tickets.sign(claims, key=key, kid=kid) for claims in wanted)

    def _check_claims(self, claims: tickets.Claims) -> None:
        if claims.iss != self.store.cluster:
            raise SignerRefusalError("the ticket's issuer is another cluster")
        for name, form in _TEXT.items():
            if not form.fullmatch(getattr(claims, name)):
                raise SignerRefusalError(f"the ticket's {name} has not the form that it must have")
        if claims.htm not in _METHODS:
            raise SignerRefusalError("the ticket's method is none of ours")
        if not 0 < claims.exp - claims.iat <= tickets.MAX_LIFETIME_SECONDS:
            raise SignerRefusalError("the ticket must live 1 to 60 s")
        now = self.clock()
        if abs(claims.iat - now) > _SKEW_SECONDS or abs(claims.nbf - now) > _SKEW_SECONDS:
            raise SignerRefusalError("the ticket must begin now")
        if len(claims.rsn) > 1024 or len(claims.sid) > 128 or len(claims.apr) > 8:  # noqa: PLR2004
            raise SignerRefusalError("the ticket says too much")

    def _checkpoint(self, body: bytes) -> bytes:
        request = CheckpointRequest.model_validate(strict_json(body))
        if not self.certificates_allowed.take("checkpoint"):
            raise SignerRefusalError("too many checkpoints", status=_TOO_MANY)
        self.ledger.append("checkpoint.signed", operator_seq=request.seq, head=request.head)
        signature = self.store.ca_signature(checkpoint_bytes(self.store.cluster, request))
        return _json(CheckpointReply(signature=signature))


_TOO_MANY: Final = "429 Too Many Requests"
_CONFLICT: Final = "409 Conflict"
# What the operator itself, which the socket lets in, must not be able to ask for.
_OWNERS_ALONE: Final = frozenset({("POST", "/v1/ticket-keys/rotate")})


def _check_owner(uid: int | None) -> None:
    if uid not in {0, os.geteuid()}:
        raise SignerRefusalError(
            "only root and the signer's own user may rotate its keys",
            status="403 Forbidden",
            hint="run it as one of them, on the signer's machine",
        )


_BATCH: Final = ("POST", "/v1/tickets/batch")


def _written(claims: tickets.Claims) -> dict[str, Any]:
    """Give what the audit says of a ticket."""
    names = ("sub", "aud", "act", "htm", "op", "jti", "ph")
    return {**{name: getattr(claims, name) for name in names}, "session": claims.sid}


def _addresses(addresses: Iterable[IPAddress]) -> tuple[IPAddress, ...]:
    found = tuple(ipaddress.ip_address(str(address)) for address in addresses)
    if any(address.is_unspecified or address.is_multicast for address in found):
        raise SignerRefusalError("an address to vouch for must be one machine's")
    return found


def _json(message: BaseModel) -> bytes:
    return message.model_dump_json().encode()


def _explain(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
