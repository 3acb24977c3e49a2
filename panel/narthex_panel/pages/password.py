"""Change one's own password; the first one must be changed before anything else."""

from typing import Final

from flask import request
from flask_babel import gettext, lazy_gettext

from narthex_operator.errors import InvalidError, LimitedError
from narthex_operator.services.access import SIGNED_IN
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import COOKIE, keep_session, say_wait, see_other

page: Final = Page(name="password", title=lazy_gettext("Change password"), permission=SIGNED_IN)


@page.get("/password")
def show(ui: Ui) -> Answer:
    """Show the form."""
    return ui.render("password.html", account=ui.account, problem=None)


@page.post("/password")
def change(ui: Ui) -> Answer:
    """Change the password; every other session of the user ends."""
    new = request.form.get("new", "")
    if new != request.form.get("again", ""):
        differ = InvalidError(gettext("The new passwords differ: type the same one twice."))
        return ui.render("password.html", account=ui.account, problem=differ), differ.status
    try:
        token = ui.services.accounts.change_password(
            ui.actor, request.cookies.get(COOKIE, ""), old=request.form.get("old", ""), new=new
        )
    except (InvalidError, LimitedError) as error:
        told, headers = say_wait(error)
        text = ui.render("password.html", account=ui.account, problem=told)
        return text, told.status, headers
    response = see_other("/settings?saved=password" if not _forced(ui) else "/")
    keep_session(response, token)
    return response


def _forced(ui: Ui) -> bool:
    return ui.account.must_change_password
