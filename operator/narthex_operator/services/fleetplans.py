"""Plan an action on many nodes at once, and lay equal plans together."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, select

from narthex_exporter.contract.spec import Action, Danger
from narthex_exporter.contract.wire import PlanReply
from narthex_operator.db import Database
from narthex_operator.db.models import FleetPlanRow, Node
from narthex_operator.errors import ConflictError, OperatorError
from narthex_operator.services.access import Actor
from narthex_operator.services.interfaces import Runs
from narthex_operator.services.runs import CONFIRM
from narthex_operator.services.views import (
    FleetNote,
    FleetPlanGroup,
    FleetPlanView,
    FleetRefusal,
)

PARALLEL: Final = 32
LIFETIME: Final = timedelta(minutes=30)
# Of one person's plans that wait to be run.
_KEPT: Final = 50
_TEXT: Final = 1000


@dataclass(frozen=True, slots=True)
class Planned:
    """What one node said: its plan, or why there is none."""

    node: Node
    plan: PlanReply | None = None
    error: str = ""
    hint: str = ""


def plan_all(
    runs: Runs, actor: Actor, action: Action[Any], params: Mapping[str, Any], nodes: Sequence[Node]
) -> list[Planned]:
    """Ask every node for its plan, some at a time; one that does not answer costs its own."""

    def ask(node: Node) -> Planned:
        try:
            view = runs.plan(actor, node.id, action.name, params)
        except OperatorError as error:
            return Planned(node, error=_plain(str(error), node), hint=_plain(error.hint, node))
        if not view.plan.steps:
            return Planned(node, error="there is nothing to do")
        return Planned(node, plan=view.plan)

    with ThreadPoolExecutor(min(PARALLEL, len(nodes)), thread_name_prefix="plan") as pool:
        return list(pool.map(ask, nodes))


def fleet_digest(
    action: str, params: Mapping[str, Any], members: Sequence[Mapping[str, Any]]
) -> str:
    """Hash an action over its members with their plans' digests; refusals count too."""
    listed = sorted((one["node"], one["plan"]) for one in members)
    text = json.dumps([action, dict(params), listed], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def members_of(planned: Sequence[Planned]) -> list[dict[str, Any]]:
    """Give what is kept of a plan: one entry a node, without a digest where it refused."""
    return [
        {
            "node": one.node.id,
            "name": one.node.name,
            "plan": one.plan.digest if one.plan else "",
            "error": one.error[:_TEXT],
            "hint": one.hint[:_TEXT],
        }
        for one in planned
    ]


def keep(database: Database, row: FleetPlanRow) -> None:
    """Keep a plan for a while, and forget what is older, or too much for one person."""
    with database.session() as session:
        session.execute(
            delete(FleetPlanRow).where(FleetPlanRow.created_at < row.created_at - LIFETIME)
        )
        mine = session.scalars(
            select(FleetPlanRow)
            .where(FleetPlanRow.actor == row.actor, FleetPlanRow.digest != row.digest)
            .order_by(FleetPlanRow.created_at.desc())
            .offset(_KEPT - 1)
        )
        for old in mine:
            session.delete(old)
        session.merge(row)


def recall(database: Database, actor: Actor, digest: str, *, now: datetime) -> FleetPlanRow:
    """Give a plan that was shown to this person. Raises ConflictError."""
    with database.reading() as session:
        row = session.get(FleetPlanRow, (digest, actor.id))
    if row is None or now - row.created_at > LIFETIME:
        raise ConflictError(
            "this plan was not shown to you in the last half hour",
            hint="plan again, look at it, then run it",
        )
    return row


def plan_view(
    row: FleetPlanRow, action: Action[Any], resource: str, planned: Sequence[Planned]
) -> FleetPlanView:
    """Show a plan, equal ones together: what most nodes would do first."""
    going = [one for one in planned if one.plan is not None]
    return FleetPlanView(
        digest=row.digest,
        action=action.name,
        title=action.title,
        summary=action.summary,
        description=action.description,
        danger=action.danger,
        confirm=CONFIRM[action.danger],
        phrase=phrase(resource, len(going)) if action.danger is Danger.DESTRUCTIVE else "",
        params=row.params,
        selector=row.selector,
        members=len(going),
        groups=_groups(going),
        refusals=_refusals([one for one in planned if one.plan is None]),
        retry_of=row.retry_of,
        expires_at=row.created_at + LIFETIME,
    )


def phrase(resource: str, nodes: int) -> str:
    """Give what must be typed before something is destroyed on many nodes."""
    return f"{resource} on {nodes} nodes"


def _groups(planned: Sequence[Planned]) -> tuple[FleetPlanGroup, ...]:
    found: dict[tuple[str, str], list[tuple[Node, PlanReply]]] = {}
    for one in planned:
        if one.plan is not None:
            found.setdefault((one.plan.digest, one.plan.diff), []).append((one.node, one.plan))
    return tuple(
        _group(same)
        for same in sorted(found.values(), key=lambda same: (-len(same), same[0][0].name))
    )


def _group(same: Sequence[tuple[Node, PlanReply]]) -> FleetPlanGroup:
    plan = same[0][1]
    notes: dict[str, list[str]] = {}
    for node, one in same:
        for note in one.notes:
            notes.setdefault(note, []).append(node.name)
    return FleetPlanGroup(
        nodes=tuple(node.name for node, _ in same),
        digest=plan.digest,
        resource=plan.resource,
        steps=plan.steps,
        notes=tuple(FleetNote(text=text, nodes=tuple(names)) for text, names in notes.items()),
        diff=plan.diff,
        complete=all(one.complete for _, one in same),
        approvals=max(one.approvals for _, one in same),
        confirm_seconds=max(one.confirm_seconds for _, one in same),
    )


def _refusals(planned: Sequence[Planned]) -> tuple[FleetRefusal, ...]:
    found: dict[tuple[str, str], list[str]] = {}
    for one in planned:
        found.setdefault((one.error, one.hint), []).append(one.node.name)
    return tuple(
        FleetRefusal(nodes=tuple(names), error=error, hint=hint)
        for (error, hint), names in sorted(found.items(), key=lambda one: -len(one[1]))
    )


def _plain(text: str, node: Node) -> str:
    """Leave out who says it, so that the same said by many is the same."""
    return text.replace(f"node {node.name} at {node.address}", "the node").replace(
        f"node {node.name}", "the node"
    )
