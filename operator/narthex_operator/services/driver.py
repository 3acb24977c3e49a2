"""Carry fleet runs on: begin what is due, look after it, tell how it ended.

All that a driver must know stands in the database, and each step is one transaction that first
makes sure of the lease: a driver that is killed, or takes over, goes on from there. A member's
run has its id before it begins, and is written in the transaction that marks its member as begun:
no member runs twice.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.contract.wire import RunState
from narthex_operator.db import Database
from narthex_operator.db.models import FleetMember, FleetRunRow, RunRow
from narthex_operator.errors import DeniedError, LimitedError, OperatorError
from narthex_operator.services.access import Actor, Grant
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.delivery import Delivery
from narthex_operator.services.gates import Gates, Verdict
from narthex_operator.services.leases import HEARTBEAT_SECONDS, Leases
from narthex_operator.services.runs import Membership, RunService
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.waves import (
    GAP,
    Decision,
    FleetRunState,
    Member,
    MemberState,
    Standing,
    decide,
)

log = logging.getLogger(__name__)

LEASE: Final = "fleet-runs"
TICK_SECONDS: Final = 0.5
_WORKERS: Final = 16
_GATE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.4
_LOOK_MOST_SECONDS: Final = 5.0
_SEND_AGAIN_SECONDS: Final = 60.0
_STOP_AGAIN_SECONDS: Final = 10.0
_TEXT: Final = 2000
_OPEN: Final = tuple(state for state in FleetRunState if not state.final)


class Subjects(Protocol):
    """Who tells what somebody may do now."""

    def subject(self, actor_id: str, *, session: str = "", address: str = "") -> Actor:
        """Raise DeniedError for whoever may not act any more."""
        ...


class _PassedError(NarthexError):
    """A member's turn has passed: it was withdrawn, or begun by somebody else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A fleet run as it stands; ``runs`` are its members' that were not over."""

    row: FleetRunRow
    members: Sequence[FleetMember]
    runs: Sequence[RunRow]
    decision: Decision
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What is left to be done outside of the transaction that decided it."""

    begin: Sequence[FleetMember] = ()
    send: Sequence[str] = ()
    stop: Sequence[str] = ()
    look: Sequence[str] = ()
    row: FleetRunRow


