"""Ask one node's actor: sign a ticket for each request, believe nothing of the reply."""

import contextlib
import json
import logging
import math
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar
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
    MAX_AUDIT_ROWS,
    AuditRows,
    Manifest,
    PlanReply,
    Problem,
    Run,
    encode_params,
    new_run_id,
)
from narthex_exporter.transport.identity import node_dns_name
from narthex_exporter.transport.tls import ReloadingClientContext, TLSFiles
from narthex_exporter.transport.websocket import WebSocket
from narthex_operator.clients.exchange import (
    REPLY_BYTES,
    Bounds,
    Endpoint,
    ExchangeError,
    Line,
    Reply,
)
from narthex_operator.clients.fanout import fan_out
from narthex_operator.clients.livestream import open_stream
from narthex_operator.clients.ticketdesk import TicketDesk, TicketSigner
from narthex_operator.errors import (
    ActorOffError,
    NodeProblemError,
    OperatorError,
    UnreachableError,
)

log = logging.getLogger(__name__)

TICKET_SECONDS: Final = 30
ASK_SECONDS: Final = 5.0
WORK_SECONDS: Final = 30.0
PARALLEL: Final = 64
# Of so many at once none may send as much as one alone.
MANY_REPLY_BYTES: Final = 2 << 20
# Nodes keep a nonce for five minutes.
_NONCE_SECONDS: Final = 240.0
_NONCES_KEPT: Final = 8
_NONCE: Final = re.compile(r"[\x21-\x7e]{1,256}")
_INSTANCE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_SHOWN: Final = 2000
_ERRORS_SHOWN: Final = 50

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class InDoubtError(UnreachableError):
    """The request may have reached the node; nobody knows until the node is asked."""


class NotUnderstoodError(UnreachableError):
    """The node answered, but not in the protocol's words."""


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
    """One request. ``act`` is the action's or query's name, or ``manifest``/``run``.

    It must be over within ``seconds``, and before the instant ``until`` (monotonic). With
    ``fresh`` it goes over a connection that carried nothing before, not even its nonce. ``head``
    is the audit's head where that is known already.
    """

    method: str
    target: str
    act: str
    body: bytes = b""
    op: str = ""
    seconds: float = ASK_SECONDS
    until: float = math.inf
    reply_bytes: int = REPLY_BYTES
    fresh: bool = False
    head: AuditHead | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nonce:
    value: str
    instance: str
    at: float


