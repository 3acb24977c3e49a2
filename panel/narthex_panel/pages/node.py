"""One node: what it is, how it has been."""

from typing import Final

from flask import Response, request
from flask_babel import lazy_gettext

from narthex_panel.live import Events
from narthex_panel.node_frame import Frame, frame, query_state
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import see_other
from narthex_panel.streams import open_stream

page: Final = Page(name="node", title=lazy_gettext("Node"), permission="node:read")

RANGES: Final = (60, 360, 1440)


@page.get("/nodes/<ref>")
def index(ui: Ui, ref: str) -> Answer:
    """Go to the first tab."""
    node = ui.services.nodes.get(ui.actor, ref)
    return see_other(f"/nodes/{node.name}/overview")


@page.get("/nodes/<ref>/overview")
def overview(ui: Ui, ref: str) -> Answer:
    """Show facts, figures and charts."""
    found = frame(ui, ref, "overview")
    info = query_state(ui, ref, "host.info", {}) if ui.may("query:host.info") else None
    return ui.render(
        "node_overview.html", frame=found, info=info, minutes=_minutes(), ranges=RANGES
    )


@page.get("/nodes/<ref>/charts.json")
def charts(ui: Ui, ref: str) -> Answer:
    """Give the charts' values as JSON."""
    found = ui.services.fleet.charts(ui.actor, ref, minutes=_minutes())
    body = "[" + ",".join(chart.model_dump_json() for chart in found) + "]"
    return Response(body, content_type="application/json")


@page.get("/live/nodes/<ref>")
def live(ui: Ui, ref: str) -> Answer:
    """Stream the node's head and figures when they change."""
    node = ui.services.nodes.get(ui.actor, ref)
    sent: dict[str, str] = {}

    def look() -> Events:
        parts = _parts(ui, frame(ui, node.id, "overview"))
        changed = {name: html for name, html in parts.items() if sent.get(name) != html}
        sent.update(changed)
        if not changed:
            return {}
        return {"parts": changed}

    return open_stream(ui, look)


@page.get("/nodes/<ref>/remove", permission="node:write")
def remove_form(ui: Ui, ref: str) -> Answer:
    """Ask for the node's name before its certificate is refused."""
    return ui.render("remove_node.html", node=ui.services.nodes.get(ui.actor, ref))


def _parts(ui: Ui, found: Frame) -> dict[str, str]:
    return {
        "node-state": ui.render("node_state.html", frame=found),
        "node-figures": ui.render("node_figures.html", frame=found),
    }


def _minutes() -> int:
    wanted = request.args.get("minutes", type=int)
    return wanted if wanted in RANGES else RANGES[0]
