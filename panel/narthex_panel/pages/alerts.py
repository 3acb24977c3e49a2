"""Alerts: what fires, what has been, and silences."""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from flask import request
from flask_babel import gettext, lazy_gettext

from narthex_operator.errors import NotFoundError, OperatorError
from narthex_operator.services.views import AlertState, AlertsView, AlertView
from narthex_panel.live import Events
from narthex_panel.node_frame import frame
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import reload_page
from narthex_panel.streams import open_stream

page: Final = Page(
    name="alerts",
    title=lazy_gettext("Alerts"),
    permission="alert:read",
    rule="/alerts",
    icon="bell",
    nav=True,
)

SILENCES: Final = (1, 4, 24)
_COMMENT_CHARACTERS: Final = 500
_STATES: Final = (AlertState.FIRING, AlertState.PENDING, AlertState.SILENCED)
_SEVERITIES: Final = ("critical", "warning", "info")


@page.get("/alerts")
def show(ui: Ui) -> Answer:
    """Show what fires now."""
    view, problem = _current(ui, "")
    return ui.render(
        "alerts.html", frame=None, tab="now", view=view, alerts=_sorted(view), problem=problem
    )


@page.get("/alerts/history")
def history(ui: Ui) -> Answer:
    """Show what has been."""
    view = ui.services.alerts.history(ui.actor)
    return ui.render(
        "alerts.html", frame=None, tab="history", view=view, alerts=view.alerts, problem=None
    )


@page.get("/alerts/<alert_id>")
def detail(ui: Ui, alert_id: str) -> Answer:
    """Show one alert with all that it says."""
    return ui.render(
        "alert_dialog.html" if ui.is_fragment else "alert.html", alert=_find(ui, alert_id)
    )


@page.get("/nodes/<ref>/alerts")
def of_node(ui: Ui, ref: str) -> Answer:
    """Show one node's alerts, and those that have been."""
    around = frame(ui, ref, "alerts")
    view, problem = _current(ui, around.node.name)
    past = ui.services.alerts.history(ui.actor, node=around.node.name)
    return ui.render(
        "node_alerts.html",
        frame=around,
        view=view,
        alerts=_sorted(view),
        past=past.alerts,
        problem=problem,
    )


@page.get("/live/alerts")
def live(ui: Ui) -> Answer:
    """Stream the list when it changes."""
    return open_stream(ui, _watch(ui))


@page.get("/alerts/<alert_id>/silence", permission="alert:silence")
def silence_form(ui: Ui, alert_id: str) -> Answer:
    """Ask for how long, and why."""
    found = _find(ui, alert_id)
    return ui.render("silence.html", alert=found, hours=SILENCES)


@page.post("/alerts/<alert_id>/silence", permission="alert:silence")
def silence(ui: Ui, alert_id: str) -> Answer:
    """Silence an alert."""
    hours = request.form.get("hours", type=int)
    duration = timedelta(hours=hours if hours in SILENCES else SILENCES[0])
    comment = request.form.get("comment", "").strip()[:_COMMENT_CHARACTERS]
    ui.services.alerts.silence(ui.actor, alert_id, duration=duration, comment=comment)
    return reload_page(fragment=ui.is_fragment, path="/alerts")


@page.post("/silences/<silence_id>/end", permission="alert:silence")
def unsilence(ui: Ui, silence_id: str) -> Answer:
    """End a silence."""
    ui.services.alerts.unsilence(ui.actor, silence_id)
    return reload_page(fragment=ui.is_fragment, path="/alerts")


def _current(ui: Ui, node: str) -> tuple[AlertsView, OperatorError | None]:
    try:
        return ui.services.alerts.current(ui.actor, node=node), None
    except OperatorError as error:
        return AlertsView(alerts=()), error


def _find(ui: Ui, alert_id: str) -> AlertView:
    view, problem = _current(ui, "")
    past = ui.services.alerts.history(ui.actor).alerts
    for one in (*view.alerts, *past):
        if one.id == alert_id:
            return one
    if problem is not None:
        raise problem
    raise NotFoundError(
        gettext("This alert is not known any more."), hint=gettext("see the alerts' history")
    )


def _sorted(view: AlertsView) -> list[AlertView]:
    def rank(one: AlertView) -> tuple[int, int, float]:
        state = _STATES.index(one.state) if one.state in _STATES else len(_STATES)
        known = one.severity in _SEVERITIES
        severity = _SEVERITIES.index(one.severity) if known else len(_SEVERITIES)
        return state, severity, -one.started_at.timestamp()

    return sorted(view.alerts, key=rank)


def _watch(ui: Ui) -> Callable[[], Events]:
    sent = ""

    def look() -> Events:
        nonlocal sent
        view = ui.live.shared.get(
            ("alerts", ui.actor.grants), lambda: ui.services.alerts.current(ui.actor)
        )
        html = ui.render("alerts_list.html", alerts=_sorted(view), view=view, problem=None)
        if html == sent:
            return {}
        sent = html
        return {"parts": {"alerts-list": html}}

    return look
