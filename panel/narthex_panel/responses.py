"""Answer in ways that several pages need."""

from typing import Final

from flask import Response

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


def keep_session(response: Response, token: str) -> None:
    """Put a session's token into the browser, for this origin alone."""
    response.set_cookie(COOKIE, token, path="/", secure=True, httponly=True, samesite="Lax")
