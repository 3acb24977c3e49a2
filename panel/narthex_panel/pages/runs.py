"""What was done: every run, and each one live until it is over."""

from typing import Final

from flask import request
from flask_babel import lazy_gettext

from narthex_exporter.actions import CATALOGUE
from narthex_operator.services.views import RunView
from narthex_panel.live import Events
from narthex_panel.node_frame import frame
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import reload_page
from narthex_panel.streams import open_stream

page: Final = Page(
    name="runs",
    title=lazy_gettext("Runs"),
    permission="run:read",
    rule="/runs",
    icon="history",
    nav=True,
)

_PAGE: Final = 50
_MOST: Final = 500


@page.get("/runs")
def show(ui: Ui) -> Answer:
    """List runs, newest first."""
    limit = min(request.args.get("limit", _PAGE, type=int), _MOST)
    found = ui.services.runs.list(ui.actor, limit=limit)
    more = limit + _PAGE if len(found) == limit and limit < _MOST else None
    return ui.render("runs.html", runs=found, more=more, frame=None)


@page.get("/nodes/<ref>/runs", permission="node:read")
def of_node(ui: Ui, ref: str) -> Answer:
    """List the runs of one node."""
    around = frame(ui, ref, "runs")
    found = ui.services.runs.list(ui.actor, node=around.node.id, limit=_PAGE)
    return ui.render("runs.html", runs=found, more=None, frame=around)


@page.get("/runs/<run_id>")
def detail(ui: Ui, run_id: str) -> Answer:
    """Show one run."""
    run = ui.services.runs.get(ui.actor, run_id)
    return ui.render("run.html", run=run, **rights(ui, run))


@page.get("/live/runs/<run_id>")
def live(ui: Ui, run_id: str) -> Answer:
    """Stream one run until it is final."""
    sent = ""
    over = False

    def look() -> Events | None:
        nonlocal sent, over
        if over:
            return None
        run = ui.live.shared.get(
            ("run", run_id, ui.actor.grants), lambda: ui.services.runs.get(ui.actor, run_id)
        )
        over = run.state.final
        html = ui.render("run_body.html", run=run, **rights(ui, run))
        if html == sent:
            return {}
        sent = html
        return {"parts": {"run-body": html}}

    return open_stream(ui, look)


@page.post("/runs/<run_id>/cancel")
def cancel(ui: Ui, run_id: str) -> Answer:
    """Cancel a run; the service checks that whoever asks may run it."""
    ui.services.runs.cancel(ui.actor, run_id)
    return reload_page(fragment=ui.is_fragment, path=f"/runs/{run_id}")


def rights(ui: Ui, run: RunView) -> dict[str, bool]:
    """Tell whether a run can be cancelled, or undone, by whoever asks."""
    allowed = ui.actor.may(f"action:{run.action}", danger=run.danger)
    undo = run.undo.action if run.undo is not None else ""
    return {
        "may_cancel": allowed and not run.state.final,
        "may_undo": undo in CATALOGUE and ui.may_run(undo),
    }
