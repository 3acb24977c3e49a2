"""Run one action on many nodes: what it would do, and how it goes wave by wave."""

from collections.abc import Mapping
from typing import Any, Final

from flask import request
from flask_babel import lazy_gettext
from pydantic import ValidationError

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.wire import FieldError, new_run_id
from narthex_operator.errors import DeniedError, InvalidError, OperatorError
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.views import FleetPlanView, FleetRunView
from narthex_panel.forms import complete, fields_of, parse
from narthex_panel.live import Events
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import reload_page, see_other
from narthex_panel.streams import open_stream

page: Final = Page(name="fleet_runs", title=lazy_gettext("Fleet runs"), permission="run:read")

_NUMBERS: Final = ("canary", "parallel", "stop_after")
_SECONDS: Final = ("gate_for_seconds", "gate_timeout_seconds", "pause_seconds")


@page.get("/fleet-runs")
def show(ui: Ui) -> Answer:
    """List fleet runs, newest first."""
    return ui.render("fleet_runs.html", runs=ui.services.fleet_runs.list(ui.actor))


@page.post("/fleet-runs/new", permission="node:read")
def plan(ui: Ui) -> Answer:
    """Choose an action for the chosen nodes, and show what it would do: nothing is changed."""
    nodes = tuple(dict.fromkeys(request.form.getlist("node")))
    declared = CATALOGUE.get(request.form.get("action", ""))
    fields = fields_of(declared.params.model_json_schema()) if declared else ()
    given = {field.name: field.default for field in fields if field.default}
    given.update(request.form.to_dict())
    params = parse(fields, given)
    view, problem = None, None
    if declared and "chosen" in request.form and complete(fields, params):
        try:
            strategy_of(request.form)
            view = ui.services.fleet_runs.plan(ui.actor, declared.name, params, nodes=nodes)
        except DeniedError:
            raise
        except NarthexError as error:
            problem = error
    return _dialog(
        ui, nodes=nodes, declared=declared, fields=fields, params=params, view=view,
        problem=problem, strategy=request.form,
    )  # fmt: skip


@page.post("/fleet-runs", permission="node:read")
def submit(ui: Ui) -> Answer:
    """Start what was shown."""
    form = request.form
    try:
        run = ui.services.fleet_runs.submit(
            ui.actor,
            plan=form.get("plan", ""),
            strategy=strategy_of(form),
            reason=form.get("reason", "").strip(),
            confirmation=form.get("confirmation", ""),
            leave_out_refused=form.get("leave_out_refused") == "1",
            fleet_run_id=form.get("fleet_run_id") or None,
        )
    except DeniedError:
        raise
    except OperatorError as error:
        return _dialog(ui, problem=error, strategy=form)
    return reload_page(fragment=ui.is_fragment, path=f"/fleet-runs/{run.id}")


@page.get("/fleet-runs/<fleet_run_id>")
def detail(ui: Ui, fleet_run_id: str) -> Answer:
    """Show one fleet run."""
    run = ui.services.fleet_runs.get(ui.actor, fleet_run_id)
    return ui.render("fleet_run.html", run=run, may_change=_may_change(ui, run))


@page.get("/live/fleet-runs/<fleet_run_id>")
def live(ui: Ui, fleet_run_id: str) -> Answer:
    """Stream one fleet run until it is over."""
    sent, over = "", False

    def look() -> Events | None:
        nonlocal sent, over
        if over:
            return None
        run = ui.live.shared.get(
            ("fleet-run", fleet_run_id, ui.actor.grants),
            lambda: ui.services.fleet_runs.get(ui.actor, fleet_run_id),
        )
        over = run.state.final
        html = ui.render("fleet_run_body.html", run=run, may_change=_may_change(ui, run))
        if html == sent:
            return {}
        sent = html
        return {"part": {"id": "fleet-run-body", "html": html}}

    return open_stream(ui, look)


@page.post("/fleet-runs/<fleet_run_id>/cancel")
def cancel(ui: Ui, fleet_run_id: str) -> Answer:
    """Begin nothing more, and ask what runs to stop."""
    ui.services.fleet_runs.cancel(ui.actor, fleet_run_id)
    return see_other(f"/fleet-runs/{fleet_run_id}")


@page.post("/fleet-runs/<fleet_run_id>/resume")
def resume(ui: Ui, fleet_run_id: str) -> Answer:
    """Let a halted one go on."""
    ui.services.fleet_runs.resume(
        ui.actor, fleet_run_id, skip_gate=request.form.get("skip_gate") == "1"
    )
    return see_other(f"/fleet-runs/{fleet_run_id}")


@page.post("/fleet-runs/<fleet_run_id>/retry")
def retry(ui: Ui, fleet_run_id: str) -> Answer:
    """Show what the same would do on the nodes that failed."""
    run = ui.services.fleet_runs.get(ui.actor, fleet_run_id)
    strategy = {name: str(value) for name, value in run.strategy.model_dump().items()}
    view, problem = None, None
    try:
        view = ui.services.fleet_runs.plan_retry(ui.actor, fleet_run_id)
    except DeniedError:
        raise
    except OperatorError as error:
        problem = error
    return _dialog(ui, view=view, problem=problem, strategy=strategy, reason=run.reason)


def strategy_of(form: Mapping[str, str]) -> Strategy:
    """Read a strategy from a form. Raises InvalidError with the fields' paths."""
    given: dict[str, Any] = {"batch": form.get("batch", "").strip() or "100%"}
    given |= {name: form[name] for name in (*_NUMBERS, *_SECONDS) if form.get(name, "").strip()}
    given["gate"] = form.get("gate", "").strip()
    try:
        return Strategy.model_validate(given)
    except ValidationError as error:
        told = tuple(
            FieldError(path=".".join(map(str, one["loc"])) or "gate", message=one["msg"])
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        )
        words = "; ".join(f"{one.path}: {one.message}" for one in told)
        raise InvalidError(words, errors=told) from error


def _dialog(
    ui: Ui,
    *,
    problem: NarthexError | None = None,
    view: FleetPlanView | None = None,
    strategy: Mapping[str, str],
    reason: str = "",
    **more: Any,
) -> Answer:
    values = {"nodes": (), "declared": None, "fields": (), "params": {}, **more}
    return ui.render(
        "fleet_plan.html",
        actions=[one for name, one in sorted(CATALOGUE.items()) if ui.may_run(name)],
        view=view,
        problem=problem,
        strategy=_strings(strategy),
        reason=reason or request.form.get("reason", ""),
        fleet_run_id=new_run_id(),
        **values,
    )


def _strings(form: Mapping[str, str]) -> dict[str, str]:
    """Give a form its values back, or the strategy's own where it has none yet."""
    defaults = Strategy().model_dump()
    return {
        name: form.get(name, f"{value:g}" if isinstance(value, int | float) else str(value))
        for name, value in defaults.items()
    }


def _may_change(ui: Ui, run: FleetRunView) -> bool:
    known = run.action in CATALOGUE
    return known and ui.may_run(run.action)
