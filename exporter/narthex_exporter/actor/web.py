"""Answer the operator's requests: every route but one verifies a ticket first."""

import hashlib
import json
import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flask import Flask, Response, g, request
from pydantic import BaseModel, ValidationError
from typing_extensions import override
from werkzeug.exceptions import HTTPException

from narthex_exporter.actions.containerexec import ExecParams
from narthex_exporter.actor.audit import Audit, AuditError
from narthex_exporter.actor.authority import Authority
from narthex_exporter.actor.engine import Engine, NotAvailableError, Order, RateError
from narthex_exporter.actor.nonces import Nonces
from narthex_exporter.actor.policy import PolicyError
from narthex_exporter.actor.problems import BodyError, InvalidError, UnknownNameError, as_problem
from narthex_exporter.actor.streams import Streams
from narthex_exporter.actor.terminal import NAME as TERMINAL
from narthex_exporter.actor.terminal import Terminals
from narthex_exporter.actor.throttle import Throttle
from narthex_exporter.contract import tickets
from narthex_exporter.contract.errors import NarthexError, RefusedError, TicketError
from narthex_exporter.contract.headers import (
    INSTANCE_HEADER,
    NONCE_HEADER,
    PROBLEM_TYPE,
    TICKET_HEADER,
)
from narthex_exporter.contract.spec import Action, Follow, Query
from narthex_exporter.contract.tickets import AuditHead, Claims
from narthex_exporter.contract.wire import (
    MAX_AUDIT_ROWS,
    MAX_BODY_BYTES,
    AuditReply,
    FieldError,
    Manifest,
    PlanRequest,
    Problem,
    QueryRequest,
    Run,
    RunRequest,
    decode_params,
    describe_action,
    describe_query,
    strict_json,
)
from narthex_exporter.transport.websocket import WebSocket, accept, wanted

log = logging.getLogger(__name__)

