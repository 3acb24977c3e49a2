"""The processes of one node."""

from typing import Final

from flask import request
from flask_babel import lazy_gettext

from narthex_panel.node_frame import blocked, followed, frame, query_state
from narthex_panel.page import Answer, Page, Ui

page: Final = Page(
    name="processes", title=lazy_gettext("Processes"), permission="query:process.list"
)

SHOWN: Final = 300
ACTIONS: Final = ("process.signal", "process.renice")
_ORDERS: Final = ("cpu", "memory", "pid")
_MATCH_CHARACTERS: Final = 128


@page.get("/nodes/<ref>/processes")
def show(ui: Ui, ref: str) -> Answer:
    """List the processes that use most; the node does the filtering, so that none is missed."""
    order = request.args.get("order", "cpu")
    order = order if order in _ORDERS else "cpu"
    match = request.args.get("q", "").strip()[:_MATCH_CHARACTERS]
    found = frame(ui, ref, "processes")
    params = {"limit": SHOWN, "order": order, "match": match}
    state = query_state(ui, ref, "process.list", params)
    template = "processes_table.html" if ui.is_fragment else "processes.html"
    return ui.render(
        template,
        frame=found,
        match=match,
        order=order,
        live=followed(ui, state["actor"], "process.top", params),
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )
