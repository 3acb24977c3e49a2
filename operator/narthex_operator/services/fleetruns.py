"""Plan one action over many nodes, start it, look at it, let it go on, stop it.

What is started is only written down here; ``services/driver.py`` carries it out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from narthex_exporter.contract.spec import Action, Catalogue, Danger
from narthex_exporter.contract.wire import FieldError, new_run_id
from narthex_operator.db import Database
from narthex_operator.db.models import FleetMember, FleetPlanRow, FleetRunRow, RunRow
from narthex_operator.errors import ConflictError, InvalidError, NotFoundError
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.consent import check_consent
from narthex_operator.services.fleet_rows import fleet_run_view
from narthex_operator.services.fleetplans import (
    fleet_digest,
    keep,
    members_of,
    phrase,
    plan_all,
    plan_view,
    recall,
)
from narthex_operator.services.gates import Gates
from narthex_operator.services.interfaces import Runs
from narthex_operator.services.members import Aim, resolve
from narthex_operator.services.run_rows import RUN_ID
from narthex_operator.services.runs import validated
from narthex_operator.services.selectors import listed
from narthex_operator.services.strategy import Strategy, spread
from narthex_operator.services.views import FleetPlanView, FleetRunView
from narthex_operator.services.waves import FleetRunState, MemberState

MAX_LIST: Final = 200


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRunService:
    """Implements ``interfaces.FleetRuns``."""

    database: Database
    audit: AuditLedger
    runs: Runs
    gates: Gates
    catalogue: Catalogue
    now: Callable[[], datetime] = _now

    def targets(self, actor: Actor, on: str) -> Sequence[str]:
        """Name the nodes that a selector means (``node:read``)."""
        return [node.name for node in resolve(self.database, actor, Aim(on=on))]

    def plan(
        self,
        actor: Actor,
        name: str,
        params: Mapping[str, Any],
        *,
        on: str = "",
        nodes: Sequence[str] = (),
        retry_of: str | None = None,
    ) -> FleetPlanView:
        """Ask every node that is meant what would be done (``action:<name>`` at its danger)."""
        action = self._action(name)
        actor.require(action.permission, danger=action.danger)
        valid = validated(action.params, params)
        asked = valid.model_dump(mode="json")
        aim = Aim(on=on, nodes=nodes)
        planned = plan_all(
            self.runs, actor, action, asked, resolve(self.database, actor, aim, action)
        )
        members = members_of(planned)
        row = FleetPlanRow(
            digest=fleet_digest(name, asked, members),
            actor=actor.id,
            action=name,
            params=asked,
            selector=aim.text,
            members=members,
            retry_of=retry_of,
            created_at=self.now(),
        )
        keep(self.database, row)
        return plan_view(row, action, valid.resource, planned)

    def submit(
        self,
        actor: Actor,
        *,
        plan: str,
        strategy: Strategy,
        reason: str = "",
        confirmation: str = "",
        leave_out_refused: bool = False,
        fleet_run_id: str | None = None,
        schedule: str | None = None,
        claim: Callable[[Session], None] | None = None,
    ) -> FleetRunView:
        """Start what was shown (``action:<name>`` at its danger). Returns at once.

        ``claim`` is called in the transaction that writes it, and may raise to prevent that.
        """
        if fleet_run_id is not None and not RUN_ID.fullmatch(fleet_run_id):
            raise _invalid("fleet_run_id", "must be a UUIDv7, such as a run's id is")
        shown = recall(self.database, actor, plan, now=self.now())
        action = self._action(shown.action)
        actor.require(action.permission, danger=action.danger)
        resource = validated(action.params, shown.params).resource
        going = [one for one in shown.members if one["plan"]]
        refused = [one["name"] for one in shown.members if not one["plan"]]
        reason = reason.strip()
        wanted = phrase(resource, len(going))
        if action.danger is Danger.DESTRUCTIVE and confirmation != wanted:
            raise _invalid("confirmation", f"must be {wanted!r}, typed in full")
        check_consent(action, resource, plan=plan, reason=reason, typed=resource)
        if not going:
            raise ConflictError("no node would do anything", hint="see why in the plan")
        if refused and not leave_out_refused:
            raise ConflictError(
                f"{len(refused)} of {len(shown.members)} nodes refuse: {listed(refused)}",
                hint="leave them out expressly, or correct what they say and plan again",
            )
        known = self._known(actor, fleet_run_id, plan)
        if known is not None:
            return known
        if strategy.gate:
            self.gates.validate(strategy.gate)
        # Whom the plan was for may have been removed, or one's rights may have changed, since.
        resolve(self.database, actor, Aim(nodes=[one["node"] for one in going]), action)
        row = self._row(actor, shown, action, resource, strategy, reason=reason)
        row.id, row.schedule_id = fleet_run_id or row.id, schedule
        left_out = [one for one in shown.members if not one["plan"]]
        return self._enter(actor, row, going, left_out, claim)

    def get(self, actor: Actor, fleet_run_id: str) -> FleetRunView:
        """Show one fleet run with its members and their outputs (``run:read``)."""
        actor.require("run:read")
        with self.database.reading() as session:
            row = _find(session, fleet_run_id)
            members = _members(session, row.id)
            runs = session.scalars(select(RunRow).where(RunRow.fleet_run_id == row.id))
            return fleet_run_view(row, members, {run.id: run for run in runs})

    def list(self, actor: Actor, *, limit: int = 50) -> Sequence[FleetRunView]:
        """List fleet runs without their members, newest first (``run:read``)."""
        actor.require("run:read")
        query = select(FleetRunRow).order_by(FleetRunRow.created_at.desc(), FleetRunRow.id.desc())
        with self.database.reading() as session:
            rows = session.scalars(query.limit(max(1, min(limit, MAX_LIST)))).all()
            found: dict[str, list[FleetMember]] = {row.id: [] for row in rows}
            for member in session.scalars(
                select(FleetMember).where(FleetMember.fleet_run_id.in_(found))
            ):
                found[member.fleet_run_id].append(member)
            return [fleet_run_view(row, found[row.id]) for row in rows]

    def cancel(self, actor: Actor, fleet_run_id: str) -> FleetRunView:
        """Begin nothing more, and ask what runs to stop (needs what running it needs)."""
        with self.database.session() as session:
            row = self._changing(session, actor, fleet_run_id)
            if row.cancelled_by is None:
                row.cancelled_by = {
                    "id": actor.id,
                    "name": actor.name,
                    "session": actor.session,
                    "address": actor.address,
                }
                self._record(session, actor, row, "fleet-run.cancel-requested")
        return self._shown(fleet_run_id)

    def resume(self, actor: Actor, fleet_run_id: str, *, skip_gate: bool = False) -> FleetRunView:
        """Let a halted one go on (needs what running it needs).

        As many more nodes may fail as its strategy says; a gate is asked anew, or skipped once.
        """
        with self.database.session() as session:
            row = self._changing(session, actor, fleet_run_id)
            if row.state != FleetRunState.HALTED or row.cancelled_by is not None:
                raise ConflictError(
                    f"the fleet run is not halted, but {row.state}", hint="look at it again"
                )
            members = _members(session, row.id)
            due = any(m.state == MemberState.WAITING and m.wave <= row.wave for m in members)
            gated = bool(Strategy.model_validate(row.strategy).gate) and not due and not skip_gate
            now = self.now()
            row.state = FleetRunState.GATING if gated else FleetRunState.RUNNING
            if not gated and not due:
                row.wave = min(row.wave + 1, row.waves - 1)
            row.forgiven = sum(MemberState(member.state).failed for member in members)
            row.error = row.hint = row.gate_told = ""
            row.gate_since, row.gate_began_at = None, now if gated else None
            row.halted_at, row.driven_at = None, now
            self._record(
                session, actor, row, "fleet-run.resumed", details={"skip_gate": skip_gate}
            )
        return self._shown(fleet_run_id)

    def plan_retry(self, actor: Actor, fleet_run_id: str) -> FleetPlanView:
        """Plan the same again for the nodes that failed (needs what running it needs)."""
        with self.database.reading() as session:
            row = _find(session, fleet_run_id)
            failed = [
                member.node_id
                for member in _members(session, row.id)
                if MemberState(member.state).failed
            ]
        if not FleetRunState(row.state).final:
            raise ConflictError("the fleet run is not over yet", hint="wait, or cancel it")
        if not failed:
            raise ConflictError("no node failed", hint="there is nothing to do again")
        return self.plan(actor, row.action, row.params, nodes=failed, retry_of=row.id)

    def _action(self, name: str) -> Action[Any]:
        found = self.catalogue.actions.get(name)
        if found is None:
            raise NotFoundError(f"there is no action {name[:100]!r}", hint="see the catalogue")
        return found

    def _changing(self, session: Session, actor: Actor, fleet_run_id: str) -> FleetRunRow:
        """Find one that is not over, to be changed by who may run it."""
        row = _find(session, fleet_run_id, lock=True)
        action = self._action(row.action)
        actor.require(action.permission, danger=action.danger)
        if FleetRunState(row.state).final:
            raise ConflictError(
                f"the fleet run has ended already: {row.state}", hint="look at its results"
            )
        return row

    def _row(
        self,
        actor: Actor,
        shown: FleetPlanRow,
        action: Action[Any],
        resource: str,
        strategy: Strategy,
        *,
        reason: str,
    ) -> FleetRunRow:
        now = self.now()
        return FleetRunRow(
            id=new_run_id(),
            action=action.name,
            title=action.title,
            resource=resource,
            danger=action.danger,
            params=shown.params,
            selector=shown.selector,
            strategy=strategy.model_dump(mode="json"),
            plan_digest=shown.digest,
            reason=reason,
            actor=actor.id,
            actor_name=actor.name,
            session=actor.session,
            address=actor.address,
            retry_of=shown.retry_of,
            state=FleetRunState.RUNNING,
            created_at=now,
            driven_at=now,
        )

    def _enter(
        self,
        actor: Actor,
        row: FleetRunRow,
        going: Sequence[Mapping[str, Any]],
        refused: Sequence[Mapping[str, Any]],
        claim: Callable[[Session], None] | None,
    ) -> FleetRunView:
        sizes = Strategy.model_validate(row.strategy).waves(len(going))
        row.waves = len(sizes)
        members = [
            _member(row, one, wave, position, MemberState.WAITING)
            for position, (one, wave) in enumerate(zip(going, spread(sizes), strict=True))
        ]
        members += [_member(row, one, -1, -1, MemberState.LEFT_OUT) for one in refused]
        try:
            with self.database.session() as session:
                if claim is not None:
                    claim(session)
                session.add(row)
                session.flush()
                session.add_all(members)
                session.flush()
                details = {"action": row.action, "params": row.params, "plan": row.plan_digest,
                           "strategy": row.strategy, "waves": list(sizes),
                           "nodes": [one["name"] for one in going]}  # fmt: skip
                self._record(session, actor, row, "fleet-run.requested", details=details)
        except IntegrityError:
            known = self._known(actor, row.id, row.plan_digest)
            if known is None:
                raise
            return known
        return self._shown(row.id)

    def _known(self, actor: Actor, fleet_run_id: str | None, plan: str) -> FleetRunView | None:
        """Find the fleet run of a repeated request. Raises ConflictError when it was another."""
        if fleet_run_id is None:
            return None
        with self.database.reading() as session:
            row = session.get(FleetRunRow, fleet_run_id)
        if row is None:
            return None
        if (row.actor, row.plan_digest) != (actor.id, plan):
            raise ConflictError(
                f"fleet run {fleet_run_id} was asked for with another request",
                hint="a new one needs a new id",
            )
        return self._shown(fleet_run_id)

    def _shown(self, fleet_run_id: str) -> FleetRunView:
        with self.database.reading() as session:
            row = _find(session, fleet_run_id)
            return fleet_run_view(row, _members(session, row.id))

    def _record(
        self,
        session: Session,
        actor: Actor,
        row: FleetRunRow,
        event: str,
        *,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        session.flush()
        self.audit.record(
            session,
            actor=actor,
            event=event,
            resource=row.resource,
            run=row.id,
            reason=row.reason,
            details=details,
        )


def _member(
    row: FleetRunRow, one: Mapping[str, Any], wave: int, position: int, state: MemberState
) -> FleetMember:
    return FleetMember(
        fleet_run_id=row.id,
        node_id=one["node"],
        node_name=one["name"],
        wave=wave,
        position=position,
        run_id=new_run_id(),
        plan_digest=one["plan"],
        state=state,
        error=one["error"],
        hint=one["hint"],
    )


def _find(session: Session, fleet_run_id: str, *, lock: bool = False) -> FleetRunRow:
    row = None
    if RUN_ID.fullmatch(fleet_run_id):
        row = session.get(FleetRunRow, fleet_run_id, with_for_update=lock or None)
    if row is None:
        raise NotFoundError(f"there is no fleet run {fleet_run_id[:64]!r}")
    return row


def _members(session: Session, fleet_run_id: str) -> Sequence[FleetMember]:
    return session.scalars(
        select(FleetMember)
        .where(FleetMember.fleet_run_id == fleet_run_id)
        .order_by(FleetMember.wave, FleetMember.position, FleetMember.node_name)
    ).all()


def _invalid(path: str, message: str) -> InvalidError:
    return InvalidError(f"{path} {message}", errors=(FieldError(path=path, message=message),))
