"""Have schedules done: each time once, whoever else looks at the clock.

A time is taken by the row of its slot, which is unique, in the transaction that moves the
schedule on. The fleet run is written in the transaction that marks the slot as started: one
that is still *planning* after its operator has gone was not started, and never will be.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from narthex_exporter.contract.spec import Catalogue, Danger
from narthex_exporter.contract.wire import new_run_id
from narthex_operator.db import Database
from narthex_operator.db.models import ScheduleRow, ScheduleSlot
from narthex_operator.errors import ConflictError, DeniedError, NotFoundError, OperatorError
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.driver import Subjects
from narthex_operator.services.fleetruns import FleetRunService
from narthex_operator.services.leases import Leases
from narthex_operator.services.schedule_rows import STARTED, spec_of
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.timing import latest, next_after
from narthex_operator.services.views import Misfire

log = logging.getLogger(__name__)

LEASE: Final = "schedules"
TICK_SECONDS: Final = 1.0
# What is worse needs a person who sees the plan.
CEILING: Final = Danger.DISRUPTIVE
PLANNING: Final = "planning"
REFUSED: Final = "refused"
MISSED: Final = "missed"
_WORKERS: Final = 4
_TEXT: Final = 1000


@dataclass(slots=True, kw_only=True)
class Clockwork:
    """Looks which schedules are due, and starts their fleet runs on behalf of their owners."""

    database: Database
    audit: AuditLedger
    fleet_runs: FleetRunService
    subjects: Subjects
    leases: Leases
    catalogue: Catalogue
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_WORKERS, thread_name_prefix="schedule"),
        init=False,
    )

    def tick(self) -> None:
        """Take what is due, and have it done in the background; a job calls this again."""
        with self.database.reading() as session:
            due = session.scalars(
                select(ScheduleRow.id).where(
                    ScheduleRow.enabled.is_(True), ScheduleRow.next_at <= self.now()
                )
            ).all()
            left_over = session.scalar(
                select(ScheduleSlot.id)
                .where(ScheduleSlot.outcome == PLANNING, ScheduleSlot.holder != self.leases.holder)
                .limit(1)
            )
        if not (due or left_over) or not self.leases.leads(LEASE):
            return
        if left_over:
            self._close_left_over()
        for schedule_id in due:
            taken = self.take(schedule_id)
            if taken is not None:
                self._pool.submit(partial(self._guarded, *taken))

    def take(self, schedule_id: str) -> tuple[ScheduleRow, ScheduleSlot] | None:
        """Take the newest time that is due, once among all operators; None where it is taken."""
        try:
            with self.database.session() as session:
                if not self.leases.guard(session, LEASE):
                    return None
                row = session.get(ScheduleRow, schedule_id, with_for_update=True)
                now = self.now()
                if row is None or not row.enabled or row.next_at is None or row.next_at > now:
                    return None
                spec = spec_of(row)
                slot = self._slot(row, latest(spec, row.created_at, row.next_at, now))
                late = now - slot.slot
                row.next_at = next_after(spec, row.created_at, now)
                grace = timedelta(seconds=row.grace_seconds)
                if late > grace and row.misfire == Misfire.SKIP:
                    slot.outcome = MISSED
                    slot.error = f"no operator looked until {int(late.total_seconds())} s later"
                session.add(slot)
        except IntegrityError:
            return None
        return (row, slot) if slot.outcome == PLANNING else None

    def run_now(self, schedule_id: str) -> None:
        """Do it now, out of turn, in the background."""
        with self.database.session() as session:
            row = session.get(ScheduleRow, schedule_id)
            if row is None:
                raise NotFoundError("the schedule was removed")
            slot = self._slot(row, self.now())
            session.add(slot)
        self._pool.submit(partial(self._guarded, row, slot))

    def carry_out(self, row: ScheduleRow, slot: ScheduleSlot) -> None:
        """Plan and start what a schedule wants, as its owner may now."""
        try:
            owner = self._owner(row)
            plan = self.fleet_runs.plan(owner, row.action, row.params, on=row.selector)
            self.fleet_runs.submit(
                owner,
                plan=plan.digest,
                strategy=Strategy.model_validate(row.strategy),
                reason=row.reason,
                leave_out_refused=True,
                fleet_run_id=slot.fleet_run_id,
                schedule=row.id,
                claim=partial(self._claim, slot.id),
            )
        except DeniedError as error:
            self._pause(row, slot, str(error))
        except OperatorError as error:
            with self.database.session() as session:
                self._close(session, row, slot, str(error))

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _owner(self, row: ScheduleRow) -> Actor:
        owner = self.subjects.subject(row.owner, address=f"schedule:{row.name}"[:64])
        action = self.catalogue.actions.get(row.action)
        if action is None:
            raise DeniedError(f"there is no action {row.action} any more")
        if action.danger.rank > CEILING.rank:
            raise DeniedError(f"{action.name} is {action.danger} now: a person must be there")
        owner.require(action.permission, danger=action.danger)
        return owner

    def _slot(self, row: ScheduleRow, at: datetime) -> ScheduleSlot:
        return ScheduleSlot(
            schedule_id=row.id,
            slot=at,
            fleet_run_id=new_run_id(),
            holder=self.leases.holder,
            outcome=PLANNING,
            taken_at=self.now(),
        )

    def _claim(self, slot_id: int, session: Session) -> None:
        kept = session.get(ScheduleSlot, slot_id, with_for_update=True)
        if kept is None or kept.outcome != PLANNING:
            raise ConflictError("the schedule's time was given up, or the schedule removed")
        kept.outcome = STARTED

    def _pause(self, row: ScheduleRow, slot: ScheduleSlot, why: str) -> None:
        with self.database.session() as session:
            kept = session.get(ScheduleRow, row.id, with_for_update=True)
            if kept is not None and kept.owner == row.owner:
                kept.enabled, kept.next_at, kept.paused_reason = False, None, why[:_TEXT]
            self._close(session, row, slot, why, event="schedule.paused")

    def _close(
        self,
        session: Session,
        row: ScheduleRow,
        slot: ScheduleSlot,
        why: str,
        *,
        event: str = "schedule.refused",
    ) -> None:
        session.execute(
            update(ScheduleSlot)
            .where(ScheduleSlot.id == slot.id, ScheduleSlot.outcome == PLANNING)
            .values(outcome=REFUSED, error=why[:_TEXT])
        )
        session.flush()
        self.audit.record(
            session,
            actor=Actor(id=row.owner, name=row.owner_name, grants=()),
            event=event,
            resource=f"schedule/{row.name}",
            outcome=REFUSED,
            details={"slot": slot.slot.isoformat(), "error": why},
        )
        log.warning(event, extra={"schedule": row.name, "error": why})

    def _close_left_over(self) -> None:
        with self.database.session() as session:
            if not self.leases.guard(session, LEASE):
                return
            session.execute(
                update(ScheduleSlot)
                .where(ScheduleSlot.outcome == PLANNING, ScheduleSlot.holder != self.leases.holder)
                .values(
                    outcome=MISSED,
                    error="the operator stopped before it was started: nothing was done",
                )
            )

    def _guarded(self, row: ScheduleRow, slot: ScheduleSlot) -> None:
        try:
            self.carry_out(row, slot)
        except Exception as error:
            # The boundary of the background: one schedule's trouble must not cost the others.
            log.exception("schedule.failed", extra={"schedule": row.name})
            with self.database.session() as session:
                self._close(session, row, slot, f"an unexpected {type(error).__name__}")
