"""The API's routes of fleet runs and schedules."""

from typing import Annotated, Any, Final

from flask import request
from pydantic import Field

from narthex_operator.api.routing import PREFIX, Ask, Input, Items, Nothing, Route
from narthex_operator.services.selectors import MAX_TEXT
from narthex_operator.services.strategy import MAX_NODES, Strategy
from narthex_operator.services.views import (
    FleetPlanView,
    FleetRunView,
    ScheduleSpec,
    ScheduleView,
)

Selector = Annotated[str, Field(max_length=MAX_TEXT)]
Ref = Annotated[str, Field(min_length=1, max_length=256)]


class TargetsQuery(Input):
    """Which nodes, by a selector."""

    on: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class FleetPlanBody(Input):
    """An action with its parameters, for nodes by a selector, or by names or ids."""

    action: Ref
    params: dict[str, Any] = Field(default_factory=dict)
    on: Selector = ""
    nodes: tuple[Ref, ...] = Field(default=(), max_length=MAX_NODES)


class FleetRunBody(Input):
    """A fleet run of the plan whose digest is ``plan``.

    Nodes that refused at the plan must be left out expressly. ``fleet_run_id``, or the header
    ``Idempotency-Key``, is a UUIDv7 that makes a retry harmless.
    """

    plan: str
    strategy: Strategy = Strategy()
    reason: str = ""
    confirmation: str = ""
    leave_out_refused: bool = False
    fleet_run_id: str | None = None


class ResumeBody(Input):
    """How to go on: with the gate asked anew, or skipped this once."""

    skip_gate: bool = False


class FleetRunQuery(Input):
    """How many, newest first."""

    limit: int = Field(default=50, ge=1, le=200)


class ScheduleBody(ScheduleSpec, Input):
    """A schedule, whole."""


def _targets(ask: Ask) -> Items[str]:
    found = ask.services.fleet_runs.targets(ask.actor, ask.query.on)
    return Items[str](items=tuple(found))


def _plan(ask: Ask) -> FleetPlanView:
    body: FleetPlanBody = ask.body
    return ask.services.fleet_runs.plan(
        ask.actor, body.action, body.params, on=body.on, nodes=body.nodes
    )


def _submit(ask: Ask) -> FleetRunView:
    body: FleetRunBody = ask.body
    return ask.services.fleet_runs.submit(
        ask.actor,
        plan=body.plan,
        strategy=body.strategy,
        reason=body.reason,
        confirmation=body.confirmation,
        leave_out_refused=body.leave_out_refused,
        fleet_run_id=body.fleet_run_id or request.headers.get("Idempotency-Key"),
    )


def _list(ask: Ask) -> Items[FleetRunView]:
    found = ask.services.fleet_runs.list(ask.actor, limit=ask.query.limit)
    return Items[FleetRunView](items=tuple(found))


def _get(ask: Ask) -> FleetRunView:
    return ask.services.fleet_runs.get(ask.actor, ask.path["fleet_run"])


def _cancel(ask: Ask) -> FleetRunView:
    return ask.services.fleet_runs.cancel(ask.actor, ask.path["fleet_run"])


def _resume(ask: Ask) -> FleetRunView:
    return ask.services.fleet_runs.resume(
        ask.actor, ask.path["fleet_run"], skip_gate=ask.body.skip_gate
    )


def _plan_retry(ask: Ask) -> FleetPlanView:
    return ask.services.fleet_runs.plan_retry(ask.actor, ask.path["fleet_run"])


def _schedules(ask: Ask) -> Items[ScheduleView]:
    return Items[ScheduleView](items=tuple(ask.services.schedules.list(ask.actor)))


def _schedule(ask: Ask) -> ScheduleView:
    return ask.services.schedules.get(ask.actor, ask.path["schedule"])


def _add_schedule(ask: Ask) -> ScheduleView:
    return ask.services.schedules.add(ask.actor, ask.body)