RUN_ID: Final = re.compile(
    r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
)
_STALE: Final = frozenset({"instance", "nonce"})
_JSON: Final = "application/json"
# One row may be as large as a request; the operator reads at most 8 MiB.
_AUDIT_BYTES: Final = 1 << 20

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What the routes need to know of this actor."""

    authority: Callable[[], Authority]
    instance: str
    boot_id: str
    version: str
    nonces: Nonces
    audit: Audit
    refusals: Throttle
    terminals: Terminals


def build_app(engine: Engine, gate: Gate) -> Flask:
    """Build the WSGI application."""
    app = Flask("narthex-actor", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, PROVIDE_AUTOMATIC_OPTIONS=False)
    routes = _Routes(engine, gate)
    app.before_request(routes.check_ticket)
    app.after_request(routes.add_headers)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(NarthexError, routes.known_problem)
    app.register_error_handler(Exception, _fault)
    for rule, method, view in (
        ("/api/v1/nonce", "GET", routes.nonce),
        ("/api/v1/manifest", "GET", routes.manifest),
        ("/api/v1/queries/<name>", "POST", routes.query),
        ("/api/v1/actions/<name>/plans", "POST", routes.plan),
        ("/api/v1/actions/<name>/runs", "POST", routes.run),
        ("/api/v1/runs/<run_id>", "GET", routes.get_run),
        ("/api/v1/runs/<run_id>/events", "GET", routes.run_events),
        ("/api/v1/runs/<run_id>", "DELETE", routes.cancel_run),
        ("/api/v1/runs/<run_id>/confirm", "POST", routes.confirm_run),
        ("/api/v1/audit", "GET", routes.audit_head),
        ("/api/v1/follow/<name>", "GET", routes.follow),
        ("/api/v1/terminal", "GET", routes.terminal),
    ):
        app.add_url_rule(rule, endpoint=view.__name__, view_func=view, methods=[method])
    return app


# What a ticket's `act` must be for each endpoint that has no name of its own in its path.
_ACTS: Final = {
    "manifest": "manifest",
    "get_run": "run",
    "run_events": "run",
    "cancel_run": "run",
    "confirm_run": "run",
    "audit_head": "audit",
    "terminal": TERMINAL,
}


class _Conversation(Response):
    """Answers by a WebSocket: ``talk`` has it to its end; ``gone`` is told where none begins."""

    def __init__(
        self, talk: Callable[[WebSocket], None], *, gone: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(status=101)
        self.talk = talk
        self.gone = gone

    @override
    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        told = [(name, self.headers[name]) for name in (NONCE_HEADER, INSTANCE_HEADER)]
        try:
            socket = accept(environ, headers=told)
        except BaseException:
            self.gone()
            raise
        self.talk(socket)
        return iter(())


class _Routes:
    def __init__(self, engine: Engine, gate: Gate) -> None:
        self.engine = engine
        self.gate = gate
        self._witnessed: AuditHead | None = None
        self._lock = threading.Lock()
        self.streams = Streams(engine=engine)

    def check_ticket(self) -> Response | None:
        """Let only what a ticket allows pass, paths that do not exist included."""
        if request.endpoint == "nonce":
            return None
        try:
            g.body = request.get_data(cache=False)
            g.claims = self._verified(g.body)
        except TicketError as error:
            return self._refuse_ticket(error)
        return None

    def _verified(self, body: bytes) -> Claims:
        authority = self.gate.authority()
        claims = tickets.verify(
            request.headers.get(TICKET_HEADER, ""),
            keys=authority.keys,
            cluster=authority.cluster,
            node=authority.node,
            instance=self.gate.instance,
            spend_nonce=self.gate.nonces.spend,
            method=request.method,
            target=request.environ["RAW_URI"],
            body=body,
        )
        path = request.view_args or {}
        act = _ACTS.get(request.endpoint or "", path.get("name", ""))
        if act and claims.act != act:
            raise TicketError("act", "the ticket is for another action or query")
        if "run_id" in path and claims.op != path["run_id"]:
            raise TicketError("op", "the ticket is for another run")
        if request.endpoint == "run" and not RUN_ID.fullmatch(claims.op):
            raise TicketError("op", "the run id is not a UUIDv7")
        return claims

    def _refuse_ticket(self, error: TicketError) -> Response:
        left_out = self.gate.refusals.admit()
        if left_out is not None:
            self.gate.audit.append(
                "request.refused",
                reason=error.reason,
                method=request.method,
                target=request.environ["RAW_URI"][:200],
                left_out_before=left_out,
            )
            log.warning("ticket.refused", extra={"reason": error.reason})
        return _problem(
            Problem(
                type="ticket-nonce" if error.reason in _STALE else "ticket-invalid",
                title=error.reason,
                status=401,
                detail=str(error),
            )
        )

    def add_headers(self, response: Response) -> Response:
        """Give each reply a fresh nonce, and keep it out of caches."""
        response.headers[NONCE_HEADER] = self.gate.nonces.issue()
        response.headers[INSTANCE_HEADER] = self.gate.instance
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    def nonce(self) -> Response:
        return Response(status=204)

    def manifest(self) -> Response:
        document = self._manifest()
        # The instance is part of it: a restarted actor may be able to do other things.
        digest = hashlib.sha256(document.model_dump_json().encode()).hexdigest()
        response = _json(document)
        response.set_etag(digest[:32])
        response.make_conditional(request)
        return response

    def query(self, name: str) -> Response:
        query: Query[Any, Any] | None = self.engine.catalogue.queries.get(name)
        if query is None:
            raise UnknownNameError("query", name)
        params = _params(query.params, _body(QueryRequest, g.body).params)
        self.engine.policy.judge_query()
        why = self.engine.unavailable(query.needs)
        if why:
            raise NotAvailableError(f"{name} is not available on this node: {why}")
        return _json(query.read(params, self.engine.facts))

    def plan(self, name: str) -> Response:
        action = self._action(name)
        params = _params(action.params, _body(PlanRequest, g.body).params)
        approvals = self.engine.policy.require_approvals.get(action.danger, 0)
        return _json(self.engine.plan(action, params).reply(approvals=approvals))

    def run(self, name: str) -> Response:
        action = self._action(name)
        asked = _body(RunRequest, g.body)
        order = Order(
            action=action,
            params=_params(action.params, asked.params),
            plan=asked.plan,
            reason=asked.reason,
            request=hashlib.sha256(f"{name}\0{g.claims.ph}".encode()).hexdigest(),
            claims=g.claims,
        )
        run, is_new = self.engine.submit(order)
        response = _json(run, status=202 if is_new else 200)
        response.headers["Location"] = f"/api/v1/runs/{run.id}"
        return response

    def get_run(self, run_id: str) -> Response:
        return _json(self.engine.get(run_id))

    def run_events(self, run_id: str) -> Response:
        self.engine.get(run_id)  # an unknown one is a problem, not an empty stream
        return Response(_lines(self.engine.events(run_id)), mimetype="application/x-ndjson")

    def cancel_run(self, run_id: str) -> Response:
        return _json(self.engine.cancel(run_id, claims=g.claims), status=202)

    def confirm_run(self, run_id: str) -> Response:
        return _json(self.engine.confirm(run_id, claims=g.claims), status=202)

    def follow(self, name: str) -> Response:
        follow: Follow[Any, Any] | None = self.engine.catalogue.follows.get(name)
        if follow is None:
            raise UnknownNameError("follow", name)
        params = _params(follow.params, _target_params())
        self.streams.admit(follow)
        stopping, user = wanted(request.environ).stopping, g.claims.sub
        return _Conversation(
            lambda socket: self.streams.tell(follow, params, socket, user=user, stopping=stopping)
        )

    def terminal(self) -> Response:
        params = _params(ExecParams, _target_params())
        claims: Claims = g.claims
        terminals, stopping = self.gate.terminals, wanted(request.environ).stopping
        container = terminals.admit(params)
        with terminals.place(claims.sub) as place:
            exec_ = terminals.open(container, params, claims)
            return _Conversation(
                place.keep(
                    lambda socket: terminals.serve(exec_, params, socket, claims, stopping)
                ),
                gone=place.keep(lambda: terminals.abandon(exec_)),
            )

    def audit_head(self) -> Response:
        self._witness(g.claims.ah)
        if "after" not in request.args:
            head = self.gate.audit.head
            return _json(AuditReply(seq=head.seq, head=head.hash))
        part = self.gate.audit.after(
            _number("after", most=1 << 53),
            limit=_number("limit", most=MAX_AUDIT_ROWS, default=MAX_AUDIT_ROWS),
            most_bytes=_AUDIT_BYTES,
        )
        # By the record's own writer: it takes text that is no Unicode, as rows may hold.
        told = {"seq": part.head.seq, "head": part.head.hash, "first": part.first}
        return Response(json.dumps({**told, "rows": part.rows}), mimetype=_JSON)

    def _witness(self, head: AuditHead | None) -> None:
        """Keep the head of the operator's ledger where the operator cannot change it."""
        with self._lock:
            if head is None or head == self._witnessed:
                return
            self.gate.audit.append("operator.witnessed", operator_head=head.model_dump())
            self._witnessed = head

    def known_problem(self, error: NarthexError) -> Response:
        """Tell a known error as a problem; refusals to act are audited."""
        claims: Claims | None = g.get("claims")
        if isinstance(error, RefusedError | RateError) and claims is not None:
            try:
                self._audit_refusal(error, claims)
            except AuditError as broken:
                return _problem(as_problem(broken))
        return _problem(as_problem(error))

    def _audit_refusal(self, error: NarthexError, claims: Claims) -> None:
        self.gate.audit.append(
            "request.refused",
            reason="policy" if isinstance(error, PolicyError) else "refused",
            op=claims.op,
            jti=claims.jti,
            sub=claims.sub,
            act=claims.act,
            detail=str(error)[:500],
        )

    def _action(self, name: str) -> Action[Any]:
        action: Action[Any] | None = self.engine.catalogue.actions.get(name)
        if action is None:
            raise UnknownNameError("action", name)
        return action

    def _manifest(self) -> Manifest:
        engine = self.engine
        return Manifest(
            version=self.gate.version,
            node=self.gate.authority().node,
            instance=self.gate.instance,
            boot_id=self.gate.boot_id,
            policy=engine.policy.summary(),
            actions=tuple(
                describe_action(
                    action,
                    unavailable=self._action_unavailable(action),
                    approvals=engine.policy.require_approvals.get(action.danger, 0),
                )
                for _, action in sorted(engine.catalogue.actions.items())
            ),
            queries=tuple(
                describe_query(query, unavailable=self._query_unavailable(query))
                for _, query in sorted(engine.catalogue.queries.items())
            ),
            follows=tuple(
                describe_query(follow, unavailable=self._query_unavailable(follow))
                for _, follow in sorted(engine.catalogue.follows.items())
            ),
        )

    def _action_unavailable(self, action: Action[Any]) -> str:
        try:
            self.engine.policy.judge_action(action)
        except PolicyError as error:
            return str(error)
        return self.engine.unavailable(action.needs)

    def _query_unavailable(self, query: Query[Any, Any] | Follow[Any, Any]) -> str:
        try:
            self.engine.policy.judge_query()
        except PolicyError as error:
            return str(error)
        return self.engine.unavailable(query.needs)


