"""Every page of the panel: one module a page, one line here for each; navigation in this order."""

from typing import Final

from narthex_panel.page import Page
from narthex_panel.pages import (
    actions,
    alerts,
    approvals,
    audit,
    compose,
    containers,
    fleet,
    fleet_runs,
    logs,
    node,
    password,
    policy,
    ports,
    processes,
    runbooks,
    runs,
    schedules,
    service_units,
    settings,
    sign_in,
    streams,
)

PAGES: Final[tuple[Page, ...]] = (
    sign_in.page,
    password.page,
    fleet.page,
    node.page,
    processes.page,
    service_units.page,
    policy.page,
    containers.page,
    compose.page,
    ports.page,
    actions.page,
    alerts.page,
    logs.page,
    runs.page,
    approvals.page,
    fleet_runs.page,
    schedules.page,
    runbooks.page,
    audit.page,
    streams.page,
    settings.page,
)
