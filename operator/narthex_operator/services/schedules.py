"""Keep schedules: who wants what done when. ``services/clockwork.py`` has it done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from narthex_exporter.contract.spec import Action, Catalogue
from narthex_exporter.contract.wire import FieldError, new_run_id
from narthex_operator.db import Database
from narthex_operator.db.models import ScheduleRow, ScheduleSlot
from narthex_operator.errors import ConflictError, InvalidError, NotFoundError
from narthex_operator.security.chain import clean
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.clockwork import CEILING, Clockwork
from narthex_operator.services.consent import check_consent
from narthex_operator.services.gates import Gates
from narthex_operator.services.members import WHOLE_FLEET
from narthex_operator.services.runs import validated
from narthex_operator.services.schedule_rows import schedule_view, spec_of, write_spec
from narthex_operator.services.selectors import parse_selector
from narthex_operator.services.timing import check_timing, next_after
from narthex_operator.services.views import ScheduleSpec, ScheduleView

_SLOTS: Final = 20
_NO_PLAN: Final = "0" * 64


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleService:
    """Implements ``interfaces.Schedules``.

    Whoever changes a schedule becomes its owner: else a change could borrow another's rights.
    """

    database: Database
    audit: AuditLedger
    gates: Gates
    clockwork: Clockwork
    catalogue: Catalogue
    now: Callable[[], datetime] = _now

    def list(self, actor: Actor) -> Sequence[ScheduleView]:
        """List schedules by name, without their past (``schedule:read``)."""
        actor.require("schedule:read")
        with self.database.reading() as session:
            rows = session.scalars(select(ScheduleRow).order_by(ScheduleRow.name)).all()
        return [schedule_view(row, self.catalogue, now=self.now()) for row in rows]

    def get(self, actor: Actor, ref: str) -> ScheduleView:
        """Show one schedule, by id or name, with its last times (``schedule:read``)."""
        actor.require("schedule:read")
        with self.database.reading() as session:
            row = _find(session, ref)
            slots = session.scalars(
                select(ScheduleSlot)
                .where(ScheduleSlot.schedule_id == row.id)
                .order_by(ScheduleSlot.slot.desc())
                .limit(_SLOTS)
            ).all()
        return schedule_view(row, self.catalogue, now=self.now(), slots=slots)

    def add(self, actor: Actor, spec: ScheduleSpec) -> ScheduleView:
        """Add a schedule (``schedule:write``, and the action at its danger)."""
        self._check(actor, spec)
        now = self.now()
        row = ScheduleRow(id=new_run_id(), created_at=now)
        self._take(actor, row, spec, now)
        try:
            with self.database.session() as session:
                session.add(row)
                session.flush()
                self._record(session, actor, row, "schedule.added")
        except IntegrityError as error:
            raise _taken(spec) from error
        return self.get(actor, row.id)

    def change(self, actor: Actor, ref: str, spec: ScheduleSpec) -> ScheduleView:
        """Change a schedule, which becomes one's own (as ``add``)."""
        self._check(actor, spec)
        try:
            with self.database.session() as session:
                row = _find(session, ref, lock=True)
                self._take(actor, row, spec, self.now())
                session.flush()
                self._record(session, actor, row, "schedule.changed")
        except IntegrityError as error:
            raise _taken(spec) from error
        return self.get(actor, row.id)

    def remove(self, actor: Actor, ref: str) -> None:
        """Remove a schedule; what it ran stays (``schedule:write``)."""
        actor.require("schedule:write")
        with self.database.session() as session:
            row = _find(session, ref, lock=True)
            session.execute(delete(ScheduleSlot).where(ScheduleSlot.schedule_id == row.id))
            session.delete(row)
            session.flush()
            self._record(session, actor, row, "schedule.removed")

    def run_now(self, actor: Actor, ref: str) -> ScheduleView:
        """Have it done now, as its owner (``schedule:write``, and the action)."""
        actor.require("schedule:write")
        with self.database.reading() as session:
            row = _find(session, ref)
        action = self._action(row.action)
        actor.require(action.permission, danger=action.danger)
        with self.database.session() as session:
            self._record(session, actor, row, "schedule.run-now")
        self.clockwork.run_now(row.id)
        return self.get(actor, row.id)

    def _check(self, actor: Actor, spec: ScheduleSpec) -> None:
        actor.require("schedule:write")
        action = self._action(spec.action)
        actor.require(action.permission, danger=action.danger)
        if action.danger.rank > CEILING.rank:
            raise _invalid("action", f"{action.name} is {action.danger}: a person must be there")
        resource = validated(action.params, spec.params).resource
        check_consent(action, resource, plan=_NO_PLAN, reason=spec.reason.strip(), typed="")
        check_timing(spec)
        if parse_selector(spec.on).everything:
            actor.require(WHOLE_FLEET)
        if spec.strategy.gate:
            self.gates.validate(spec.strategy.gate)

    def _take(self, actor: Actor, row: ScheduleRow, spec: ScheduleSpec, now: datetime) -> None:
        write_spec(row, spec)
        row.owner, row.owner_name, row.paused_reason = actor.id, actor.name, ""
        row.next_at = next_after(spec, row.created_at, now) if spec.enabled else None

    def _action(self, name: str) -> Action[Any]:
        found = self.catalogue.actions.get(name)
        if found is None:
            raise NotFoundError(f"there is no action {name[:100]!r}", hint="see the catalogue")
        return found

    def _record(self, session: Session, actor: Actor, row: ScheduleRow, event: str) -> None:
        self.audit.record(
            session,
            actor=actor,
            event=event,
            resource=f"schedule/{row.name}",
            reason=row.reason,
            details=spec_of(row).model_dump(mode="json"),
        )


def _find(session: Session, ref: str, *, lock: bool = False) -> ScheduleRow:
    query = select(ScheduleRow).where((ScheduleRow.name == ref) | (ScheduleRow.id == ref))
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFoundError(f"there is no schedule {clean(ref, limit=64)}")
    return row


def _taken(spec: ScheduleSpec) -> ConflictError:
    return ConflictError(f"there is a schedule {spec.name} already", hint="choose another name")


def _invalid(path: str, message: str) -> InvalidError:
    return InvalidError(f"{path}: {message}", errors=(FieldError(path=path, message=message),))