def _body(model: type[M], body: bytes) -> M:
    try:
        document = strict_json(body)
    except ValueError as error:
        raise BodyError(f"the body is not JSON: {error}"[:300]) from error
    return _validated(model, document, prefix="")


def _target_params() -> Any:
    """Read the parameters in the request's target, which its ticket covers."""
    given = request.args.getlist("params")
    if not given:
        return {}
    if len(given) != 1:
        raise BodyError("the parameters are given more than once")
    try:
        return decode_params(given[0])
    except ValueError as error:
        raise BodyError(f"the parameters are not base64url of JSON: {error}"[:300]) from error


def _params(model: type[M], raw: Any) -> M:
    return _validated(model, raw, prefix="params.")


def _number(name: str, *, most: int, default: int | None = None) -> int:
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or int(text[:20]) > most:
        raise InvalidError((FieldError(path=name, message=f"a whole number up to {most}"),))
    return int(text)


def _validated(model: type[M], raw: Any, *, prefix: str) -> M:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InvalidError(
            tuple(
                FieldError(
                    path=(prefix + ".".join(map(str, one["loc"])))[:200], message=one["msg"][:200]
                )
                for one in error.errors(include_url=False, include_input=False)[:50]
            )
        ) from error


def _lines(runs: Iterator[Run | None]) -> Iterator[bytes]:
    for run in runs:
        yield b"\n" if run is None else run.model_dump_json().encode() + b"\n"


def _json(model: BaseModel, *, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status=status, mimetype=_JSON)


def _problem(problem: Problem) -> Response:
    return Response(problem.model_dump_json(), status=problem.status, mimetype=PROBLEM_TYPE)


_HTTP_TYPES: Final = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}


def _http_problem(error: HTTPException) -> Response:
    status = error.code or 500
    kind = _HTTP_TYPES.get(status, "bad-request")
    return _problem(
        Problem(type=kind, title=error.name, status=status, detail=error.description or "")
    )


def _fault(error: Exception) -> Response:
    """Tell a fault of ours by an id that is in the log, and nothing else: the one boundary."""
    fault = secrets.token_hex(4)
    log.error("request.fault", exc_info=error, extra={"fault": fault})
    return _problem(
        Problem(
            type="internal",
            title="a fault of the actor",
            status=500,
            detail=f"logged on the node as {fault}",
        )
    )
