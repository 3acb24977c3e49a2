"""A small stand-in for the operator's pipeline: session, permission, CSRF, headers, errors."""

from typing import Any

from flask import Flask, Response, g, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from narthex_exporter.contract.errors import NarthexError
from narthex_operator.errors import DeniedError, NotFoundError, NotSignedInError, OperatorError
from narthex_operator.services.access import PUBLIC, SIGNED_IN
from narthex_operator.services.interfaces import Services
from narthex_panel import build, render_error
from narthex_panel.live import Live

COOKIE = "__Host-sid"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; manifest-src 'self'; frame-ancestors 'none';"
    " base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"
)


def _admit(app: Flask, services: Services) -> BaseResponse | None:
    if request.endpoint is None:
        return None
    permission = str(vars(app.view_functions[request.endpoint])["permission"])
    token = request.cookies.get(COOKIE, "")
    try:
        g.actor, g.session = services.accounts.session(token, address="127.0.0.1")
    except NotSignedInError:
        if permission == PUBLIC:
            return None
        if request.method == "GET" and "HX-Request" not in request.headers:
            return redirect("/sign-in", code=303)
        raise
    sent = request.headers.get("X-CSRF-Token") or request.form.get("csrf_token")
    if request.method == "POST" and permission != PUBLIC and sent != g.session.csrf:
        raise DeniedError("this form is too old, or not ours", hint="load the page again")
    if permission not in {PUBLIC, SIGNED_IN}:
        g.actor.require(permission)
    return None


def make_app(services: Services, *, live: Live | None = None) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.register_blueprint(build(services, version="0.1.0", live=live))

    app.before_request(lambda: _admit(app, services))

    @app.after_request
    def harden(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = CSP
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.errorhandler(NarthexError)
    def problem(error: NarthexError) -> tuple[str, int]:
        status = error.status if isinstance(error, OperatorError) else 500
        return render_error(error, "req-0001"), status

    @app.errorhandler(HTTPException)
    def http_problem(error: HTTPException) -> tuple[str, Any]:
        wrapped = NotFoundError("there is no such page", hint="see the menu")
        return render_error(wrapped, "req-0001"), error.code

    return app
