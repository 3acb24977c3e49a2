"""The processes of one node."""

from typing import Any, Final

from flask import request
from flask_babel import gettext, lazy_gettext

from narthex_operator.errors import NotFoundError
from narthex_panel.node_frame import blocked, followed, frame, query_state
from narthex_panel.page import Answer, Page, Ui

page: Final = Page(
    name="processes", title=lazy_gettext("Processes"), permission="query:process.list"
)

SHOWN: Final = 300
TREE_SHOWN: Final = 1000
ACTIONS: Final = ("process.signal", "process.renice")
DETAIL_ACTIONS: Final = (
    "process.terminate", "process.restart", "process.signal", "process.renice",
)  # fmt: skip
ENVIRONMENT: Final = "process.environment"
START: Final = ("process.start", "process.start-as-root")
_NAME_CHARACTERS: Final = 64
_UNIT_CHARACTERS: Final = 255
_MOST_PORT: Final = 65_535
_MOST_PID: Final = 4_194_304
_ORDERS: Final = ("cpu", "memory", "pid")
_MATCH_CHARACTERS: Final = 128


@page.get("/nodes/<ref>/processes")
def show(ui: Ui, ref: str) -> Answer:
    """List the processes that use most; the node does the filtering, so that none is missed."""
    order = request.args.get("order", "cpu")
    order = order if order in _ORDERS else "cpu"
    match = request.args.get("q", "").strip()[:_MATCH_CHARACTERS]
    found = frame(ui, ref, "processes")
    filters = _filters()
    params = {"limit": SHOWN, "order": order, "match": match}
    tree = request.args.get("view") == "tree" and ui.may("query:process.tree")
    if tree:
        wanted = {"match": match, "limit": TREE_SHOWN, **filters}
        state = query_state(ui, ref, "process.tree", wanted)
    else:
        state = query_state(ui, ref, "process.list", {**params, **filters})
    # What is streamed knows no filters but the text's.
    live = None if tree or filters else followed(ui, state["actor"], "process.top", params)
    template = "processes_table.html" if ui.is_fragment else "processes.html"
    return ui.render(
        template,
        frame=found,
        match=match,
        order=order,
        filters=filters,
        tree=tree,
        live=live,
        blocked=blocked(ui, state["actor"], (*ACTIONS, *START)),
        **state,
    )


@page.get("/nodes/<ref>/processes/<int:pid>", permission="query:process.get")
def detail(ui: Ui, ref: str, pid: int) -> Answer:
    """Show one process with all that is known of it."""
    if not 1 <= pid <= _MOST_PID:
        raise NotFoundError(gettext("There is no such process on this node."))
    found = frame(ui, ref, "processes")
    state = query_state(ui, ref, "process.get", {"pid": pid})
    return ui.render(
        "process.html",
        frame=found,
        pid=pid,
        environment=_environment(ui, ref, state["answer"]),
        may_inspect=ui.may(f"inspect:{ENVIRONMENT}"),
        blocked=blocked(ui, state["actor"], DETAIL_ACTIONS),
        **state,
    )


def _environment(ui: Ui, ref: str, answer: dict[str, Any] | None) -> dict[str, Any] | None:
    """Ask for the environment only where somebody wants to see it: it stands in the audit."""
    one = answer and answer["process"]
    if not one or "environment" not in request.args or not ui.may(f"inspect:{ENVIRONMENT}"):
        return None
    return query_state(
        ui, ref, ENVIRONMENT, {"pid": one["pid"], "start_ticks": one["start_ticks"]}
    )


def _filters() -> dict[str, Any]:
    """Read the filters of the address; the node applies them."""
    port = request.args.get("port", 0, type=int)
    given = {
        "user": request.args.get("user", "").strip()[:_NAME_CHARACTERS],
        "unit": request.args.get("unit", "").strip()[:_UNIT_CHARACTERS],
        "port": port if 0 < port <= _MOST_PORT else 0,
    }
    return {name: value for name, value in given.items() if value}