@dataclass(slots=True, kw_only=True)
class FleetDriver:
    """Drives every fleet run that is not over, while it holds the lease."""

    database: Database
    audit: AuditLedger
    runs: RunService
    delivery: Delivery
    subjects: Subjects
    gates: Gates
    leases: Leases
    catalogue: Catalogue
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    monotonic: Callable[[], float] = time.monotonic
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_WORKERS, thread_name_prefix="fleet"),
        init=False,
    )
    _drivers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(4, thread_name_prefix="drive"), init=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    # What this process is just doing, by id; the truth is in the database.
    _busy: set[str] = field(default_factory=set, init=False)
    _sent: dict[str, float] = field(default_factory=dict, init=False)
    _looked: dict[str, float] = field(default_factory=dict, init=False)

    def tick(self) -> None:
        """Carry every fleet run one step on, in the background; a job calls this again."""
        with self.database.reading() as session:
            ids = session.scalars(
                select(FleetRunRow.id)
                .where(FleetRunRow.state.in_(_OPEN))
                .order_by(FleetRunRow.created_at)
            ).all()
        if not ids or not self.leases.leads(LEASE):
            return
        for fleet_run_id in ids:
            self._once(fleet_run_id, self._drivers, partial(self.advance, fleet_run_id))

    def advance(self, fleet_run_id: str) -> None:
        """Carry one fleet run one step on."""
        verdict = self._ask_gate(fleet_run_id)
        # To look takes no lock: most of the time there is nothing to write down.
        with self.database.reading() as session, session.no_autoflush:
            seen = self._weigh(session, fleet_run_id, verdict)
            if seen is None:
                return
            idle = not self._changes(session, seen)
        if not idle:
            with self.database.session() as session:
                if not self.leases.guard(session, LEASE):
                    return
                seen = self._weigh(session, fleet_run_id, verdict, lock=True)
                if seen is None:
                    return
                self._apply(session, seen)
        self._do(self._work(seen))

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        for pool in (self._drivers, self._pool):
            pool.shutdown(wait=True, cancel_futures=True)

    def _weigh(
        self,
        session: Session,
        fleet_run_id: str,
        verdict: Verdict | None,
        *,
        lock: bool = False,
    ) -> _Seen | None:
        """Look how a fleet run stands, and decide; None where it is over."""
        row = session.get(FleetRunRow, fleet_run_id, with_for_update=lock or None)
        if row is None or FleetRunState(row.state).final:
            return None
        query = select(FleetMember).where(FleetMember.fleet_run_id == row.id)
        query = query.order_by(FleetMember.wave, FleetMember.position)
        members = session.scalars(query.with_for_update() if lock else query).all()
        runs = self._take_over(session, row, members)
        now = self.now()
        if verdict is not None and row.state == FleetRunState.GATING:
            _note_verdict(row, verdict, now)
        decision = decide(_standing(row, members, now))
        return _Seen(row=row, members=members, runs=runs, decision=decision, now=now)

    def _changes(self, session: Session, seen: _Seen) -> bool:
        """Tell whether anything is to be written down."""
        row, decision = seen.row, seen.decision
        stale = (seen.now - row.driven_at).total_seconds() >= HEARTBEAT_SECONDS
        decided = (row.state, row.wave) != (decision.state, decision.wave)
        withdraws = decision.withdraw and any(
            member.state == MemberState.WAITING for member in seen.members
        )
        touched = any(session.is_modified(one) for one in (row, *seen.members))
        return bool(stale or decided or decision.begin or withdraws or touched)

    def _work(self, seen: _Seen) -> _Work:
        decision = seen.decision
        halted = seen.row.state == FleetRunState.HALTED
        unsent = [
            run.id for run in seen.runs if run.state == RunState.QUEUED and run.sent_at is None
        ]
        open_now = [run.id for run in seen.runs if not RunState(run.state).final]
        return _Work(
            row=seen.row,
            begin=[one for one in seen.members if one.run_id in decision.begin],
            # What was begun and not sent when it halted is taken back, as far as that is in time.
            send=[] if halted or decision.stop else unsent,
            stop=open_now if decision.stop else unsent if halted else [],
            look=[run.id for run in seen.runs if self._is_due(run, seen.now)],
        )

    def _is_due(self, run: RunRow, now: datetime) -> bool:
        """Tell whether a run should be asked after: often at first, then less and less."""
        if run.sent_at is None or RunState(run.state).final:
            return False
        age = (now - run.sent_at).total_seconds()
        pause = min(_LOOK_MOST_SECONDS, max(_LOOK_SECONDS, age / 4))
        if self.monotonic() - self._looked.get(run.id, -1e9) < pause:
            return False
        self._looked[run.id] = self.monotonic()
        return True

    def _take_over(
        self, session: Session, row: FleetRunRow, members: Sequence[FleetMember]
    ) -> Sequence[RunRow]:
        """Copy how the members' runs stand, and give the runs that were not over."""
        wanted = [one.run_id for one in members if MemberState(one.state).open]
        if not wanted:
            return ()
        runs = session.scalars(
            select(RunRow).where(RunRow.fleet_run_id == row.id, RunRow.id.in_(wanted))
        ).all()
        found = {run.id: run for run in runs}
        for member in members:
            run = found.get(member.run_id)
            if run is not None:
                member.state = MemberState(run.state)
                member.error, member.hint = run.error, run.hint
        return runs

    def _apply(self, session: Session, seen: _Seen) -> None:
        """Write down what was decided."""
        row, decision, now = seen.row, seen.decision, seen.now
        before = FleetRunState(row.state)
        if decision.withdraw:
            for member in seen.members:
                if member.state == MemberState.WAITING:
                    member.state = MemberState.WITHDRAWN
        row.state, row.wave, row.driven_at = decision.state, decision.wave, now
        if decision.error:
            row.error, row.hint = decision.error, decision.hint
        if decision.state is not before:
            self._enter(session, seen)

    def _enter(self, session: Session, seen: _Seen) -> None:
        """Begin another state."""
        row, now = seen.row, seen.now
        if seen.decision.state is FleetRunState.PAUSING:
            seconds = Strategy.model_validate(row.strategy).pause_seconds
            row.pause_until = now + timedelta(seconds=seconds)
        elif seen.decision.state is FleetRunState.GATING:
            row.gate_began_at, row.gate_since, row.gate_told = now, None, ""
        elif seen.decision.state is FleetRunState.HALTED:
            row.halted_at = now
            self._tell(session, row, "fleet-run.halted", {"error": row.error})
        elif seen.decision.state.final:
            row.finished_at = now
            counts = dict(Counter(str(member.state) for member in seen.members))
            self._tell(session, row, "fleet-run.finished", {"counts": counts})

    def _do(self, work: _Work) -> None:
        for run_id in work.stop:
            self._stop(work.row, run_id)
        for run_id in work.look:
            self._once(f"look {run_id}", self._pool, partial(self.delivery.refresh, run_id))
        if FleetRunState(work.row.state).final:
            self._forget()
        if not work.begin and not work.send:
            return
        try:
            actor = self.subjects.subject(
                work.row.actor, session=work.row.session, address=work.row.address
            )
            action = self.catalogue.actions[work.row.action]
            actor.require(action.permission, danger=action.danger)
        except (DeniedError, KeyError) as error:
            why = str(error) if isinstance(error, DeniedError) else "the action is no more"
            self._halt(work.row.id, why)
            return
        for run_id in work.send:
            # Sent twice it is one run: its node knows it by its id.
            if self.monotonic() - self._sent.get(run_id, -1e9) >= _SEND_AGAIN_SECONDS:
                self._sent[run_id] = self.monotonic()
                self.delivery.dispatch(run_id)
        for member in work.begin:
            begin = partial(self._begin, actor, work.row, member)
            self._once(member.run_id, self._pool, begin)

    def _begin(self, actor: Actor, row: FleetRunRow, member: FleetMember) -> None:
        """Write a member's run and have it sent."""

        def claim(session: Session) -> None:
            if not self.leases.guard(session, LEASE):
                raise _PassedError("another operator drives the fleet run")
            kept = session.get(
                FleetMember, (row.id, member.node_id), with_for_update=True, populate_existing=True
            )
            state = session.scalar(
                select(FleetRunRow.state).where(
                    FleetRunRow.id == row.id, FleetRunRow.cancelled_by.is_(None)
                )
            )
            waits = kept is not None and kept.state == MemberState.WAITING
            if kept is None or not waits or state != FleetRunState.RUNNING:
                raise _PassedError("the member's turn has passed")
            kept.state = MemberState.QUEUED

        self._sent[member.run_id] = self.monotonic()
        try:
            self.runs.submit(
                actor,
                member.node_id,
                row.action,
                row.params,
                plan=member.plan_digest,
                reason=row.reason,
                # Who started the fleet run has typed what its danger asks for.
                confirmation=row.resource,
                run_id=member.run_id,
                member=Membership(row.id, claim),
            )
        except _PassedError:
            self._sent.pop(member.run_id, None)
        except DeniedError as error:
            self._halt(row.id, str(error))
        except LimitedError as error:
            # The signer wants some patience: nothing was done, the next tick tries again.
            log.info("fleet-run.waits", extra={"run_id": member.run_id, "error": str(error)})
        except OperatorError as error:
            self._fail(row.id, member, error)

    def _fail(self, fleet_run_id: str, member: FleetMember, error: OperatorError) -> None:
        """Note why a member's run could not be begun; nothing was sent to it."""
        with self.database.session() as session:
            if not self.leases.guard(session, LEASE):
                return
            kept = session.get(FleetMember, (fleet_run_id, member.node_id), with_for_update=True)
            if kept is not None and kept.state == MemberState.WAITING:
                kept.state = MemberState.FAILED
                kept.error = f"nothing was done: {error}"[:_TEXT]
                kept.hint = error.hint[:_TEXT]

    def _halt(self, fleet_run_id: str, why: str) -> None:
        with self.database.session() as session:
            if not self.leases.guard(session, LEASE):
                return
            row = session.get(FleetRunRow, fleet_run_id, with_for_update=True)
            if row is None or FleetRunState(row.state).final or row.state == FleetRunState.HALTED:
                return
            row.state, row.halted_at = FleetRunState.HALTED, self.now()
            row.error, row.hint = why[:_TEXT], "cancel it, and let somebody start it who may"
            self._tell(session, row, "fleet-run.halted", {"error": row.error})

    def _stop(self, row: FleetRunRow, run_id: str) -> None:
        """Ask a run to stop, again after some seconds where its node did not hear it."""
        if self.monotonic() - self._looked.get(f"stop {run_id}", -1e9) < _STOP_AGAIN_SECONDS:
            return
        self._looked[f"stop {run_id}"] = self.monotonic()
        who = row.cancelled_by or {"id": row.actor, "name": row.actor_name}
        # That they may was checked when they asked.
        actor = Actor(
            id=who["id"],
            name=who["name"],
            grants=(Grant(pattern=f"action:{row.action}"),),
            session=who.get("session", ""),
            address=who.get("address", ""),
        )

        def ask() -> None:
            try:
                self.runs.cancel(actor, run_id)
            except OperatorError as error:
                log.info("fleet-run.not-stopped", extra={"run_id": run_id, "error": str(error)})

        self._once(f"stop {run_id}", self._pool, ask)

    def _ask_gate(self, fleet_run_id: str) -> Verdict | None:
        with self.database.reading() as session:
            row = session.get(FleetRunRow, fleet_run_id)
        if row is None or row.state != FleetRunState.GATING or row.cancelled_by:
            return None
        if self.monotonic() - self._looked.get(f"gate {row.id}", -1e9) < _GATE_SECONDS:
            return None
        self._looked[f"gate {row.id}"] = self.monotonic()
        return self.gates.check(Strategy.model_validate(row.strategy).gate)

    def _tell(
        self, session: Session, row: FleetRunRow, event: str, details: dict[str, object]
    ) -> None:
        session.flush()
        requester = Actor(
            id=row.actor, name=row.actor_name, grants=(), session=row.session, address=row.address
        )
        self.audit.record(
            session,
            actor=requester,
            event=event,
            resource=row.resource,
            run=row.id,
            outcome=row.state,
            details={"action": row.action, **details},
        )
        log.info(event, extra={"fleet_run_id": row.id, "state": row.state})

    def _once(self, key: str, pool: ThreadPoolExecutor, work: Callable[[], None]) -> None:
        """Do something in the background unless it is being done."""
        with self._lock:
            if key in self._busy:
                return
            self._busy.add(key)

        def guarded() -> None:
            try:
                work()
            except Exception:
                # The boundary of the background: what failed is tried again at the next tick.
                log.exception("fleet-run.step-failed", extra={"step": key})
            finally:
                with self._lock:
                    self._busy.discard(key)

        try:
            pool.submit(guarded)
        except RuntimeError:
            # The operator stops; whoever comes next goes on.
            with self._lock:
                self._busy.discard(key)

    def _forget(self) -> None:
        oldest = self.monotonic() - 10 * _SEND_AGAIN_SECONDS
        self._looked = {key: at for key, at in self._looked.items() if at > oldest}
        self._sent = {key: at for key, at in self._sent.items() if at > oldest}


def _note_verdict(row: FleetRunRow, verdict: Verdict, now: datetime) -> None:
    gap = row.gate_checked_at is None or now - row.gate_checked_at > GAP
    if not verdict.holds:
        row.gate_since = None
    elif row.gate_since is None or gap:
        row.gate_since = now
    row.gate_checked_at, row.gate_told = now, verdict.told


def _standing(row: FleetRunRow, members: Sequence[FleetMember], now: datetime) -> Standing:
    return Standing(
        state=FleetRunState(row.state),
        strategy=Strategy.model_validate(row.strategy),
        members=[
            Member(run_id=one.run_id, wave=one.wave, state=MemberState(one.state))
            for one in members
            if one.state != MemberState.LEFT_OUT
        ],
        wave=row.wave,
        waves=row.waves,
        forgiven=row.forgiven,
        cancelled=row.cancelled_by is not None,
        now=now,
        driven_at=row.driven_at,
        halted_at=row.halted_at,
        pause_until=row.pause_until,
        gate_began_at=row.gate_began_at,
        gate_since=row.gate_since,
        gate_told=row.gate_told,
    )
