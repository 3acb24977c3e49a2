"""The systemd units of one node."""

import re
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
# What is set up: files, limits, timers.
SETUP: Final = (
    "service.edit-drop-in", "service.remove-drop-in", "service.revert", "service.set-property",
    "service.edit-timer", "service.edit-timer-as-root", "service.remove-timer",
)  # fmt: skip
PAGE_ACTIONS: Final = (
    "service.create-timer", "service.create-timer-as-root", "service.daemon-reload",
)  # fmt: skip
# Others are there to look at.
ACTED_ON: Final = ("service", "socket", "timer", "path")
LIMITED: Final = ("service", "socket", "slice")
LINES: Final = 200
TYPES: Final = ("service", "timer", "socket", "path", "target", "mount", "swap", "slice", "scope")
_USER: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9._-]{0,31}")
_ORDER: Final = ("failed", "activating", "deactivating", "reloading", "active", "inactive")


@page.get("/nodes/<ref>/services")
def show(ui: Ui, ref: str) -> Answer:
    """List the units, failed ones first."""
    kind = request.args.get("type", "service")
    found = frame(ui, ref, "services")
    kind = kind if kind in TYPES else "service"
    user = _user()
    params = {"type": kind, "user": user}
    state = query_state(ui, ref, "service.list", params)
    units = sorted(state["answer"]["units"], key=_rank) if state["answer"] else []
    template = "services_table.html" if ui.is_fragment else "services.html"
    return ui.render(
        template,
        frame=found,
        units=units,
        kind=kind,
        types=TYPES,
        user=user,
        acted_on=ACTED_ON,
        blocked=blocked(ui, state["actor"], (*ACTIONS, *PAGE_ACTIONS)),
        **state,
    )


@page.get("/nodes/<ref>/services/<unit>", permission="query:service.get")
def detail(ui: Ui, ref: str, unit: str) -> Answer:
    """Show one unit with what it logged last."""
    found = frame(ui, ref, "services")
    user = _user()
    state = query_state(ui, ref, "service.get", {"unit": unit, "user": user})
    params = {"unit": unit, "lines": LINES}
    kind = unit.rpartition(".")[2]
    return ui.render(
        "service.html",
        frame=found,
        name=unit,
        actions=ACTIONS,
        user=user,
        acts=kind in ACTED_ON,
        limited=kind in LIMITED and not user,
        # Of users' units only the last lines are told.
        live=None if user else followed(ui, state["actor"], "service.journal", params),
        blocked=blocked(ui, state["actor"], (*ACTIONS, *SETUP)),
        **state,
    )


def _user() -> str:
    given = request.args.get("user", "").strip()
    return given if _USER.fullmatch(given) else ""


def _rank(unit: Mapping[str, Any]) -> tuple[int, str]:
    state = unit["active_state"]
    return (_ORDER.index(state) if state in _ORDER else len(_ORDER), unit["name"])
