"""The operator's ledger: who did what, from where, and how it ended."""

from typing import Final

from flask import request
from flask_babel import lazy_gettext

from narthex_panel.page import Answer, Page, Ui

page: Final = Page(
    name="audit",
    title=lazy_gettext("Audit"),
    permission="audit:read",
    rule="/audit",
    icon="shield-check",
    nav=True,
)

_PAGE: Final = 50


@page.get("/audit")
def show(ui: Ui) -> Answer:
    """Show rows that match the filters, newest first."""
    filters = {name: request.args.get(name, "").strip() for name in ("node", "event", "run")}
    found = ui.services.audit.list(
        ui.actor, before=request.args.get("before", type=int), limit=_PAGE, **filters
    )
    return ui.render("audit.html", view=found, filters=filters, filtered=any(filters.values()))