@dataclass(slots=True, kw_only=True)
class NodeClient:
    """A client for every node; each operation has one connection, which carries its nonce too.

    Each method raises UnreachableError (nothing was sent), InDoubtError (nobody knows),
    ActorOffError (its actor is not enabled) or NodeProblemError (the node said why not).
    """

    cluster: str
    tls: TLSFiles
    signer: TicketSigner
    audit_head: Callable[[], AuditHead | None] = lambda: None
    clock: Callable[[], float] = time.time
    _desk: TicketDesk = field(init=False)
    _context: ReloadingClientContext = field(init=False)
    _nonces: dict[str, list[_Nonce]] = field(default_factory=dict, init=False)
    _instances: dict[str, str] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._desk = TicketDesk(self.signer)
        self._context = ReloadingClientContext(self.tls)

    def manifest(self, node: NodeRef, asker: Asker) -> Manifest:
        """Ask what the node can do."""
        call = Call(method="GET", target="/api/v1/manifest", act="manifest")
        return self._read(node, self._ask(node, asker, call), Manifest)

    def query(
        self, node: NodeRef, asker: Asker, name: str, params: Mapping[str, Any], result: type[M]
    ) -> M:
        """Ask a query; the reply is validated as ``result``."""
        return self._read(node, self._ask(node, asker, _query(name, params)), result)

    def query_many(
        self,
        nodes: Sequence[NodeRef],
        asker: Asker,
        name: str,
        params: Mapping[str, Any],
        result: type[M],
        *,
        parallel: int = PARALLEL,
        seconds: float = WORK_SECONDS,
    ) -> Iterator[tuple[NodeRef, M | OperatorError]]:
        """Ask many nodes a query; give each one's answer, or why there is none, as it comes.

        All of them within ``seconds``, ``parallel`` at once; one that is dead or slow holds no
        other up.
        """
        call = replace(_query(name, params), reply_bytes=MANY_REPLY_BYTES, head=self.audit_head())

        def ask(node: NodeRef, until: float) -> M:
            return self._read(node, self._ask(node, asker, replace(call, until=until)), result)

        return fan_out(nodes, ask, parallel=parallel, seconds=seconds)

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

    def audit(
        self, node: NodeRef, asker: Asker, *, after: int, limit: int = MAX_AUDIT_ROWS
    ) -> AuditRows:
        """Read rows of the node's own audit, on from row ``after``."""
        target = f"/api/v1/audit?after={after}&limit={limit}"
        call = Call(method="GET", target=target, act="audit", seconds=WORK_SECONDS)
        reply = self._ask(node, asker, call)
        try:
            # Not by pydantic's own reader: rows may hold text that is no Unicode, and count so.
            return AuditRows.model_validate(json.loads(reply.body))
        except (ValueError, RecursionError) as error:
            raise _not_understood(node) from error

    def stream(
        self,
        node: NodeRef,
        asker: Asker,
        name: str,
        params: Mapping[str, Any],
        *,
        terminal: bool = False,
    ) -> WebSocket:
        """Open a live stream, or the terminal that an action of that name opens.

        Whoever gets it moves it, and closes its socket. What it says is hostile.
        """
        path = "terminal" if terminal else f"follow/{quote(name, safe='.')}"
        call = Call(
            method="GET",
            target=f"/api/v1/{path}?params={encode_params(dict(params))}",
            act=name,
            seconds=WORK_SECONDS,
        )
        return self._with_ticket(node, asker, call, self._open)

    def confirm_run(self, node: NodeRef, asker: Asker, run_id: str) -> Run:
        """Tell the node to keep what a run did, over a connection that is new."""
        target = f"/api/v1/runs/{run_id}/confirm"
        call = Call(method="POST", target=target, act="run", op=run_id, fresh=True)
        return self._read_run(node, self._ask(node, asker, call), run_id)

    def health(self, node: NodeRef) -> None:
        """Ask the node's exporter how it is, over a connection that is new.

        Raises UnreachableError where it does not say that it is well.
        """
        with self._line(node) as line:
            call = Call(method="GET", target="/-/healthy", act="", fresh=True)
            reply = self._send(node, line, call, "")
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
        return self._with_ticket(node, asker, call, self._send, before_sending)

    def _with_ticket(
        self,
        node: NodeRef,
        asker: Asker,
        call: Call,
        send: Callable[[NodeRef, Line, Call, str], T],
        before_sending: Callable[[Claims], None] = lambda _claims: None,
    ) -> T:
        with self._line(node) as line:
            nonce = self._take(node) or self._fetch(node, line, call)
            for last in (False, True):
                if nonce is None:
                    break
                claims = self._claims(node, asker, call, nonce)
                ticket = self._desk.ticket(claims)
                before_sending(claims)
                try:
                    return send(node, line, call, ticket)
                except NodeProblemError as error:
                    if last or not _worth_another_ticket(error.problem):
                        raise
                    nonce = self._take(node)
        raise NotUnderstoodError(
            f"node {node.name} gives no nonce", hint="is its exporter of a matching release?"
        )

    def _fetch(self, node: NodeRef, line: Line, call: Call) -> _Nonce | None:
        wanted = Call(method="GET", target="/api/v1/nonce", act="", until=call.until)
        try:
            self._send(node, line, wanted, "")
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
            ah=call.head or self.audit_head(),
        )

    def _line(self, node: NodeRef) -> Line:
        host, _, port = node.address.rpartition(":")
        return Line(
            Endpoint(
                host=host.strip("[]"),
                port=int(port),
                tls=self._context.get,
                server_name=node_dns_name(self.cluster, node.id),
            )
        )

    def _send(self, node: NodeRef, line: Line, call: Call, ticket: str) -> Reply:
        with _unreachable(node):
            reply = line.exchange(
                call.method,
                call.target,
                headers=_headers(call, ticket),
                body=call.body or None,
                bounds=_bounds(call),
                fresh=call.fresh,
            )
        self._keep(node, reply)
        _raise_for(node, reply)
        return reply

    def _open(self, node: NodeRef, line: Line, call: Call, ticket: str) -> WebSocket:
        """Ask for a stream, over a connection of its own: it is no exchange that ends."""
        with _unreachable(node):
            reply, stream = open_stream(
                line.endpoint,
                call.target,
                headers=_headers(call, ticket),
                bounds=_bounds(call),
            )
        self._keep(node, reply)
        if stream is None:
            _raise_for(node, reply)
            raise NotUnderstoodError(f"node {node.name} answers with status {reply.status}")
        return stream

    def _keep(self, node: NodeRef, reply: Reply) -> None:
        value = reply.headers.get(NONCE_HEADER.lower(), "")
        instance = reply.headers.get(INSTANCE_HEADER.lower(), "")
        # What the signer would not sign is dropped here.
        if _NONCE.fullmatch(value) and _INSTANCE.fullmatch(instance):
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
            raise _not_understood(node) from error


def _not_understood(node: NodeRef) -> NotUnderstoodError:
    return NotUnderstoodError(
        f"node {node.name} answers something else than is expected of it",
        hint="is its release older than the operator's?",
    )


def _worth_another_ticket(problem: Problem) -> bool:
    """Tell whether nothing was done, and a fresh ticket can do better.

    The actor was restarted or forgot: its reply brought the present nonce. Or the key that signed
    was retired while the request was under way: its successor signs the next ticket.
    """
    retired = problem.type == "ticket-invalid" and problem.title == "key"
    return retired or problem.type == "ticket-nonce"


def _bounds(call: Call) -> Bounds:
    return Bounds(
        total_seconds=max(0.01, min(call.seconds, call.until - time.monotonic())),
        reply_bytes=call.reply_bytes,
    )


def _headers(call: Call, ticket: str) -> dict[str, str]:
    headers = {"User-Agent": "narthex-operator"}
    if ticket:
        headers[TICKET_HEADER] = ticket
    if call.body:
        headers["Content-Type"] = "application/json"
    return headers


@contextlib.contextmanager
def _unreachable(node: NodeRef) -> Iterator[None]:
    try:
        yield
    except ExchangeError as error:
        kind = InDoubtError if error.sent else UnreachableError
        raise kind(
            f"node {node.name} at {node.address} does not answer: {error}",
            hint="is the machine up, and `systemctl status narthex-exporter` well on it?",
        ) from error


def _query(name: str, params: Mapping[str, Any]) -> Call:
    return Call(
        method="POST",
        target=f"/api/v1/queries/{quote(name, safe='.')}",
        act=name,
        body=json.dumps({"params": dict(params)}).encode(),
        seconds=WORK_SECONDS,
    )


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
