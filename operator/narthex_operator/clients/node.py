"""Ask one node's actor: sign a ticket for each request, believe nothing of the reply."""

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from narthex_exporter.contract.headers import (
    INSTANCE_HEADER,
    NONCE_HEADER,
    PROBLEM_TYPE,
    TICKET_HEADER,
)
from narthex_exporter.contract.tickets import Approval, AuditHead, Claims, body_digest
from narthex_exporter.contract.wire import (
    Manifest,
    PlanReply,
    Problem,
    Run,
    new_run_id,
)
from narthex_exporter.transport.identity import node_dns_name
from narthex_exporter.transport.tls import TLSFiles, client_context
from narthex_operator.clients.exchange import Bounds, Endpoint, ExchangeError, Reply, exchange
from narthex_operator.errors import ActorOffError, NodeProblemError, UnreachableError

log = logging.getLogger(__name__)

TICKET_SECONDS: Final = 30
ASK_SECONDS: Final = 5.0
WORK_SECONDS: Final = 30.0
# Nodes keep a nonce for five minutes.
_NONCE_SECONDS: Final = 240.0
_NONCES_KEPT: Final = 8
_SHOWN: Final = 2000
_ERRORS_SHOWN: Final = 50

M = TypeVar("M", bound=BaseModel)


class InDoubtError(UnreachableError):
    """The request may have reached the node; nobody knows until the node is asked."""


class NotUnderstoodError(UnreachableError):
    """The node answered, but not in the protocol's words."""


