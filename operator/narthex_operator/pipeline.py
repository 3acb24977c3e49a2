"""What every request passes before its view, and every response after it.

In this order: request id, trusted host, who asks (session cookie or bearer, never both), the
permission that the view declares, the forced change of a first password, cross-site checks. A
view that declares nothing keeps the application from starting.
"""

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from flask import Flask, Response, current_app, g, jsonify, request
from prometheus_client import Histogram
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from narthex_exporter.contract.errors import NarthexError, RefusedError
from narthex_exporter.contract.headers import (
    PROBLEM_TYPE,
)
from narthex_exporter.contract.wire import (
    Problem,
)
from narthex_exporter.transport.server import UPGRADE
from narthex_operator.errors import (
    DeniedError,
    InvalidError,
    LimitedError,
    NodeProblemError,
    NotSignedInError,
    OperatorError,
)
from narthex_operator.services.access import PUBLIC, SIGNED_IN, Actor, Grant
from narthex_operator.services.interfaces import Accounts

log = logging.getLogger(__name__)

COOKIE: Final = "__Host-sid"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_BODY_BYTES: Final = 1 << 20
# Where somebody who must change the password may go.
_PASSWORD: Final = frozenset({"/password", "/sign-out"})
# Paths whose errors are problem documents; all others are pages.
_MACHINES: Final = ("/api/", "/pki/", "/-/", "/metrics", "/live/")
_ADDRESSES: Final = ("127.0.0.1", "localhost", "[::1]")

# What the product's own parts may do with the tokens that lie in their configuration.
MACHINES: Final[Mapping[str, tuple[str, ...]]] = {
    "prometheus": ("machine:sd", "metrics:read", "node:read"),
    "alertmanager": ("machine:webhook",),
}

