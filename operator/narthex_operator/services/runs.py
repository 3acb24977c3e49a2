"""Ask nodes and act on them: permission and danger by our catalogue, capability by theirs."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from sqlalchemy import CursorResult, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from narthex_exporter.contract.spec import Action, Catalogue, Danger, Follow, Query
from narthex_exporter.contract.wire import (
    ActionManifest,
    FieldError,
    Manifest,
    PlanReply,
    QueryManifest,
    RunRequest,
    RunState,
    new_run_id,
)
from narthex_operator.clients.node import Asker, NodeClient, NodeRef, NotUnderstoodError
from narthex_operator.db import Database
from narthex_operator.db.models import Node, RunRow
from narthex_operator.errors import (
    ConflictError,
    InvalidError,
    NodeProblemError,
    NotFoundError,
    UnreachableError,
)
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.authority import Authority
from narthex_operator.services.ceilings import narrowed
from narthex_operator.services.consent import check_consent, invalid
from narthex_operator.services.delivery import Delivery, refusal
from narthex_operator.services.interfaces import Nodes
from narthex_operator.services.run_rows import RUN_ID, plan_of, ref_of, view_of
from narthex_operator.services.views import ActorView, NodeView, PlanView, RunView

MAX_LIST: Final = 500
_MANIFEST_SECONDS: Final = 15.0
# So long a run waits for those who are to approve it; nodes take no older approval.
APPROVE_WITHIN: Final = timedelta(minutes=15)

CONFIRM: Final = {
    Danger.SAFE: "none",
    Danger.REVERSIBLE: "click",
    Danger.DISRUPTIVE: "reason",
    Danger.DESTRUCTIVE: "typed",
}


@dataclass(frozen=True, slots=True)
class Membership:
    """Of which fleet run a run is a part.

    ``claim`` is called in the transaction that writes it, and raises where its turn has passed.
    """

    fleet_run_id: str
    claim: Callable[[Session], None]


@dataclass(slots=True, kw_only=True)
class RunService:
    """Queries, plans and runs."""

    database: Database
    nodes: Nodes
    client: NodeClient
    audit: AuditLedger
    delivery: Delivery
    catalogue: Catalogue
    authority: Authority
    clock: Callable[[], float] = time.monotonic
    _manifests: dict[str, tuple[float, Manifest]] = field(default_factory=dict, init=False)

    def actor_of(self, actor: Actor, ref: str) -> ActorView:
        """Tell what can be done on a node."""
        node = self.nodes.get(actor, ref)
        try:
            manifest = self._manifest(self.reachable(node), actor)
        except (ConflictError, NodeProblemError, UnreachableError) as error:
            return ActorView(off_reason=str(error), hint=error.hint)
        return ActorView(
            policy=manifest.policy,
            version=manifest.version[:64],
            actions={
                name: _lacking(manifest.actions, name, action.params)
                for name, action in self.catalogue.actions.items()
            },
            queries={
                name: _lacking(manifest.queries, name, query.params)
                for name, query in self.catalogue.queries.items()
            },
            follows={
                name: _lacking(manifest.follows, name, follow.params)
                for name, follow in self.catalogue.follows.items()
            },
        )

    def query(
        self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Ask a node; the reply is read by our declaration."""
        query = self._query(name)
        actor.require(query.permission)
        valid = validated(query.params, params)
        node = self.reachable(self.nodes.get(actor, ref))
        self.capable(node, actor, query)
        asked = valid.model_dump(mode="json")
        reply = self.client.query(node, asker_for(actor), name, asked, query.result)
        found: dict[str, Any] = reply.model_dump(mode="json")
        return found

    def plan(self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]) -> PlanView:
        """Ask a node what an action would do."""
        action = self._action(name)
        actor.require(action.permission, danger=action.danger)
        valid = validated(action.params, params)
        view = self.nodes.get(actor, ref)
        node = self.reachable(view)
        self.sendable(view, action)
        self.capable(node, actor, action)
        asked = valid.model_dump(mode="json")
        plan = self._planned(node, actor, action, valid)
        return PlanView(
            node=view,
            action=name,
            title=action.title,
            summary=action.summary,
            description=action.description,
            danger=action.danger,
            confirm=CONFIRM[action.danger],
            params=asked,
            plan=plan,
            approvals=self.authority.wanted(action, plan.approvals),
        )

    def submit(
        self,
        actor: Actor,
        ref: str,
        name: str,
        params: Mapping[str, Any],
        *,
        plan: str,
        reason: str = "",
        confirmation: str = "",
        run_id: str | None = None,
        member: Membership | None = None,
    ) -> RunView:
        """Write a run and its audit row down, then have it sent, or approved first.

        ``member`` says of which fleet run it is a part.
        """
        action = self._action(name)
        actor.require(action.permission, danger=action.danger)
        valid = validated(action.params, params)
        reason = reason.strip()
        check_consent(action, valid.resource, plan=plan, reason=reason, typed=confirmation)
        if run_id is not None and not RUN_ID.fullmatch(run_id):
            raise invalid("run_id", "must be a UUIDv7, such as a run's id is")
        view = self.nodes.get(actor, ref)
        row = self._row(actor, view, action, valid, plan=plan, reason=reason, run_id=run_id)
        row.fleet_run_id = member.fleet_run_id if member else None
        known = self._known(row) if run_id is not None else None
        if known is not None:
            return known
        node = self.reachable(view)
        self.sendable(view, action)
        self.capable(node, actor, action)
        self._keep_plan(row, node, actor, action, valid)
        try:
            self._write(actor, row, member)
        except IntegrityError:
            known = self._known(row)
            if known is None:
                raise
            return known
        if row.state == RunState.QUEUED:
            self.delivery.dispatch(row.id)
        return view_of(row)

    def get(self, actor: Actor, run_id: str) -> RunView:
        """Show one run, asking its node where it has not ended."""
        actor.require("run:read")
        row = self._find(run_id)
        if not RunState(row.state).final and row.sent_at is not None:
            self.delivery.refresh(run_id)
            row = self._find(run_id)
        return view_of(row)

    def list(self, actor: Actor, *, node: str = "", limit: int = 50) -> Sequence[RunView]:
        """List runs, newest first."""
        actor.require("run:read")
        chosen = select(RunRow).order_by(RunRow.created_at.desc(), RunRow.id.desc())
        if node:
            chosen = chosen.where(or_(RunRow.node_name == node, RunRow.node_id == node))
        with self.database.reading() as session:
            rows = session.scalars(chosen.limit(max(1, min(limit, MAX_LIST)))).all()
        return [view_of(row, whole=False) for row in rows]

    def cancel(self, actor: Actor, run_id: str) -> RunView:
        """Ask a run to stop; needs what running it needs."""
        row = self._find(run_id)
        action = self._action(row.action)
        actor.require(action.permission, danger=action.danger)
        if RunState(row.state).final:
            raise ConflictError(
                f"the run has ended already: {row.state}", hint="look at its result"
            )
        with self.database.session() as session:
            asked = session.execute(
                update(RunRow)
                .where(RunRow.id == run_id, RunRow.cancel_requested_at.is_(None))
                .values(cancel_requested_at=self.delivery.now())
            )
            session.flush()
            # To ask a node again is no other request.
            if isinstance(asked, CursorResult) and asked.rowcount == 1:
                self.audit.record(
                    session,
                    actor=actor,
                    event="run.cancel-requested",
                    node=row.node_id,
                    node_name=row.node_name,
                    resource=row.resource,
                    run=run_id,
                )
        if not self.delivery.withdraw(run_id):
            row = self._find(run_id)
            if row.sent_at is None:
                raise ConflictError(f"the run is {row.state} already", hint="look at its result")
            with self.database.reading() as session:
                node = ref_of(session.get_one(Node, row.node_id))
            self.client.cancel_run(node, asker_for(actor), run_id)
            self.delivery.refresh(run_id)
        return view_of(self._find(run_id))

    def _action(self, name: str) -> Action[Any]:
        found = self.catalogue.actions.get(name)
        if found is None:
            raise NotFoundError(f"there is no action {name[:100]!r}", hint="see the catalogue")
        return found

    def _query(self, name: str) -> Query[Any, Any]:
        found = self.catalogue.queries.get(name)
        if found is None:
            raise NotFoundError(f"there is no query {name[:100]!r}", hint="see the catalogue")
        return found

    def _find(self, run_id: str) -> RunRow:
        with self.database.reading() as session:
            row = session.get(RunRow, run_id) if RUN_ID.fullmatch(run_id) else None
        if row is None:
            raise NotFoundError(f"there is no run {run_id[:64]!r}")
        return row

    def reachable(self, view: NodeView) -> NodeRef:
        """Give a node that may be acted on. Raises ConflictError."""
        with self.database.reading() as session:
            node = session.get_one(Node, view.id)
        why = refusal(node)
        if why:
            raise ConflictError(why, hint="approve it on its page once its fingerprint matches")
        return ref_of(node)

    def _manifest(self, node: NodeRef, actor: Actor) -> Manifest:
        kept = self._manifests.get(node.id)
        if kept is not None and self.clock() - kept[0] < _MANIFEST_SECONDS:
            return kept[1]
        try:
            found = self.client.manifest(node, asker_for(actor))
        except UnreachableError:
            self._manifests.pop(node.id, None)
            raise
        if found.node != node.id:
            raise NotUnderstoodError(f"node {node.name} says that it is another")
        self._manifests[node.id] = (self.clock(), found)
        return found

    def capable(
        self, node: NodeRef, actor: Actor, wanted: Action[Any] | Query[Any, Any] | Follow[Any, Any]
    ) -> None:
        """Raise ConflictError where the node says that it cannot."""
        manifest = self._manifest(node, actor)
        offered: Sequence[ActionManifest | QueryManifest] = manifest.queries
        if isinstance(wanted, Action):
            offered = manifest.actions
        elif isinstance(wanted, Follow):
            offered = manifest.follows
        why = _lacking(offered, wanted.name, wanted.params)
        if why:
            raise ConflictError(f"{wanted.name} is not available on {node.name}: {why}")

    def sendable(self, node: NodeView, action: Action[Any]) -> None:
        """Raise ConflictError where the node was narrowed below an action."""
        why = narrowed(node.ceiling, action)
        if why:
            raise ConflictError(why, hint="an administrator sets the node's ceiling")

    def _planned(self, node: NodeRef, actor: Actor, action: Action[Any], params: Any) -> PlanReply:
        plan = self.client.plan(
            node, asker_for(actor), action.name, params.model_dump(mode="json")
        )
        # What a person confirms is what our declaration names, not what a node calls it.
        if (plan.action, plan.resource) != (action.name, params.resource):
            raise NotUnderstoodError(
                f"node {node.name} plans something else than it was asked for",
                hint="do not trust this node until you know why",
            )
        return plan.model_copy(update={"danger": action.danger})

    def _keep_plan(
        self, row: RunRow, node: NodeRef, actor: Actor, action: Action[Any], params: Any
    ) -> None:
        """Keep the plan that was shown, and have the run wait where it wants approval."""
        plan = self._shown_plan(row, node, actor, action, params)
        by_node = plan.approvals if plan else self._wanted_by(node, actor, action)
        row.approvals_wanted = self.authority.wanted(action, by_node)
        if plan is not None:
            row.plan = plan_of(plan)
            row.confirm_seconds = max(0.0, plan.confirm_seconds)
        if not row.approvals_wanted:
            return
        if plan is None:
            raise ConflictError(
                "the node does not plan what was shown any more: nobody could approve it",
                hint="plan again",
            )
        row.state = RunState.UNAPPROVED
        row.approve_until = row.created_at + APPROVE_WITHIN

    def _shown_plan(
        self, row: RunRow, node: NodeRef, actor: Actor, action: Action[Any], params: Any
    ) -> PlanReply | None:
        """Ask for the plan that was shown once more; ``None`` where there is another by now."""
        try:
            plan = self._planned(node, actor, action, params)
        except NotUnderstoodError:
            raise
        except (NodeProblemError, UnreachableError):
            return None  # to send it will tell why
        return plan if plan.digest == row.plan_digest else None

    def _wanted_by(self, node: NodeRef, actor: Actor, action: Action[Any]) -> int:
        offered = self._manifest(node, actor).actions
        return next((one.approvals for one in offered if one.name == action.name), 0)

    def _row(
        self,
        actor: Actor,
        node: NodeView,
        action: Action[Any],
        params: Any,
        *,
        plan: str,
        reason: str,
        run_id: str | None,
    ) -> RunRow:
        asked = params.model_dump(mode="json")
        body = RunRequest(params=asked, plan=plan, reason=reason).model_dump_json().encode()
        return RunRow(
            id=run_id or new_run_id(),
            node_id=node.id,
            node_name=node.name,
            action=action.name,
            title=action.title,
            resource=params.resource,
            danger=action.danger,
            state=RunState.QUEUED,
            actor=actor.id,
            actor_name=actor.name,
            session=actor.session,
            address=actor.address,
            reason=reason,
            params=asked,
            plan_digest=plan,
            body=body,
            body_sha256=hashlib.sha256(body).hexdigest(),
            steps=[],
            approvals=[],
            error="",
            hint="",
            inverse=action.inverse,
            created_at=self.delivery.now(),
        )

    def _known(self, wanted: RunRow) -> RunView | None:
        """Find the run of a repeated request. Raises ConflictError when it was another."""
        with self.database.reading() as session:
            row = session.get(RunRow, wanted.id)
        if row is None:
            return None
        same = ("node_id", "action", "actor", "body_sha256")
        if any(getattr(row, name) != getattr(wanted, name) for name in same):
            raise ConflictError(
                f"run {wanted.id} was asked for with another request",
                hint="a new run needs a new id",
            )
        return view_of(row)

    def _write(self, actor: Actor, row: RunRow, member: Membership | None) -> None:
        """Write run and audit row in one transaction: without either nothing is sent."""
        with self.database.session() as session:
            if member is not None:
                member.claim(session)
            session.add(row)
            session.flush()
            self.audit.record(
                session,
                actor=actor,
                event="run.requested",
                node=row.node_id,
                node_name=row.node_name,
                resource=row.resource,
                run=row.id,
                reason=row.reason,
                details={
                    "action": row.action,
                    "params": row.params,
                    "plan": row.plan_digest,
                    "ph": row.body_sha256,
                    "approvals_wanted": row.approvals_wanted,
                },
            )


def asker_for(actor: Actor) -> Asker:
    """Say on whose behalf a node is asked."""
    return Asker(id=actor.id, session=actor.session)


def _lacking(
    offered: Sequence[ActionManifest | QueryManifest], name: str, params: type[BaseModel]
) -> str:
    """Say why a node cannot do something; empty when it can."""
    found = next((entry for entry in offered if entry.name == name), None)
    if found is None:
        return "its release does not know it"
    if not found.available:
        return found.unavailable_reason[:300] or "it says so without a reason"
    known = found.params.get("properties")
    unknown = set(params.model_json_schema().get("properties", {})) - set(known or ())
    if unknown:
        return f"its release does not know: {', '.join(sorted(unknown))}"
    return ""


def validated(model: type[Any], params: Mapping[str, Any]) -> Any:
    """Read parameters by their declaration. Raises InvalidError with the fields' paths."""
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        raise InvalidError(
            "some fields are not valid",
            errors=tuple(
                FieldError(
                    path=".".join(("params", *map(str, detail["loc"]))), message=detail["msg"]
                )
                for detail in error.errors(
                    include_url=False, include_context=False, include_input=False
                )
            ),
            hint="correct them and try again",
        ) from error
