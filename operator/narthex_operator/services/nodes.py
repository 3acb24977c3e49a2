"""Nodes: how a machine becomes one, stays one, and stops being one."""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from narthex_exporter.actions import CATALOGUE as ACTIONS
from narthex_exporter.contract.enrolment import (
    EnrolmentReply,
    EnrolmentRequest,
    JoinToken,
    NonceReply,
    RenewalRequest,
    csr_digest,
    enrolment_mac,
    renewal_bytes,
    secret_digest,
)
from narthex_exporter.contract.fingerprint import six_words
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.contract.wire import FieldError
from narthex_exporter.transport.identity import Identity, PeerError, Role, identify
from narthex_exporter.transport.keys import public_key_info
from narthex_operator.config import split_address
from narthex_operator.db.engine import Database
from narthex_operator.db.models import JoinTokenRow, Node
from narthex_operator.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from narthex_operator.security.certificates import (
    generation_of,
    read_certificate,
    read_csr,
    signature_valid,
    signed_by,
)
from narthex_operator.security.chain import clean
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.ceilings import checked
from narthex_operator.services.selectors import check_labels
from narthex_operator.services.views import JoinView, NodeState, NodeView
from narthex_operator.signer.messages import NodeCertificateRequest

MAX_TOKEN_LIFETIME: Final = timedelta(minutes=60)
REPEAT_WITHIN: Final = timedelta(minutes=10)
GRACE: Final = timedelta(days=30)
_NONCE_SECONDS: Final = 120
_CATALOGUE: Final = Catalogue(actions=ACTIONS)
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CLONED: Final = "an older certificate of this node was used: its key may have been copied"


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(slots=True, kw_only=True)
class NodeService:
    """Implements ``interfaces.Nodes``, and the machines' side of enrolment.

    ``nonce_key`` signs the nonces, so that every replica knows those of the others.
    """

    database: Database
    audit: AuditLedger
    signer: SignerClient
    operator_url: str
    gateway_url: str
    nonce_key: bytes = field(repr=False)
    clock: Callable[[], datetime] = _now

    def list(self, actor: Actor) -> Sequence[NodeView]:
        """List nodes that are not removed (``node:read``)."""
        actor.require("node:read")
        query = select(Node).where(Node.removed_at.is_(None)).order_by(Node.name)
        with self.database.reading() as session:
            return tuple(_view(node) for node in session.scalars(query))

    def get(self, actor: Actor, ref: str) -> NodeView:
        """Find a node by name or id (``node:read``). Raises NotFoundError."""
        actor.require("node:read")
        with self.database.reading() as session:
            return _view(_find(session, ref))

    def add(self, actor: Actor, *, name: str, address: str, lifetime: timedelta) -> JoinView:
        """Add a node and make its one-time join token (``node:write``).

        A node that was added before and has not joined gets a new token; its old one dies.
        """
        actor.require("node:write")
        _check_addition(name, address, lifetime)
        token, now = secrets.token_urlsafe(32), self.clock()
        ca = self.signer.ca()
        with self.database.session() as session:
            node = session.scalar(select(Node).where(Node.name == name, Node.removed_at.is_(None)))
            if node is not None and node.generation:
                raise ConflictError(
                    f"there is a node {name} already, and it has joined",
                    hint="choose another name, or remove that node first",
                )
            if node is None:
                node = Node(id=f"n{secrets.token_hex(6)}", name=name, added_at=now)
                session.add(node)
            node.address = address
            session.flush()
            session.execute(
                update(JoinTokenRow)
                .where(JoinTokenRow.node_id == node.id, JoinTokenRow.used_at.is_(None))
                .values(expires_at=now)
            )
            expires = now + lifetime
            session.add(
                JoinTokenRow(
                    node_id=node.id,
                    secret_hash=secret_digest(token),
                    created_at=now,
                    expires_at=expires,
                )
            )
            session.flush()
            self._record(session, actor, "node.added", node, {"address": address})
            view = _view(node)
        join = JoinToken(node=view.id, secret=token)
        command = (
            f"script/join --operator {self.operator_url} --ca-pin {ca.pin}"
            f" --listen {address} --state.dir /var/lib/narthex <<< {join}"
        )
        return JoinView(
            node=view, token=str(join), ca_pin=ca.pin, command=command, expires_at=expires
        )

    def move(self, actor: Actor, ref: str, *, address: str) -> NodeView:
        """Keep a new address for a node's exporter (``node:write``).

        Its certificate must cover the IP address already; the port may be any.
        """
        actor.require("node:write")
        split_address(address)
        with self.database.session() as session:
            node = _find(session, ref)
            details = {"from": node.address, "to": address}
            node.address = address
            session.flush()
            self._record(session, actor, "node.moved", node, details)
            return _view(node)

    def approve(self, actor: Actor, ref: str) -> NodeView:
        """Let actions reach an enrolled node (``node:write``)."""
        actor.require("node:write")
        with self.database.session() as session:
            node = _find(session, ref)
            if not node.generation or node.removed_at or node.locked_reason:
                why = node.locked_reason or ("removed" if node.removed_at else "not joined yet")
                raise ConflictError(
                    f"{node.name} cannot be approved: {why}",
                    hint="remove it, add it again and join it with the new token",
                )
            if node.approved_at is None:
                node.approved_at = self.clock()
                session.flush()
                self._record(session, actor, "node.approved", node,
                             {"fingerprint": node.fingerprint})  # fmt: skip
            return _view(node)

    def set_ceiling(self, actor: Actor, ref: str, *, ceiling: Mapping[str, str]) -> NodeView:
        """Narrow what is sent to a node (``node:write``)."""
        actor.require("node:write")
        wanted = checked(ceiling, _CATALOGUE)
        with self.database.session() as session:
            node = _find(session, ref)
            before, node.ceiling = node.ceiling, wanted
            session.flush()
            self._record(session, actor, "node.ceiling-changed", node,
                         {"from": before, "to": wanted})  # fmt: skip
            return _view(node)

    def remove(self, actor: Actor, ref: str) -> NodeView:
        """Refuse a node's certificate and stop its scrape; history stays (``node:write``)."""
        actor.require("node:write")
        with self.database.session() as session:
            node = _find(session, ref)
            if node.removed_at is None:
                now = self.clock()
                node.removed_at = now
                session.execute(
                    update(JoinTokenRow)
                    .where(JoinTokenRow.node_id == node.id, JoinTokenRow.used_at.is_(None))
                    .values(expires_at=now)
                )
                session.flush()
                self._record(session, actor, "node.removed", node)
            return _view(node)

    def label(
        self,
        actor: Actor,
        ref: str,
        *,
        labels: Mapping[str, str] | None = None,
        group: str | None = None,
    ) -> NodeView:
        """Give a node other labels (all of them), another group, or both (``node:write``)."""
        actor.require("node:write")
        if labels is not None:
            check_labels(labels)
        if group and not _NAME.fullmatch(group):
            raise InvalidError(
                "a group's name has 1 to 63 of a-z, 0-9 and dash",
                errors=(FieldError(path="group", message="not a group's name"),),
            )
        with self.database.session() as session:
            node = _find(session, ref)
            before = {"group": node.group, "labels": dict(node.labels)}
            node.labels = dict(node.labels if labels is None else labels)
            node.group = node.group if group is None else group
            after = {"group": node.group, "labels": dict(node.labels)}
            if after != before:
                session.flush()
                details = {"from": before, "to": after}
                self._record(session, actor, "node.labelled", node, details)
            return _view(node)

    def name_of(self, identity: Identity) -> str | None:
        """Tell which node a verified certificate is, now; None where it is refused.

        A removed, locked or renewed-away certificate is refused from the next request on.
        """
        if identity.role is not Role.NODE:
            return None
        with self.database.reading() as session:
            node = session.get(Node, identity.id)
            if node is None or node.removed_at or node.locked_reason:
                return None
            # While a node changes over, connections opened with its last certificate go on.
            present = {node.certificate_fingerprint, node.previous_fingerprint}
            return node.name if identity.fingerprint in present else None

    def ca_pem(self) -> str:
        """Give the CA's certificate."""
        return self.signer.ca().certificate

    def ticket_keys(self) -> dict[str, Any]:
        """Give the CA-signed document of public ticket keys."""
        return self.signer.ticket_keys()

    def nonce(self) -> NonceReply:
        """Make a nonce that some replica will know for two minutes."""
        now = self.clock()
        body = f"{int(now.timestamp())}.{secrets.token_urlsafe(12)}"
        return NonceReply(nonce=f"{body}.{self._nonce_mac(body)}", time=now)

    def enrol(self, request: EnrolmentRequest, *, address: str) -> EnrolmentReply:
        """Give a node its first certificate for a one-time token.

        The same token with the same CSR gives the same certificate for ten minutes, so that a
        lost reply burns no token. Raises DeniedError, which says no more than it must.
        """
        self._check_nonce(request.nonce)
        csr, digest, now = _csr(request.csr), csr_digest(request.csr), self.clock()
        words = six_words(public_key_info(csr))
        actor = _machine(request.node, address)
        with self.database.session() as session:
            row = self._token(session, request)
            node = row.node
            if row.used_at is not None:
                repeated = row.csr_hash == digest and now - row.used_at <= REPEAT_WITHIN
                if not (repeated and node.generation == 1 and not node.removed_at):
                    raise DeniedError(
                        "the join token has been used",
                        hint="make a new one: narthex node add, or Nodes in the panel",
                    )
                return self._reply(node)
            taken = session.execute(
                update(JoinTokenRow)
                .where(
                    JoinTokenRow.id == row.id,
                    JoinTokenRow.used_at.is_(None),
                    JoinTokenRow.expires_at > now,
                )
                .values(used_at=now, csr_hash=digest)
                .execution_options(synchronize_session=False)
            )
            if taken.rowcount != 1 or node.removed_at:  # type: ignore[attr-defined] # an UPDATE's
                raise DeniedError(
                    "the join token has expired",
                    hint="make a new one: narthex node add, or Nodes in the panel",
                )
            node.enrolled_at, node.approved_at, node.fingerprint = now, None, words
            self._certify(node, request.csr)
            session.flush()
            self._record(session, actor, "node.enrolled", node, {"fingerprint": words})
            return self._reply(node)

    def renew(self, request: RenewalRequest, *, address: str) -> EnrolmentReply:
        """Give a node its next certificate for its present one.

        An older one means that somebody else renewed with a copy of the key: the node is locked.
        The same CSR again gives the same certificate. Raises DeniedError.
        """
        self._check_nonce(request.nonce)
        node_id, generation = self._prove_renewal(request)
        actor = _machine(node_id, address)
        with self.database.session() as session:
            node = session.get(Node, node_id, with_for_update=True)
            if node is None or node.removed_at or node.locked_reason or not node.generation:
                raise DeniedError(
                    "this node was removed or locked",
                    hint="ask an administrator; to return: narthex join --force with a new token",
                )
            if generation == node.generation - 1 and node.csr_hash == csr_digest(request.csr):
                return self._reply(node)
            cloned = generation < node.generation
            if cloned:
                node.locked_reason, node.approved_at = _CLONED, None
                session.flush()
                self._record(session, actor, "node.locked", node,
                             {"generation": generation, "present": node.generation})  # fmt: skip
            elif generation > node.generation:
                raise DeniedError("this certificate is newer than any that was given")
            else:
                self._certify(node, request.csr)
                session.flush()
                self._record(session, actor, "node.renewed", node,
                             {"generation": node.generation})  # fmt: skip
            reply = None if cloned else self._reply(node)
        if reply is None:
            raise DeniedError(
                f"the node is locked: {_CLONED}", hint="ask an administrator to look at it"
            )
        return reply

    def _token(self, session: Session, request: EnrolmentRequest) -> JoinTokenRow:
        rows = session.scalars(
            select(JoinTokenRow)
            .where(JoinTokenRow.node_id == request.node)
            .order_by(JoinTokenRow.id.desc())
            .limit(10)
        )
        for row in rows.unique():
            wanted = enrolment_mac(
                digest=row.secret_hash, node=request.node, csr=request.csr, nonce=request.nonce
            )
            if hmac.compare_digest(wanted, request.mac):
                return row
        raise DeniedError(
            "the join token is wrong", hint="copy the whole line that `narthex node add` printed"
        )

    def _prove_renewal(self, request: RenewalRequest) -> tuple[str, int]:
        ca = x509.load_pem_x509_certificate(self.ca_pem().encode())
        _csr(request.csr)
        try:
            certificate = read_certificate(request.certificate)
            if not signed_by(certificate, ca):
                raise DeniedError("the certificate is not this operator's")
            identity = identify(_der(certificate), cluster=self.signer.ca().cluster)
        except (ValueError, PeerError) as error:
            raise DeniedError("the certificate is not this operator's") from error
        data = renewal_bytes(node=identity.id, csr=request.csr, nonce=request.nonce)
        proven = signature_valid(certificate.public_key(), request.signature, data)
        if identity.role is not Role.NODE or not proven:
            raise DeniedError("the request is not signed by a node's key")
        if self.clock() > certificate.not_valid_after_utc + GRACE:
            raise DeniedError(
                f"the certificate expired more than {GRACE.days} days ago",
                hint="join again with a new token: narthex join --force",
            )
        return identity.id, generation_of(certificate)

    def _certify(self, node: Node, csr: str) -> None:
        """Have the next certificate signed. A failure rolls the caller's transaction back."""
        host, _ = split_address(node.address)
        pem = self.signer.node_certificate(
            NodeCertificateRequest(
                csr=csr,
                node=node.id,
                generation=node.generation + 1,
                addresses=(ipaddress.ip_address(host),),
            )
        )
        certificate = read_certificate(pem)
        node.generation += 1
        node.previous_fingerprint = node.certificate_fingerprint
        node.csr_hash, node.certificate = csr_digest(csr), pem
        node.certificate_fingerprint = hashlib.sha256(_der(certificate)).hexdigest()
        node.certificate_not_after = certificate.not_valid_after_utc

    def _reply(self, node: Node) -> EnrolmentReply:
        return EnrolmentReply(
            id=node.id,
            name=node.name,
            cluster=self.signer.ca().cluster,
            generation=node.generation,
            certificate=node.certificate,
            tickets=self.ticket_keys(),
            gateway_url=self.gateway_url,
            time=self.clock(),
        )

    def _nonce_mac(self, body: str) -> str:
        return hmac.new(self.nonce_key, f"nonce-v1|{body}".encode(), hashlib.sha256).hexdigest()

    def _check_nonce(self, nonce: str) -> None:
        body, _, mac = nonce.rpartition(".")
        stamp = body.partition(".")[0]
        if not hmac.compare_digest(mac.encode(), self._nonce_mac(body).encode()):
            raise DeniedError("the nonce is not ours", hint="ask for a new one")
        if self.clock().timestamp() - int(stamp) > _NONCE_SECONDS:
            raise DeniedError("the nonce is too old", hint="ask for a new one")

    def _record(
        self,
        session: Session,
        actor: Actor,
        event: str,
        node: Node,
        details: dict[str, Any] | None = None,
    ) -> None:
        self.audit.record(
            session,
            actor=actor,
            event=event,
            node=node.id,
            node_name=node.name,
            resource=f"node/{node.name}",
            details=details,
        )


