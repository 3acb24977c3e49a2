"""Sign in and out."""

from typing import Final
from urllib.parse import urlsplit

from flask import request
from flask_babel import lazy_gettext

from narthex_operator.errors import InvalidError, LimitedError, NotSignedInError
from narthex_operator.services.access import PUBLIC, SIGNED_IN
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import COOKIE, keep_session, say_wait, see_other

page: Final = Page(name="sign_in", title=lazy_gettext("Sign in"), permission=PUBLIC)


@page.get("/sign-in")
def show(ui: Ui) -> Answer:
    """Show the form, or the fleet to whoever is signed in."""
    if ui.session is not None:
        return see_other(local_path(request.args.get("next", "/")))
    return ui.render("sign_in.html", name="", next=request.args.get("next", "/"), problem=None)


@page.post("/sign-in")
def sign_in(ui: Ui) -> Answer:
    """Start a session."""
    name = request.form.get("name", "")
    then = local_path(request.form.get("next", "/"))
    try:
        token = ui.services.accounts.sign_in(
            name,
            request.form.get("password", ""),
            address=request.remote_addr or "",
            user_agent=request.headers.get("User-Agent", "")[:256],
        )
    except (NotSignedInError, LimitedError, InvalidError) as error:
        told, headers = say_wait(error)
        text = ui.render("sign_in.html", name=name, next=then, problem=told)
        return text, told.status, headers
    response = see_other(then)
    keep_session(response, token)
    return response


@page.post("/sign-out", permission=SIGNED_IN)
def sign_out(ui: Ui) -> Answer:
    """End the session, and have the browser forget what it kept."""
    ui.services.accounts.sign_out(request.cookies.get(COOKIE, ""))
    response = see_other("/sign-in")
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Lax")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def local_path(wanted: str) -> str:
    """Accept only a path of this origin: a form must not send people elsewhere."""
    parts = urlsplit(wanted)
    odd = any(ord(char) <= ord(" ") or char == "\\" for char in wanted)
    if odd or parts.scheme or parts.netloc or not wanted.startswith("/") or wanted[1:2] == "/":
        return "/"
    return wanted
