"""The Compose projects of one node, and the files that they are made of."""

from typing import Final

from flask import request
from flask_babel import lazy_gettext

from narthex_panel.node_frame import blocked, frame, query_state
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.pages.actions import show_plan

page: Final = Page(
    name="compose", title=lazy_gettext("Compose projects"), permission="query:compose.list"
)

ACTIONS: Final = (
    "compose.check",
    "compose.up",
    "compose.down",
    "compose.start",
    "compose.stop",
    "compose.pull",
    "compose.edit",
)


@page.get("/nodes/<ref>/containers/compose")
def show(ui: Ui, ref: str) -> Answer:
    """List projects with their services and files."""
    found = frame(ui, ref, "containers")
    state = query_state(ui, ref, "compose.list", {})
    return ui.render(
        "compose.html",
        frame=found,
        kind="compose",
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


@page.get("/nodes/<ref>/compose/<engine>/<project>", permission="query:compose.get")
def detail(ui: Ui, ref: str, engine: str, project: str) -> Answer:
    """Show one project, one of its files to be edited, and what its containers wrote last."""
    found = frame(ui, ref, "containers")
    named = {"engine": engine, "project": project}
    state = query_state(ui, ref, "compose.get", named)
    known = state["answer"]["project"] if state["answer"] else None
    paths = [one["path"] for one in known["files"]] if known else []
    path = request.args.get("file", "")
    path = path if path in paths else next(iter(paths), "")
    file = logs = None
    if path and ui.may("action:compose.edit"):
        file = query_state(ui, ref, "compose.file", {**named, "file": path})
    if known and ui.may("query:compose.logs"):
        logs = query_state(ui, ref, "compose.logs", named)
    return ui.render(
        "compose_project.html",
        frame=found,
        engine=engine,
        name=project,
        path=path,
        file=file,
        logs=logs,
        blocked=blocked(ui, state["actor"], ACTIONS),
        **state,
    )


@page.post("/nodes/<ref>/compose/<engine>/<project>", permission="node:read")
def edit(ui: Ui, ref: str, engine: str, project: str) -> Answer:
    """Show how a file would change; a whole file is too long for an address, hence POST."""
    action = "compose.check" if request.form.get("do") == "check" else "compose.edit"
    params = {
        "engine": engine,
        "project": project,
        "file": request.form.get("file", ""),
        "content": request.form.get("content", "").replace("\r\n", "\n"),
    }
    return show_plan(ui, ref, action, params)