def _change_schedule(ask: Ask) -> ScheduleView:
    return ask.services.schedules.change(ask.actor, ask.path["schedule"], ask.body)


def _remove_schedule(ask: Ask) -> None:
    ask.services.schedules.remove(ask.actor, ask.path["schedule"])


def _run_schedule(ask: Ask) -> ScheduleView:
    return ask.services.schedules.run_now(ask.actor, ask.path["schedule"])


FLEET_ROUTES: Final = (
    Route(name="targets", method="GET", rule="/targets", permission="node:read",
          tag="fleet-runs", summary="Name the nodes that a selector means.", call=_targets,
          query=TargetsQuery, reply=Items[str]),
    Route(name="plan_fleet_run", method="POST", rule="/fleet-runs/plans", permission="node:read",
          tag="fleet-runs", summary="Tell what an action would do on many nodes.", call=_plan,
          body=FleetPlanBody, reply=FleetPlanView),
    Route(name="submit_fleet_run", method="POST", rule="/fleet-runs", permission="node:read",
          tag="fleet-runs", summary="Run what was planned for many nodes.", call=_submit,
          body=FleetRunBody, reply=FleetRunView, status=202,
          location=lambda run: f"{PREFIX}/fleet-runs/{run.id}"),
    Route(name="fleet_runs", method="GET", rule="/fleet-runs", permission="run:read",
          tag="fleet-runs", summary="List fleet runs, newest first.", call=_list,
          query=FleetRunQuery, reply=Items[FleetRunView]),
    Route(name="fleet_run", method="GET", rule="/fleet-runs/<fleet_run>", permission="run:read",
          tag="fleet-runs", summary="Show a fleet run with its members and their outputs.",
          call=_get, reply=FleetRunView),
    Route(name="cancel_fleet_run", method="DELETE", rule="/fleet-runs/<fleet_run>",
          permission="run:read", tag="fleet-runs",
          summary="Begin nothing more, and ask what runs to stop.", call=_cancel,
          reply=FleetRunView, status=202),
    Route(name="resume_fleet_run", method="POST", rule="/fleet-runs/<fleet_run>/resume",
          permission="run:read", tag="fleet-runs", summary="Let a halted fleet run go on.",
          call=_resume, body=ResumeBody, reply=FleetRunView, status=202),
    Route(name="retry_failed", method="POST", rule="/fleet-runs/<fleet_run>/retry-failed",
          permission="run:read", tag="fleet-runs",
          summary="Plan the same again for the nodes that failed.", call=_plan_retry,
          body=Nothing, reply=FleetPlanView),
    Route(name="schedules", method="GET", rule="/schedules", permission="schedule:read",
          tag="schedules", summary="List schedules.", call=_schedules,
          reply=Items[ScheduleView]),
    Route(name="add_schedule", method="POST", rule="/schedules", permission="schedule:write",
          tag="schedules", summary="Add a schedule.", call=_add_schedule, body=ScheduleBody,
          reply=ScheduleView, status=201,
          location=lambda one: f"{PREFIX}/schedules/{one.id}"),
    Route(name="schedule", method="GET", rule="/schedules/<schedule>",
          permission="schedule:read", tag="schedules",
          summary="Show a schedule, by name or id, with its last times.", call=_schedule,
          reply=ScheduleView),
    Route(name="change_schedule", method="PUT", rule="/schedules/<schedule>",
          permission="schedule:write", tag="schedules",
          summary="Change a schedule, which becomes one's own.", call=_change_schedule,
          body=ScheduleBody, reply=ScheduleView),
    Route(name="remove_schedule", method="DELETE", rule="/schedules/<schedule>",
          permission="schedule:write", tag="schedules", summary="Remove a schedule.",
          call=_remove_schedule, status=204),
    Route(name="run_schedule", method="POST", rule="/schedules/<schedule>/run",
          permission="schedule:write", tag="schedules",
          summary="Have a schedule done now, as its owner.", call=_run_schedule, body=Nothing,
          reply=ScheduleView, status=202),
)  # fmt: skip