_POLICY: Final = "Content-Security-Policy"
HEADERS: Final = {
    _POLICY: (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " font-src 'self'; connect-src 'self'; manifest-src 'self'; object-src 'none';"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'self';"
        " require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class UndeclaredViewError(NarthexError):
    """A route says not who may use it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineToken:
    """A bearer token of a part of the product, and whom it makes."""

    token: str = field(repr=False)
    actor: Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The checks, with what they need. ``origin`` is the external URL.

    ``render_error`` makes a page of an error and a request id; ``denied`` is told of refusals,
    for the audit.
    """

    accounts: Accounts
    origin: str
    hosts: Sequence[str]
    machines: Sequence[MachineToken] = ()
    render_error: Callable[[NarthexError, str], str] | None = None
    denied: Callable[[Actor, str, DeniedError], None] = lambda _actor, _what, _error: None
    durations: Histogram | None = None

    def install(self, app: Flask) -> None:
        """Put the checks before and behind every view of an application."""
        app.config.update(
            MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
            MAX_FORM_MEMORY_SIZE=500_000,
            MAX_FORM_PARTS=100,
            PROVIDE_AUTOMATIC_OPTIONS=False,
            PROPAGATE_EXCEPTIONS=False,
            TRUSTED_HOSTS=[*self.hosts, *_ADDRESSES],
        )
        # A doubled slash is no page of ours: no redirect, which programs would read as HTML.
        app.url_map.merge_slashes = False
        app.before_request(self.admit)
        app.after_request(self.harden)
        app.register_error_handler(NarthexError, self.known)
        app.register_error_handler(HTTPException, self.http)
        app.register_error_handler(Exception, self.fault)

    def admit(self) -> BaseResponse | None:
        """Let a request reach its view, or not."""
        _begin()
        if request.endpoint is None:
            return None
        permission, machine = declared(_view(request.endpoint))
        self._identify(machine=machine)
        actor: Actor | None = g.actor
        if permission != PUBLIC and actor is None:
            raise NotSignedInError("you are not signed in", hint="sign in, or send a bearer token")
        if UPGRADE in request.environ:
            self._check_websocket_origin()
        if g.session is not None:
            self._check_origin()
            self._check_token(permission)
            self._check_password(permission)
        elif not machine and g.actor is None:
            self._check_origin()
        if actor is not None and permission not in {PUBLIC, SIGNED_IN}:
            actor.require(permission)
        return None

    def harden(self, response: Response) -> Response:
        """Give every response its headers, errors and files too."""
        response.headers.update(HEADERS)
        if nonce := g.get("style_nonce", ""):
            response.headers[_POLICY] = HEADERS[_POLICY].replace(
                "style-src 'self'", f"style-src 'self' 'nonce-{nonce}'"
            )
        response.headers["X-Request-ID"] = g.get("request_id", "")
        if "Cache-Control" not in response.headers:
            response.headers["Cache-Control"] = "no-store"
            response.vary.add("Cookie")
        rule = request.url_rule.rule if request.url_rule else ""
        taken = time.monotonic() - g.get("began", time.monotonic())
        if self.durations is not None:
            self.durations.labels(request.method, rule, str(response.status_code)).observe(taken)
        return response

    def known(self, error: NarthexError) -> BaseResponse:
        """Tell an error of ours."""
        _begin()
        if isinstance(error, DeniedError) and g.actor is not None:
            self.denied(g.actor, f"{request.method} {request.path}", error)
        if isinstance(error, NotSignedInError) and _is_page_visit():
            target = quote(request.full_path.rstrip("?"), safe="/")
            return _see_other(f"/sign-in?next={target}")
        if isinstance(error, _PasswordDueError) and _is_page_visit():
            return _see_other("/password")
        if status_of(error) >= 500 and not isinstance(error, OperatorError):  # noqa: PLR2004
            log.error("request.failed", extra={"request_id": g.request_id, "error": str(error)})
        return self._told(error, status_of(error))

    def http(self, error: HTTPException) -> BaseResponse:
        """Tell an error of HTTP's own."""
        _begin()
        if error.code is None or error.code < 400:  # noqa: PLR2004
            return error.get_response()
        response = self._told(_HttpError(error), error.code)
        if "Allow" in (headers := dict(error.get_headers())):
            response.headers["Allow"] = headers["Allow"]
        return response

    def fault(self, error: Exception) -> BaseResponse:
        """Tell a mistake of ours, without a word of its insides: the one boundary of the web."""
        _begin()
        log.error("request.fault", exc_info=error, extra={"request_id": g.request_id})
        wrapped = OperatorError(
            "something went wrong on our side", hint=f"the log tells more under {g.request_id}"
        )
        return self._told(wrapped, 500)

    def _identify(self, *, machine: bool) -> None:
        address = request.remote_addr or ""
        header = request.headers.get("Authorization", "")
        if header:
            scheme, _, bearer = header.partition(" ")
            if scheme.lower() != "bearer" or not bearer.strip():
                raise NotSignedInError("the Authorization header is not: Bearer <token>")
            g.actor = self._machine(bearer.strip()) or self.accounts.authenticate_token(
                bearer.strip(), address=address
            )
            return
        token = request.cookies.get(COOKIE, "")
        if token and not machine:
            try:
                g.actor, g.session = self.accounts.session(token, address=address)
            except NotSignedInError:
                g.actor = g.session = None

    def _machine(self, bearer: str) -> Actor | None:
        sent = bearer.encode()
        found = [x.actor for x in self.machines if hmac.compare_digest(x.token.encode(), sent)]
        return found[0] if found else None

    def _check_origin(self) -> None:
        """Refuse what another site had the browser send: fetch metadata, else the origin."""
        if request.method in SAFE_METHODS:
            return
        site = request.headers.get("Sec-Fetch-Site")
        if site is not None:
            good = site in {"same-origin", "none"}
        else:
            good = request.headers.get("Origin", "") == self._own_origin()
        if not good:
            raise DeniedError(
                "the request does not come from this panel",
                hint="programs send a bearer token instead of a cookie",
            )

    def _check_websocket_origin(self) -> None:
        """Let only our own pages open a WebSocket: browsers send cookies with any site's."""
        if request.headers.getlist("Origin") != [self._own_origin()]:
            raise DeniedError("the WebSocket does not come from this panel")

    def _own_origin(self) -> str:
        url = urlsplit(self.origin)
        return f"{url.scheme}://{url.netloc}"

    def _check_token(self, permission: str) -> None:
        if request.method in SAFE_METHODS or permission == PUBLIC:
            return
        sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token", "")
        if not hmac.compare_digest(sent.encode(), g.session.csrf.encode()):
            raise DeniedError(
                "this form is too old, or not from this session", hint="load the page again"
            )

    def _check_password(self, permission: str) -> None:
        due = g.session.must_change_password and permission != PUBLIC
        if due and request.path not in _PASSWORD:
            raise _PasswordDueError(
                "the first password must be changed before anything else",
                hint="open the panel and choose your own password",
            )

    def _told(self, error: NarthexError, status: int) -> BaseResponse:
        if request.path.startswith(_MACHINES):
            response = jsonify(problem_of(error, status).model_dump(mode="json"))
            response.content_type = PROBLEM_TYPE
        elif self.render_error is not None:
            response = Response(self.render_error(error, g.request_id), mimetype="text/html")
        else:
            response = Response(f"{error}\n{error.hint}\n", mimetype="text/plain")
        response.status_code = status
        if isinstance(error, LimitedError):
            response.headers["Retry-After"] = str(max(1, round(error.retry_after_seconds)))
        if isinstance(error, NotSignedInError):
            response.headers["WWW-Authenticate"] = 'Bearer realm="narthex"'
        return response


class _PasswordDueError(DeniedError):
    kind = "password-due"


class _HttpError(OperatorError):
    """An error of HTTP's own, in our shape."""

    def __init__(self, error: HTTPException) -> None:
        super().__init__(error.description or error.name)
        self.kind = error.name.lower().replace(" ", "-")
        self.status = error.code or 500


def declared(view: object) -> tuple[str, bool]:
    """Tell what a view declares: permission, and whether it is for machines alone."""
    permission = getattr(view, "permission", "")
    if not permission:
        raise UndeclaredViewError(
            f"the view {view!r} declares no permission", hint="use @requires"
        )
    return permission, bool(getattr(view, "machine", False))


def check_declared(app: Flask) -> None:
    """Raise UndeclaredViewError where a route says not who may use it."""
    for rule in app.url_map.iter_rules():
        declared(app.view_functions[rule.endpoint])


def routes_of(app: Flask) -> list[str]:
    """List every route with its methods and permission, for the golden file."""
    lines = []
    for rule in app.url_map.iter_rules():
        permission, machine = declared(app.view_functions[rule.endpoint])
        methods = ",".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))
        lines.append(f"{rule.rule} {methods} {permission}{' machine' if machine else ''}")
    return sorted(lines)


