"""One node: what it is, how it has been."""

from typing import Final

from flask import Response, request
from flask_babel import lazy_gettext

from narthex_operator.errors import InvalidError
from narthex_panel.live import Events
from narthex_panel.node_frame import Frame, frame, query_state
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import reload_page, see_other
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


@page.get("/nodes/<ref>/labels", permission="node:write")
def labels_form(ui: Ui, ref: str) -> Answer:
    """Show a node's group and labels, to be changed."""
    node = ui.services.nodes.get(ui.actor, ref)
    lines = "\n".join(f"{label}={value}" for label, value in sorted(node.labels.items()))
    return ui.render("node_labels.html", node=node, group=node.group, labels=lines, problem=None)


@page.post("/nodes/<ref>/labels", permission="node:write")
def label(ui: Ui, ref: str) -> Answer:
    """Give a node another group, or other labels."""
    group, text = request.form.get("group", "").strip(), request.form.get("labels", "")
    pairs = [line.partition("=") for line in text.splitlines() if line.strip()]
    labels = {name.strip(): value.strip() for name, _, value in pairs}
    try:
        node = ui.services.nodes.label(ui.actor, ref, labels=labels, group=group)
    except InvalidError as error:
        node = ui.services.nodes.get(ui.actor, ref)
        return ui.render("node_labels.html", node=node, group=group, labels=text, problem=error)
    return reload_page(fragment=ui.is_fragment, path=f"/nodes/{node.name}/overview")


def _parts(ui: Ui, found: Frame) -> dict[str, str]:
    return {
        "node-state": ui.render("node_state.html", frame=found),
        "node-figures": ui.render("node_figures.html", frame=found),
    }


def _minutes() -> int:
    wanted = request.args.get("minutes", type=int)
    return wanted if wanted in RANGES else RANGES[0]
