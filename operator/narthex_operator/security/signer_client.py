"""Ask the signer over its Unix socket."""

import http.client
import json
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from typing_extensions import override

from narthex_exporter.contract.tickets import Claims
from narthex_operator.errors import LimitedError, OperatorError, UnreachableError
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
    TicketKeys,
    TicketReply,
    TicketRequest,
    TicketsReply,
    TicketsRequest,
)

_TIMEOUT_SECONDS: Final = 5.0
_BATCH_SECONDS: Final = 15.0
# A batch of tickets that say as much as they may, each escaped and encoded.
_MAX_REPLY: Final = MAX_TICKETS << 14
_TOO_MANY: Final = 429

Reply = TypeVar("Reply", bound=BaseModel)


class SignerRefusedError(OperatorError):
    """The signer does not sign this: a mistake of ours, or somebody else's attempt."""

    kind = "signer-refused"
    status = 502


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("signer", timeout=seconds)
        self.path = path

    @override
    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(str(self.path))
        except OSError:
            sock.close()
            raise
        self.sock = sock


@dataclass(slots=True, kw_only=True)
class SignerClient:
    """The signer, as the operator sees it. Every method raises UnreachableError."""

    socket: Path
    _ca: CAReply | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def ca(self) -> CAReply:
        """Give cluster, certificate and pin. They never change, so they are asked for once."""
        with self._lock:
            if self._ca is None:
                self._ca = self._call("GET", "/v1/ca", None, CAReply)
            return self._ca

    def ticket_keys(self) -> TicketKeys:
        """Give the CA-signed document of public ticket keys."""
        document: TicketKeys = self._json("GET", "/v1/ticket-keys", None)
        return document

    def rotate(self, *, force: bool = False) -> RotationReply:
        """Have the next ticket key come into use; for root and the signer's own user."""
        request = RotationRequest(force=force)
        return self._call("POST", "/v1/ticket-keys/rotate", request, RotationReply)

    def node_certificate(self, request: NodeCertificateRequest) -> str:
        """Have a node's certificate signed; PEM."""
        return self._call("POST", "/v1/certificates/node", request, CertificateReply).certificate

    def role_certificate(self, request: RoleCertificateRequest) -> str:
        """Have a certificate of ours signed; PEM."""
        return self._call("POST", "/v1/certificates/role", request, CertificateReply).certificate

    def ticket(self, claims: Claims) -> str:
        """Have a ticket signed. Raises LimitedError when its subject asks too often."""
        return self._call("POST", "/v1/tickets", TicketRequest(claims=claims), TicketReply).ticket

    def tickets(self, claims: Sequence[Claims]) -> tuple[str, ...]:
        """Have up to MAX_TICKETS of one subject signed, all or none, in the order of claims."""
        request = TicketsRequest(claims=tuple(claims))
        signed = self._call(
            "POST", "/v1/tickets/batch", request, TicketsReply, seconds=_BATCH_SECONDS
        ).tickets
        if len(signed) != len(request.claims):
            raise self._unreachable("it signs another number of tickets than it was asked for")
        return signed

    def checkpoint(self, request: CheckpointRequest) -> str:
        """Have the audit's newest row witnessed; a base64url signature."""
        return self._call("POST", "/v1/checkpoints", request, CheckpointReply).signature

    def _call(
        self,
        method: str,
        path: str,
        request: BaseModel | None,
        kind: type[Reply],
        *,
        seconds: float = _TIMEOUT_SECONDS,
    ) -> Reply:
        try:
            return kind.model_validate(self._json(method, path, request, seconds))
        except ValidationError as error:
            raise self._unreachable("its answer is not one of ours") from error

    def _json(
        self,
        method: str,
        path: str,
        request: BaseModel | None,
        seconds: float = _TIMEOUT_SECONDS,
    ) -> Any:
        body = None if request is None else request.model_dump_json().encode()
        connection = _UnixConnection(self.socket, seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            data = reply.read(_MAX_REPLY)
            found = json.loads(data)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._unreachable(str(error) or type(error).__name__) from error
        finally:
            connection.close()
        if reply.status != http.HTTPStatus.OK:
            raise self._refusal(reply.status, found)
        return found

    def _refusal(self, status: int, found: Any) -> OperatorError:
        try:
            told = ErrorReply.model_validate(found)
        except ValidationError:
            return self._unreachable(f"it answers {status}")
        if status == _TOO_MANY:
            return LimitedError(f"the signer: {told.error}", retry_after_seconds=5)
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            return self._unreachable(told.error)
        return SignerRefusedError(f"the signer refuses: {told.error}", hint=told.hint)

    def _unreachable(self, why: str) -> UnreachableError:
        return UnreachableError(
            f"the signer does not answer at {self.socket}: {why}",
            hint="see its log; without it nothing can be signed, so nodes cannot be acted on",
        )