def status_of(error: NarthexError) -> int:
    """Tell an error's HTTP status."""
    if isinstance(error, OperatorError):
        return error.status
    return 409 if isinstance(error, RefusedError) else 500


def problem_of(error: NarthexError, status: int) -> Problem:
    """Write an error as a problem document."""
    node = error.problem if isinstance(error, NodeProblemError) else None
    kind = getattr(error, "kind", "refused" if status < 500 else "internal")  # noqa: PLR2004
    return Problem(
        type=kind,
        title=str(error) if node is None else node.title,
        status=status,
        detail=str(error),
        hint=error.hint,
        errors=error.errors if isinstance(error, InvalidError) else node.errors if node else (),
        run=node.run if node else None,
    )


def machine_actor(name: str) -> Actor:
    """Make the actor of a part of the product. Raises KeyError for a name that is none."""
    grants = tuple(Grant(pattern=pattern) for pattern in MACHINES[name])
    return Actor(id=f"machine:{name}", name=name, grants=grants, address="local")


def _begin() -> None:
    """Give a request its id, once; errors before the checks have one too."""
    if "request_id" not in g:
        g.request_id = secrets.token_hex(8)
        g.began = time.monotonic()
        g.actor = None
        g.session = None


def _view(endpoint: str) -> object:
    return current_app.view_functions[endpoint]


def _is_page_visit() -> bool:
    """Tell whether a person's browser asks for a whole page."""
    return (
        request.method == "GET"
        and not request.path.startswith(_MACHINES)
        and "HX-Request" not in request.headers
    )


def _see_other(target: str) -> BaseResponse:
    return Response(status=303, headers={"Location": target})
