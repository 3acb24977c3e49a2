"""Answer in ways that several pages need."""

import math
import secrets
from typing import Final

from flask import Response, g
from flask_babel import ngettext

from narthex_operator.errors import LimitedError, OperatorError

COOKIE: Final = "__Host-sid"


def see_other(path: str) -> Response:
    """Send the browser to another page after a change, so that a reload repeats nothing."""
    response = Response(status=303)
    response.headers["Location"] = path
    return response


def reload_page(*, fragment: bool, path: str) -> Response:
    """Have htmx load a page, or send a plain form there."""
    if not fragment:
        return see_other(path)
    response = Response(status=204)
    response.headers["HX-Redirect"] = path
    return response


def say_wait(error: OperatorError) -> tuple[OperatorError, dict[str, str]]:
    """Say in the reader's language how long to wait, and give the headers that say so too.

    Every other error comes back as it is, without a header.
    """
    if not isinstance(error, LimitedError):
        return error, {}
    seconds = max(1, math.ceil(error.retry_after_seconds))
    text = ngettext(
        "Too many tries: wait %(num)s second, then try again.",
        "Too many tries: wait %(num)s seconds, then try again.",
        seconds,
    )
    told = LimitedError(text, retry_after_seconds=error.retry_after_seconds)
    return told, {"Retry-After": str(seconds)}


def keep_session(response: Response, token: str) -> None:
    """Put a session's token into the browser, for this origin alone."""
    response.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="Lax")


def style_nonce() -> str:
    """Let this one response's page make <style> elements of its own, where they carry the nonce.

    The pipeline writes it into the content security policy; scripts get nothing from it.
    """
    made = secrets.token_urlsafe(16)
    g.style_nonce = made
    return made
