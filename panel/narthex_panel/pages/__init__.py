"""Every page of the panel: one module a page, one line here for each; navigation in this order."""

from typing import Final

from narthex_panel.page import Page
from narthex_panel.pages import (
    actions,
    alerts,
    audit,
    fleet,
    logs,
    node,
    password,
    processes,
    runbooks,
    runs,
    service_units,
    settings,
    sign_in,
    streams,
    terminal,
)

PAGES: Final[tuple[Page, ...]] = (
    sign_in.page,
    password.page,
    fleet.page,
    node.page,
    processes.page,
    service_units.page,
    actions.page,
    alerts.page,
    logs.page,
    runs.page,
    runbooks.page,
    audit.page,
    streams.page,
    terminal.page,
    settings.page,
)
