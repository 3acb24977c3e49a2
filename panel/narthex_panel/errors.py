"""Show an error to a person: what happened, what to do next, and the id to find it by."""

from typing import Final

from flask import g, render_template, request
from flask_babel import gettext

from narthex_operator.errors import NarthexError
from narthex_panel.page import FRAGMENT_HEADER


def render_error(error: NarthexError, request_id: str) -> str:
    """Render a page for an error, or only a box where htmx asks.

    Needs a request under way, and the blueprint registered. Never raises for want of a session.
    """
    status = int(getattr(error, "status", 500))
    fragment = request.headers.get(FRAGMENT_HEADER) == "true"
    return render_template(
        "panel/problem.html" if fragment else "panel/error.html",
        ui=None,
        page=None,
        title=_title(status),
        status=status,
        message=str(error),
        hint=error.hint,
        request_id=request_id,
        signed_in=g.get("session") is not None,
    )


def _title(status: int) -> str:
    titles: Final = {
        401: gettext("Sign in first"),
        403: gettext("You may not do that"),
        404: gettext("There is no such thing"),
        409: gettext("Things have changed"),
        422: gettext("Something is filled in wrong"),
        429: gettext("Too many tries"),
        502: gettext("It does not answer"),
        503: gettext("Not available right now"),
    }
    return str(titles.get(status, gettext("Something went wrong")))
