"""The fleet: what needs attention, then every node, live."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from flask import request
from flask_babel import get_locale, gettext, lazy_gettext, ngettext

from narthex_operator.errors import ConflictError, InvalidError, OperatorError
from narthex_operator.services.access import SIGNED_IN
from narthex_operator.services.views import (
    AlertState,
    AlertView,
    FleetView,
    NodeState,
    NodeStatus,
)
from narthex_panel.live import Events, changed_rows
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import reload_page, see_other
from narthex_panel.streams import open_stream

page: Final = Page(
    name="fleet",
    title=lazy_gettext("Fleet"),
    permission="node:read",
    rule="/",
    icon="server-2",
    nav=True,
)

_ORDER: Final = (
    NodeState.DOWN,
    NodeState.STALE,
    NodeState.PENDING,
    NodeState.JOINING,
    NodeState.UP,
    NodeState.REMOVED,
)
_JOIN_LIFETIME: Final = timedelta(hours=1)
_NAMED: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One thing that somebody should look at; ``level`` is ``bad``, ``warn`` or ``info``."""

    level: str
    icon: str
    text: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calm:
    """What is said where nothing needs attention; ``whole`` when every node reports."""

    text: str
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The fleet page at one moment, rendered once for all who see the same."""

    rows: Mapping[str, str]
    attention: str


@page.get("/", permission=SIGNED_IN)
def show(ui: Ui) -> Answer:
    """Show the whole page, or send whoever may not see nodes to what they may see."""
    if not ui.may(page.permission):
        return see_other("/audit" if ui.may("audit:read") else "/settings")
    view = _overview(ui)
    return ui.render(
        "fleet.html",
        view=view,
        rows=sort(view.nodes),
        attention=_attention(ui, view),
        calm=_calm(view),
    )


@page.get("/live/fleet")
def live(ui: Ui) -> Answer:
    """Stream the rows that changed; the first message has all of them."""
    return open_stream(ui, _watch(ui))


@page.get("/add-node", permission="node:write")
def add_form(ui: Ui) -> Answer:
    """Show the form that adds a node."""
    return ui.render("add_node.html", name="", address="", problem=None)


@page.post("/add-node", permission="node:write")
def add(ui: Ui) -> Answer:
    """Add a node, and show the line to paste on it this once."""
    name = request.form.get("name", "").strip()
    address = request.form.get("address", "").strip()
    try:
        joined = ui.services.nodes.add(
            ui.actor, name=name, address=with_port(address), lifetime=_JOIN_LIFETIME
        )
    except (ConflictError, InvalidError) as error:
        # 200: htmx puts the form, with what is wrong in it, where the form was.
        return ui.render("add_node.html", name=name, address=address, problem=error)
    return ui.render("joined.html", joined=joined)


@page.post("/nodes/<ref>/approve", permission="node:write")
def approve(ui: Ui, ref: str) -> Answer:
    """Let actions reach a node whose fingerprint somebody compared."""
    ui.services.nodes.approve(ui.actor, ref)
    return reload_page(fragment=ui.is_fragment, path=f"/nodes/{ref}")


@page.post("/nodes/<ref>/remove", permission="node:write")
def remove(ui: Ui, ref: str) -> Answer:
    """Refuse a node's certificate from now on."""
    if request.form.get("confirmation", "") != ui.services.nodes.get(ui.actor, ref).name:
        raise InvalidError(
            gettext("The name that you typed is not the node's."),
            hint=gettext("type the node's name exactly as it is shown"),
        )
    ui.services.nodes.remove(ui.actor, ref)
    return reload_page(fragment=ui.is_fragment, path="/")


