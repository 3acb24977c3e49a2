"""The programs that supervisord keeps running on one node."""

from collections.abc import Mapping
from typing import Any, Final

from flask import request
from flask_babel import lazy_gettext

from narthex_panel.node_frame import blocked, frame, query_state
from narthex_panel.page import Answer, Page, Ui

page: Final = Page(
    name="programs", title=lazy_gettext("Programs"), permission="query:supervisor.list"
)

ACTIONS: Final = ("supervisor.start", "supervisor.stop", "supervisor.restart")
# What needs somebody first; supervisord's own words.
_ORDER: Final = ("FATAL", "BACKOFF", "UNKNOWN", "STARTING", "STOPPING", "RUNNING", "EXITED")
_TAIL_BYTES: Final = 1 << 16


@page.get("/nodes/<ref>/programs")
def show(ui: Ui, ref: str) -> Answer:
    """List the programs, those that failed first."""
    found = frame(ui, ref, "services")
    state = query_state(ui, ref, "supervisor.list", {})
    programs = sorted(state["answer"]["programs"], key=_rank) if state["answer"] else []
    template = "programs_table.html" if ui.is_fragment else "programs.html"
    return ui.render(
        template,
        frame=found,
        programs=programs,
        kind="programs",
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


@page.get("/nodes/<ref>/programs/<name>")
def detail(ui: Ui, ref: str, name: str) -> Answer:
    """Show one program with the end of what it printed."""
    found = frame(ui, ref, "services")
    state = query_state(ui, ref, "supervisor.list", {})
    programs = state["answer"]["programs"] if state["answer"] else []
    program = next((one for one in programs if one["name"] == name), None)
    errors = request.args.get("of") == "errors"
    printed = None
    if program and ui.may("query:supervisor.tail"):
        wanted = {"program": name, "size_bytes": _TAIL_BYTES, "errors": errors}
        printed = query_state(ui, ref, "supervisor.tail", wanted)
    return ui.render(
        "program.html",
        frame=found,
        name=name,
        one=program,
        errors=errors,
        printed=printed,
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


def _rank(program: Mapping[str, Any]) -> tuple[int, str]:
    state = program["state"]
    if state == "EXITED" and program["exit_status"]:
        return 0, program["name"]
    return (_ORDER.index(state) if state in _ORDER else len(_ORDER), program["name"])
