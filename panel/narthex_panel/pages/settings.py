"""One's own settings, and the parts of the product."""

from typing import Final

from flask import request
from flask_babel import lazy_gettext

from narthex_operator.errors import OperatorError
from narthex_operator.services.access import SIGNED_IN
from narthex_panel.i18n import LANGUAGES, THEMES
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import see_other

page: Final = Page(
    name="settings",
    title=lazy_gettext("Settings"),
    permission=SIGNED_IN,
    rule="/settings",
    icon="settings",
    nav=True,
)


@page.get("/settings")
def show(ui: Ui) -> Answer:
    """Show preferences, the account and how the parts of the product are."""
    parts, problem = [], None
    if ui.may("node:read"):
        try:
            parts = list(ui.services.fleet.parts(ui.actor))
        except OperatorError as error:
            problem = error
    return ui.render(
        "settings.html",
        account=ui.account,
        parts=parts,
        problem=problem,
        themes=THEMES,
        saved=request.args.get("saved", ""),
    )


@page.post("/settings/preferences")
def preferences(ui: Ui) -> Answer:
    """Keep language and theme."""
    language = request.form.get("language", "")
    theme = request.form.get("theme", "")
    ui.services.accounts.set_preferences(
        ui.actor,
        language=language if language in LANGUAGES else "",
        theme=theme if theme in THEMES else "system",
    )
    return see_other("/settings?saved=preferences")