def _check_addition(name: str, address: str, lifetime: timedelta) -> None:
    errors = []
    if not _NAME.fullmatch(name):
        errors.append(FieldError(path="name", message="1 to 63 of a-z, 0-9 and dash"))
    try:
        host = ipaddress.ip_address(split_address(address)[0])
        if host.is_unspecified or host.is_multicast:
            raise ValueError("must be one machine's address")  # noqa: TRY301 - told below
    except ValueError as error:
        errors.append(FieldError(path="address", message=str(error)))
    if not timedelta(0) < lifetime <= MAX_TOKEN_LIFETIME:
        errors.append(FieldError(path="lifetime", message="at most 60 minutes"))
    if errors:
        raise InvalidError(
            "; ".join(f"{error.path}: {error.message}" for error in errors), errors=tuple(errors)
        )


def _find(session: Session, ref: str) -> Node:
    """Find by name among the present, or by id among all."""
    node = session.scalar(select(Node).where(Node.name == ref, Node.removed_at.is_(None)))
    node = node or session.get(Node, ref)
    if node is None:
        raise NotFoundError(f"there is no node {clean(ref, limit=64)}")
    return node


def _csr(pem: str) -> x509.CertificateSigningRequest:
    try:
        return read_csr(pem)
    except ValueError as error:
        raise InvalidError("the certificate request is not one for a P-256 key") from error


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _machine(node: str, address: str) -> Actor:
    return Actor(id=f"node:{node}", name=node, grants=(), address=address)


def _view(node: Node) -> NodeView:
    if node.removed_at is not None:
        state = NodeState.REMOVED
    elif not node.generation:
        state = NodeState.JOINING
    elif node.approved_at is None or node.locked_reason:
        state = NodeState.PENDING
    else:
        state = NodeState.UP
    return NodeView(
        id=node.id,
        name=node.name,
        address=node.address,
        state=state,
        group=node.group,
        labels=node.labels,
        fingerprint=node.fingerprint,
        added_at=node.added_at,
        enrolled_at=node.enrolled_at,
        certificate_not_after=node.certificate_not_after,
        actor_instance=node.actor_instance,
        ceiling=node.ceiling or {},
    )
