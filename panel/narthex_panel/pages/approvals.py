"""What waits for a second person: look at the exact plan, approve it or reject it."""

from typing import Final

from flask import request
from flask_babel import lazy_gettext

from narthex_operator.errors import ConflictError, DeniedError, InvalidError, OperatorError
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import reload_page

page: Final = Page(
    name="approvals",
    title=lazy_gettext("Approvals"),
    permission="run:read",
    rule="/approvals",
    icon="list-check",
    nav=True,
    badge=lambda services, actor: services.approvals.waiting(actor),
)


@page.get("/approvals")
def show(ui: Ui) -> Answer:
    """List what waits, then what was decided last."""
    return ui.render("approvals.html", requests=ui.services.approvals.list(ui.actor))


@page.get("/approvals/<run_id>")
def detail(ui: Ui, run_id: str) -> Answer:
    """Show what is asked for, whole."""
    return _detail(ui, run_id)


@page.post("/approvals/<run_id>/approve")
def approve(ui: Ui, run_id: str) -> Answer:
    """Approve the plan that was shown; the service checks who may."""
    try:
        ui.services.approvals.approve(ui.actor, run_id, plan=request.form.get("plan", ""))
    except (ConflictError, DeniedError) as error:
        return _detail(ui, run_id, problem=error)
    return reload_page(fragment=ui.is_fragment, path=f"/runs/{run_id}")


@page.post("/approvals/<run_id>/withdraw")
def withdraw(ui: Ui, run_id: str) -> Answer:
    """Take one's own approval back."""
    try:
        ui.services.approvals.withdraw(ui.actor, run_id)
    except ConflictError as error:
        return _detail(ui, run_id, problem=error)
    return reload_page(fragment=ui.is_fragment, path=f"/approvals/{run_id}")


@page.post("/approvals/<run_id>/reject")
def reject(ui: Ui, run_id: str) -> Answer:
    """Reject what is asked for, with a reason."""
    try:
        ui.services.approvals.reject(ui.actor, run_id, reason=request.form.get("reason", ""))
    except (ConflictError, InvalidError) as error:
        return _detail(ui, run_id, problem=error)
    return reload_page(fragment=ui.is_fragment, path="/approvals")


def _detail(ui: Ui, run_id: str, *, problem: OperatorError | None = None) -> Answer:
    found = ui.services.approvals.get(ui.actor, run_id)
    return ui.render(
        "approval.html",
        request=found,
        run=found.run,
        problem=problem,
        may_reject=ui.actor.may(f"action:{found.run.action}", danger=found.run.danger)
        and not found.run.state.final,
        mine=any(one.user == ui.actor.id for one in found.run.approvals),
        reason=request.form.get("reason", ""),
    )
