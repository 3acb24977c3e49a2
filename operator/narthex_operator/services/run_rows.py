"""Turn rows of runs into views, and what a node says of a run into a row."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.tickets import Approval
from narthex_exporter.contract.wire import PlanReply, Run, RunState, StepRecord, UndoHint
from narthex_operator.clients.node import Asker, NodeRef
from narthex_operator.db.models import Node, RunRow
from narthex_operator.services.access import Actor
from narthex_operator.services.views import ApprovalView, ProbeView, RunView

RUN_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
# A node keeps head and tail of outputs itself; one that does not must not fill our disk.
_STEPS: Final = 100
_OUTPUT: Final = 32_768
_TEXT: Final = 2_000


def view_of(row: RunRow, *, whole: bool = True) -> RunView:
    """Show a row, its plan only where it is shown whole."""
    return RunView(
        id=row.id,
        node=row.node_id,
        node_name=row.node_name,
        action=row.action,
        title=row.title,
        resource=row.resource,
        danger=Danger(row.danger),
        state=RunState(row.state),
        actor=row.actor_name,
        reason=row.reason,
        params=row.params,
        steps=tuple(StepRecord.model_validate(step) for step in row.steps),
        error=row.error,
        hint=row.hint,
        after=row.after,
        inverse=row.inverse,
        undo=UndoHint.model_validate(row.undo) if row.undo else None,
        plan=PlanReply.model_validate(row.plan) if whole and row.plan else None,
        approvals_wanted=row.approvals_wanted or 0,
        approvals=tuple(
            ApprovalView(user=f"user:{one.user_id}", name=one.user_name, at=one.at)
            for one in row.approvals
        ),
        approve_until=row.approve_until,
        confirm_until=row.confirm_until,
        probes=tuple(ProbeView.model_validate(probe) for probe in row.probes or ()),
        fleet_run=row.fleet_run_id,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def copy_into(row: RunRow, run: Run, *, now: datetime) -> None:
    """Take over what a node says of a run. A run that has ended here stays as it is."""
    if RunState(row.state).final:
        return
    row.state = run.state.value
    row.steps = _steps(run.steps)
    row.error = run.error[:_TEXT]
    row.hint = run.hint[:_TEXT]
    row.after = _small(run.after)
    row.undo = _undo(run.undo)
    row.confirm_until = run.confirm_until
    row.started_at = run.started_at
    row.checked_at = now
    if run.state.final:
        row.finished_at = run.finished_at or now


def requester_of(row: RunRow) -> Actor:
    """Name whoever asked for a run, for the audit; this actor may do nothing."""
    return Actor(
        id=row.actor,
        name=row.actor_name,
        grants=(),
        session=row.session,
        address=row.address,
    )


def asker_of(row: RunRow, approvals: Sequence[Approval] = ()) -> Asker:
    """Name whoever asked for a run and who approved it, for tickets."""
    return Asker(
        id=row.actor,
        session=row.session,
        reason=row.reason[:_TEXT],
        approvals=tuple(approvals),
    )


def ref_of(node: Node) -> NodeRef:
    """Name a node to talk to."""
    return NodeRef(id=node.id, name=node.name, address=node.address)


def _steps(steps: Sequence[StepRecord]) -> list[dict[str, Any]]:
    return [
        step.model_copy(
            update={
                "text": step.text[:_TEXT],
                "output": step.output[:_OUTPUT],
                "truncated": step.truncated or len(step.output) > _OUTPUT,
            }
        ).model_dump(mode="json")
        for step in steps[:_STEPS]
    ]


def plan_of(plan: PlanReply) -> dict[str, Any]:
    """Keep a plan as it was shown, bounded: a node's words must not fill our disk."""
    kept = plan.model_copy(
        update={
            "steps": tuple(
                step.model_copy(
                    update={
                        "text": step.text[:_TEXT],
                        "exact": step.exact if _fits(step.exact) else {},
                    }
                )
                for step in plan.steps[:_STEPS]
            ),
            "notes": tuple(note[:_TEXT] for note in plan.notes[:_STEPS]),
            "diff": plan.diff[:_OUTPUT],
        }
    )
    return kept.model_dump(mode="json")


def _fits(exact: Mapping[str, Any]) -> bool:
    return len(json.dumps(exact)) <= _OUTPUT


def _undo(undo: UndoHint | None) -> dict[str, Any] | None:
    if undo is None or not _fits(undo.params):
        return None
    return undo.model_dump(mode="json")


def _small(after: dict[str, Any] | None) -> dict[str, Any] | None:
    if after is None:
        return None
    return {
        str(name)[:64]: value[:_TEXT] if isinstance(value, str) else value
        for name, value in list(after.items())[:64]
        if isinstance(value, str | int | float | bool | None)
    }