def with_port(address: str) -> str:
    """Add the exporter's usual port to an address that names none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return f"[{found}]:19100" if found.version == 6 else f"{found}:19100"  # noqa: PLR2004


def sort(rows: Sequence[NodeStatus]) -> list[NodeStatus]:
    """Put first what needs attention, then order by name."""
    return sorted(rows, key=lambda row: (_ORDER.index(row.state), row.node.name))


def _overview(ui: Ui) -> FleetView:
    key = ("fleet", ui.actor.grants)
    return ui.live.shared.get(key, lambda: ui.services.fleet.overview(ui.actor))


def _picture(ui: Ui) -> Picture:
    def draw() -> Picture:
        view = _overview(ui)
        rows = {
            row.node.id: ui.render("fleet_row.html", row=row, view=view)
            for row in sort(view.nodes)
        }
        items = _attention(ui, view)
        part = ui.render("attention.html", items=items, view=view, calm=_calm(view))
        return Picture(rows=rows, attention=part)

    return ui.live.shared.get(("fleet-rows", ui.actor.grants, str(get_locale())), draw)


def _watch(ui: Ui) -> Callable[[], Events]:
    sent = Picture(rows={}, attention="")

    def look() -> Events:
        nonlocal sent
        now = _picture(ui)
        events: dict[str, Any] = {}
        rows = changed_rows(sent.rows, now.rows)
        if rows:
            events["rows"] = rows
        if now.attention != sent.attention:
            events["part"] = {"id": "attention", "html": now.attention}
        sent = now
        return events

    return look


def _attention(ui: Ui, view: FleetView) -> list[Attention]:
    items = list(_alerts(ui))
    for state, level, icon, text in (
        (NodeState.DOWN, "bad", "plug-connected-x", gettext("Down: %(names)s")),
        (NodeState.STALE, "warn", "clock", gettext("No fresh data: %(names)s")),
        (NodeState.PENDING, "info", "key", gettext("Waiting for approval: %(names)s")),
    ):
        names = [row.node.name for row in view.nodes if row.state is state]
        if names:
            shown = _listed(names)
            href = f"/nodes/{names[0]}" if len(names) == 1 else f"/?state={state}"
            items.append(
                Attention(level=level, icon=icon, text=text % {"names": shown}, href=href)
            )
    return items


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        shown = gettext("%(names)s and %(count)s more", names=shown, count=len(names) - _NAMED)
    return shown


def _calm(view: FleetView) -> Calm:
    """Count only nodes that are up and have a sample, and name those that do not report."""
    rows = [row for row in view.nodes if row.state is not NodeState.REMOVED]
    up = [row for row in rows if row.state is NodeState.UP and row.sampled_at is not None]
    if rows and len(up) == len(rows):
        text = ngettext(
            "%(num)s node reports and no alert fires.",
            "All %(num)s nodes report and no alert fires.",
            len(up),
        )
        return Calm(text=text, whole=True)
    if up:
        said = ngettext(
            "%(num)s of %(total)s nodes reports and no alert fires",
            "%(num)s of %(total)s nodes report and no alert fires",
            len(up),
            total=len(rows),
        )
    else:
        said = gettext("No node reports yet")
    joining = [row.node.name for row in rows if row.state is NodeState.JOINING]
    silent = [row.node.name for row in rows if row not in up and row.node.name not in joining]
    parts = [said]
    if joining:
        parts.append(gettext("not joined yet: %(names)s", names=_listed(joining)))
    if silent:
        parts.append(gettext("no data yet: %(names)s", names=_listed(silent)))
    return Calm(text="; ".join(parts), whole=False)


def _alerts(ui: Ui) -> list[Attention]:
    if not ui.may("alert:read"):
        return []
    try:
        found = ui.live.shared.get(
            ("alerts", ui.actor.grants), lambda: ui.services.alerts.current(ui.actor)
        )
    except OperatorError as error:
        text = gettext("Alerts are not known: %(why)s", why=str(error))
        return [Attention(level="warn", icon="bell-off", text=text, href="/alerts")]
    firing = [one for one in found.alerts if one.state is AlertState.FIRING]
    if not firing:
        return []
    return [_firing(firing)]


def _firing(firing: Sequence[AlertView]) -> Attention:
    critical = any(one.severity == "critical" for one in firing)
    if len(firing) == 1:
        text = firing[0].summary or firing[0].name
    else:
        names = ", ".join(dict.fromkeys(one.name for one in firing))
        text = ngettext(
            "%(num)s alert fires: %(names)s",
            "%(num)s alerts fire: %(names)s",
            len(firing),
            names=names,
        )
    level = "bad" if critical else "warn"
    return Attention(level=level, icon="bell", text=text, href="/alerts")
