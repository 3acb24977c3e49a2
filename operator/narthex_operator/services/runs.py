"""Ask nodes and act on them: permission and danger by our catalogue, capability by theirs."""

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError

from narthex_exporter.contract.spec import Action, Catalogue, Danger, Follow, Query
from narthex_exporter.contract.wire import (
    ActionManifest,
    FieldError,
    Manifest,
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
from narthex_operator.services.delivery import Delivery, refusal
from narthex_operator.services.interfaces import Nodes
from narthex_operator.services.run_rows import ref_of, view_of
from narthex_operator.services.views import ActorView, NodeView, PlanView, RunView

RUN_ID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
MAX_REASON: Final = 500
# Control characters, line breaks, what turns the direction of writing, half a character.
UNSHOWN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MAX_LIST: Final = 500
_MANIFEST_SECONDS: Final = 15.0

CONFIRM: Final = {
    Danger.SAFE: "none",
    Danger.REVERSIBLE: "click",
    Danger.DISRUPTIVE: "reason",
    Danger.DESTRUCTIVE: "typed",
}


@dataclass(slots=True, kw_only=True)
class RunService:
    """Queries, plans and runs."""

    database: Database
    nodes: Nodes
    client: NodeClient
    audit: AuditLedger
    delivery: Delivery
    catalogue: Catalogue
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
        self.capable(node, actor, action)
        asked = valid.model_dump(mode="json")
        plan = self.client.plan(node, asker_for(actor), name, asked)
        # What a person confirms is what our declaration names, not what a node calls it.
        if (plan.action, plan.resource) != (name, valid.resource):
            raise NotUnderstoodError(
                f"node {node.name} plans something else than it was asked for",
                hint="do not trust this node until you know why",
            )
        return PlanView(
            node=view,
            action=name,
            title=action.title,
            summary=action.summary,
            description=action.description,
            danger=action.danger,
            confirm=CONFIRM[action.danger],
            params=asked,
            plan=plan.model_copy(update={"danger": action.danger}),
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
    ) -> RunView:
        """Write a run and its audit row down, then have it sent."""
        action = self._action(name)
        actor.require(action.permission, danger=action.danger)
        valid = validated(action.params, params)
        reason = reason.strip()
        _check_consent(action, valid.resource, plan=plan, reason=reason, typed=confirmation)
        if run_id is not None and not RUN_ID.fullmatch(run_id):
            raise _invalid("run_id", "must be a UUIDv7, such as a run's id is")
        view = self.nodes.get(actor, ref)
        row = self._row(actor, view, action, valid, plan=plan, reason=reason, run_id=run_id)
        known = self._known(row) if run_id is not None else None
        if known is not None:
            return known
        self.capable(self.reachable(view), actor, action)
        try:
            self._write(actor, row)
        except IntegrityError:
            known = self._known(row)
            if known is None:
                raise
            return known
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
        return [view_of(row) for row in rows]

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
            session.execute(
                update(RunRow)
                .where(RunRow.id == run_id, RunRow.cancel_requested_at.is_(None))
                .values(cancel_requested_at=self.delivery.now())
            )
            session.flush()
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

    def _write(self, actor: Actor, row: RunRow) -> None:
        """Write run and audit row in one transaction: without either nothing is sent."""
        with self.database.session() as session:
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


def check_reason(action: Action[Any], reason: str) -> None:
    """Demand that a person says why, where an action's danger asks for it. Raises InvalidError."""
    if len(reason) > MAX_REASON:
        raise _invalid("reason", f"must be at most {MAX_REASON} characters long")
    if UNSHOWN.search(reason):
        raise _invalid("reason", "must be one line of text, without control characters")
    if action.danger.rank >= Danger.DISRUPTIVE.rank and not reason:
        raise _invalid("reason", f"must say why: {action.name} is {action.danger}")


def _check_consent(
    action: Action[Any], resource: str, *, plan: str, reason: str, typed: str
) -> None:
    """Demand what a person must have done before something of this danger runs."""
    if not DIGEST.fullmatch(plan):
        raise _invalid("plan", "must be the digest of the plan that was shown")
    check_reason(action, reason)
    if action.danger is Danger.DESTRUCTIVE and typed != resource:
        raise _invalid("confirmation", f"must be {resource}, typed in full")


def _invalid(path: str, message: str) -> InvalidError:
    return InvalidError(f"{path} {message}", errors=(FieldError(path=path, message=message),))
