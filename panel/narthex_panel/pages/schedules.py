"""What is done over and over: when next, on whose behalf, and how it went."""

from collections.abc import Mapping
from typing import Any, Final

from flask import request
from flask_babel import lazy_gettext
from pydantic import ValidationError

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import FieldError
from narthex_operator.errors import DeniedError, InvalidError, OperatorError
from narthex_operator.services.views import ScheduleSpec
from narthex_panel.forms import fields_of, parse
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.pages.fleet_runs import strategy_of
from narthex_panel.responses import reload_page, see_other

page: Final = Page(
    name="schedules",
    title=lazy_gettext("Schedules"),
    permission="schedule:read",
    rule="/schedules",
    icon="clock",
    nav=True,
)


@page.get("/schedules")
def show(ui: Ui) -> Answer:
    """List schedules with their next times."""
    return ui.render("schedules.html", schedules=ui.services.schedules.list(ui.actor))


@page.get("/add-schedule", permission="schedule:write")
def add_form(ui: Ui) -> Answer:
    """Ask what is to be done when."""
    return _form(ui, request.args.to_dict())


@page.post("/add-schedule", permission="schedule:write")
def add(ui: Ui) -> Answer:
    """Add a schedule."""
    form = request.form.to_dict()
    try:
        made = ui.services.schedules.add(ui.actor, _spec(form))
    except DeniedError:
        raise
    except OperatorError as error:
        return _form(ui, form, problem=error)
    return reload_page(fragment=ui.is_fragment, path=f"/schedules/{made.spec.name}")


@page.get("/schedules/<ref>")
def detail(ui: Ui, ref: str) -> Answer:
    """Show one schedule with its past and its next times."""
    found = ui.services.schedules.get(ui.actor, ref)
    return ui.render("schedule.html", schedule=found)


@page.post("/schedules/<ref>/run", permission="schedule:write")
def run(ui: Ui, ref: str) -> Answer:
    """Have it done now."""
    ui.services.schedules.run_now(ui.actor, ref)
    return see_other(f"/schedules/{ref}")


@page.post("/schedules/<ref>/switch", permission="schedule:write")
def switch(ui: Ui, ref: str) -> Answer:
    """Let it go on, as one's own, or pause it."""
    spec = ui.services.schedules.get(ui.actor, ref).spec
    wanted = request.form.get("enabled") == "1"
    ui.services.schedules.change(ui.actor, ref, spec.model_copy(update={"enabled": wanted}))
    return see_other(f"/schedules/{ref}")


@page.post("/schedules/<ref>/remove", permission="schedule:write")
def remove(ui: Ui, ref: str) -> Answer:
    """Remove it; what it ran stays."""
    ui.services.schedules.remove(ui.actor, ref)
    return see_other("/schedules")


def _form(ui: Ui, form: Mapping[str, str], *, problem: NarthexError | None = None) -> Answer:
    declared = CATALOGUE.get(form.get("action", ""))
    fields = fields_of(declared.params.model_json_schema()) if declared else ()
    return ui.render(
        "schedule_form.html",
        actions=[
            one
            for name, one in sorted(CATALOGUE.items())
            if ui.may_run(name) and one.danger.rank <= Danger.DISRUPTIVE.rank
        ],
        declared=declared,
        fields=fields,
        form=form,
        problem=problem,
    )


def _spec(form: Mapping[str, str]) -> ScheduleSpec:
    declared = CATALOGUE.get(form.get("action", ""))
    fields = fields_of(declared.params.model_json_schema()) if declared else ()
    given: dict[str, Any] = {
        name: form.get(name, "").strip() for name in ("name", "cron", "on", "reason", "action")
    }
    given["timezone"] = form.get("timezone", "").strip() or "UTC"
    given["misfire"] = form.get("misfire", "skip")
    if form.get("every_seconds", "").strip():
        given["every_seconds"] = form["every_seconds"].strip()
    given["params"] = parse(fields, form)
    try:
        return ScheduleSpec.model_validate(given | {"strategy": strategy_of(form)})
    except ValidationError as error:
        told = tuple(
            FieldError(path=".".join(map(str, one["loc"])), message=one["msg"])
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        )
        words = "; ".join(f"{one.path}: {one.message}" for one in told)
        raise InvalidError(words, errors=told) from error
