"""The systemd units of one node."""

from collections.abc import Mapping
from typing import Any, Final

from flask import request
from flask_babel import lazy_gettext

from narthex_panel.node_frame import blocked, followed, frame, query_state
from narthex_panel.page import Answer, Page, Ui

page: Final = Page(
    name="services", title=lazy_gettext("Services"), permission="query:service.list"
)

ACTIONS: Final = (
    "service.start",
    "service.stop",
    "service.restart",
    "service.reload",
    "service.enable",
    "service.disable",
    "service.mask",
    "service.unmask",
    "service.reset-failed",
)
LINES: Final = 200
TYPES: Final = ("service", "socket", "timer", "path")
_ORDER: Final = ("failed", "activating", "deactivating", "reloading", "active", "inactive")


@page.get("/nodes/<ref>/services")
def show(ui: Ui, ref: str) -> Answer:
    """List the units, failed ones first."""
    kind = request.args.get("type", "service")
    found = frame(ui, ref, "services")
    params = {"type": kind if kind in TYPES else "service"}
    state = query_state(ui, ref, "service.list", params)
    units = sorted(state["answer"]["units"], key=_rank) if state["answer"] else []
    template = "services_table.html" if ui.is_fragment else "services.html"
    return ui.render(
        template,
        frame=found,
        units=units,
        kind=kind,
        types=TYPES,
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


@page.get("/nodes/<ref>/services/<unit>", permission="query:service.get")
def detail(ui: Ui, ref: str, unit: str) -> Answer:
    """Show one unit with what it logged last."""
    found = frame(ui, ref, "services")
    state = query_state(ui, ref, "service.get", {"unit": unit})
    return ui.render(
        "service.html",
        frame=found,
        name=unit,
        actions=ACTIONS,
        live=followed(ui, state["actor"], "service.journal", {"unit": unit, "lines": LINES}),
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


def _rank(unit: Mapping[str, Any]) -> tuple[int, str]:
    state = unit["active_state"]
    return (_ORDER.index(state) if state in _ORDER else len(_ORDER), unit["name"])