class TicketSigner(Protocol):
    """Whoever holds the ticket key: the signer program."""

    def ticket(self, claims: Claims) -> str:
        """Sign a ticket. Raises UnreachableError or a refusal of the signer's."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRef:
    """A node to talk to: its id is what its certificate must say; ``address`` is ``IP:port``."""

    id: str
    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """On whose behalf a request is made, for its ticket and so for the node's audit."""

    id: str
    session: str = ""
    reason: str = ""
    approvals: tuple[Approval, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. ``act`` is the action's or query's name, or ``manifest``/``run``."""

    method: str
    target: str
    act: str
    body: bytes = b""
    op: str = ""
    seconds: float = ASK_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nonce:
    value: str
    instance: str
    at: float


@dataclass(slots=True, kw_only=True)
class NodeClient:
    """A client for every node.

    Each method raises UnreachableError (nothing was sent), InDoubtError (nobody knows),
    ActorOffError (its actor is not enabled) or NodeProblemError (the node said why not).
    """

    cluster: str
    tls: TLSFiles
    signer: TicketSigner
    audit_head: Callable[[], AuditHead | None] = lambda: None
    clock: Callable[[], float] = time.time
    _nonces: dict[str, list[_Nonce]] = field(default_factory=dict, init=False)
    _instances: dict[str, str] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def manifest(self, node: NodeRef, asker: Asker) -> Manifest:
        """Ask what the node can do."""
        call = Call(method="GET", target="/api/v1/manifest", act="manifest")
        return self._read(node, self._ask(node, asker, call), Manifest)

    def query(
        self, node: NodeRef, asker: Asker, name: str, params: Mapping[str, Any], result: type[M]
    ) -> M:
        """Ask a query; the reply is validated as ``result``."""
        call = Call(
            method="POST",
            target=f"/api/v1/queries/{quote(name, safe='.')}",
            act=name,
            body=json.dumps({"params": dict(params)}).encode(),
            seconds=WORK_SECONDS,
        )
        return self._read(node, self._ask(node, asker, call), result)

    def plan(self, node: NodeRef, asker: Asker, name: str, params: Mapping[str, Any]) -> PlanReply:
        """Ask what an action would do."""
        call = Call(
            method="POST",
            target=f"/api/v1/actions/{quote(name, safe='.')}/plans",
            act=name,
            body=json.dumps({"params": dict(params)}).encode(),
            seconds=WORK_SECONDS,
        )
        return self._read(node, self._ask(node, asker, call), PlanReply)

    def run(
        self,
        node: NodeRef,
        asker: Asker,
        name: str,
        *,
        run_id: str,
        body: bytes,
        before_sending: Callable[[Claims], None],
    ) -> Run:
        """Ask for a run, with the exact body that was written down for it.

        ``before_sending`` is told each ticket before it leaves; what it raises stops the request.
        """
        call = Call(
            method="POST",
            target=f"/api/v1/actions/{quote(name, safe='.')}/runs",
            act=name,
            body=body,
            op=run_id,
            seconds=WORK_SECONDS,
        )
        return self._read_run(node, self._ask(node, asker, call, before_sending), run_id)

    def get_run(self, node: NodeRef, asker: Asker, run_id: str) -> Run:
        """Ask what became of a run."""
        call = Call(method="GET", target=f"/api/v1/runs/{run_id}", act="run", op=run_id)
        return self._read_run(node, self._ask(node, asker, call), run_id)

    def cancel_run(self, node: NodeRef, asker: Asker, run_id: str) -> Run:
        """Ask a run to stop."""
        call = Call(method="DELETE", target=f"/api/v1/runs/{run_id}", act="run", op=run_id)
        return self._read_run(node, self._ask(node, asker, call), run_id)

    def confirm_run(self, node: NodeRef, asker: Asker, run_id: str) -> Run:
        """Tell the node to keep what a run did, over a connection that is new."""
        target = f"/api/v1/runs/{run_id}/confirm"
        call = Call(method="POST", target=target, act="run", op=run_id)
        return self._read_run(node, self._ask(node, asker, call), run_id)

    def health(self, node: NodeRef) -> None:
        """Ask the node's exporter how it is, over a connection that is new.

        Raises UnreachableError where it does not say that it is well.
        """
        reply = self._send(node, Call(method="GET", target="/-/healthy", act=""), ticket="")
        if reply.status != HTTPStatus.OK:
            raise NotUnderstoodError(f"node {node.name} is not healthy: status {reply.status}")

    def instance(self, node_id: str) -> str:
        """Tell the start of the node's actor that answered last; empty when not known."""
        with self._lock:
            return self._instances.get(node_id, "")

    def _ask(
        self,
        node: NodeRef,
        asker: Asker,
        call: Call,
        before_sending: Callable[[Claims], None] = lambda _claims: None,
    ) -> Reply:
        nonce = self._take(node) or self._fetch(node)
        for last in (False, True):
            if nonce is None:
                break
            claims = self._claims(node, asker, call, nonce)
            ticket = self.signer.ticket(claims)
            before_sending(claims)
            try:
                return self._send(node, call, ticket=ticket)
            except NodeProblemError as error:
                # The actor was restarted, or forgot: its reply brought the present nonce.
                if last or error.problem.type != "ticket-nonce":
                    raise
                nonce = self._take(node)
        raise NotUnderstoodError(
            f"node {node.name} gives no nonce", hint="is its exporter of a matching release?"
        )

    def _fetch(self, node: NodeRef) -> _Nonce | None:
        try:
            self._send(node, Call(method="GET", target="/api/v1/nonce", act=""), ticket="")
        except InDoubtError as error:
            # To ask for a nonce does nothing: whatever was wanted has not been sent.
            raise UnreachableError(str(error), hint=error.hint) from error
        return self._take(node)

    def _claims(self, node: NodeRef, asker: Asker, call: Call, nonce: _Nonce) -> Claims:
        now = int(self.clock())
        return Claims(
            iss=self.cluster,
            aud=f"node:{node.id}",
            sub=asker.id,
            act=call.act,
            htm=call.method,
            htu=call.target,
            ph=body_digest(call.body),
            op=call.op or new_run_id(self.clock),
            jti=secrets.token_urlsafe(16),
            inst=nonce.instance,
            nonce=nonce.value,
            iat=now,
            nbf=now,
            exp=now + TICKET_SECONDS,
            sid=asker.session,
            rsn=asker.reason,
            apr=asker.approvals,
            ah=self.audit_head(),
        )

    def _send(self, node: NodeRef, call: Call, *, ticket: str) -> Reply:
        host, _, port = node.address.rpartition(":")
        endpoint = Endpoint(
            host=host.strip("[]"),
            port=int(port),
            # Built for each request: the certificate is renewed every day.
            tls=lambda: client_context(self.tls),
            server_name=node_dns_name(self.cluster, node.id),
        )
        headers = {"User-Agent": "narthex-operator"}
        if ticket:
            headers[TICKET_HEADER] = ticket
        if call.body:
            headers["Content-Type"] = "application/json"
        try:
            reply = exchange(
                endpoint,
                call.method,
                call.target,
                headers=headers,
                body=call.body or None,
                bounds=Bounds(total_seconds=call.seconds),
            )
        except ExchangeError as error:
            kind = InDoubtError if error.sent else UnreachableError
            raise kind(
                f"node {node.name} at {node.address} does not answer: {error}",
                hint="is the machine up, and `systemctl status narthex-exporter` well on it?",
            ) from error
        self._keep(node, reply)
        _raise_for(node, reply)
        return reply

    def _keep(self, node: NodeRef, reply: Reply) -> None:
        value = reply.headers.get(NONCE_HEADER.lower(), "")
        instance = reply.headers.get(INSTANCE_HEADER.lower(), "")
        if value and instance and len(value) + len(instance) <= 512:  # noqa: PLR2004
            with self._lock:
                self._instances[node.id] = instance
                kept = self._nonces.setdefault(node.id, [])
                if kept and kept[-1].instance != instance:
                    kept.clear()
                kept.append(_Nonce(value=value, instance=instance, at=self.clock()))
                del kept[:-_NONCES_KEPT]

    def _take(self, node: NodeRef) -> _Nonce | None:
        """Take the newest nonce: it is good once."""
        with self._lock:
            kept = self._nonces.get(node.id, [])
            oldest = self.clock() - _NONCE_SECONDS
            return kept.pop() if kept and kept[-1].at > oldest else None

    def _read_run(self, node: NodeRef, reply: Reply, run_id: str) -> Run:
        run = self._read(node, reply, Run)
        if run.id != run_id:
            raise NotUnderstoodError(f"node {node.name} answers about another run")
        return run

    def _read(self, node: NodeRef, reply: Reply, kind: type[M]) -> M:
        try:
            return kind.model_validate_json(reply.body)
        except ValidationError as error:
            raise NotUnderstoodError(
                f"node {node.name} answers something else than is expected of it",
                hint="is its release older than the operator's?",
            ) from error


def _raise_for(node: NodeRef, reply: Reply) -> None:
    if 200 <= reply.status < 300:  # noqa: PLR2004
        return
    problem = _problem(reply)
    if problem is None:
        raise NotUnderstoodError(f"node {node.name} answers with status {reply.status}")
    if problem.type == "actor-off":
        raise ActorOffError(
            f"the actor of node {node.name} is not enabled",
            hint="its owner turns it on there: systemctl enable --now narthex-actor.socket",
        )
    raise NodeProblemError(problem)


def _problem(reply: Reply) -> Problem | None:
    if reply.media_type != PROBLEM_TYPE:
        return None
    try:
        found = Problem.model_validate_json(reply.body)
    except ValidationError:
        return None
    return Problem(
        type=found.type[:64],
        title=found.title[:_SHOWN],
        status=reply.status,
        detail=found.detail[:_SHOWN],
        hint=found.hint[:_SHOWN],
        errors=found.errors[:_ERRORS_SHOWN],
        run=found.run[:64] if found.run else None,
    )


def operator_files(pki: Path) -> TLSFiles:
    """Name the files by which nodes know the operator."""
    return TLSFiles(cert=pki / "operator.pem", key=pki / "operator.key", ca=pki / "ca.pem")
