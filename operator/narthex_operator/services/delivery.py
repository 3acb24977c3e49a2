"""Deliver runs to their nodes once, and find out what became of each.

A run's row is its outbox: it stands before anything is sent, and is marked as sent before the
first byte leaves. Whatever happens between, a run is never sent twice: what is not known is
asked of the node, by the run's id.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from narthex_exporter.contract.tickets import LEEWAY_SECONDS, Claims
from narthex_exporter.contract.wire import Run, RunState
from narthex_operator.clients.node import InDoubtError, NodeClient, NotUnderstoodError
from narthex_operator.db import Database
from narthex_operator.db.models import Node, RunRow
from narthex_operator.errors import NarthexError, NodeProblemError, OperatorError, UnreachableError
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.run_rows import asker_of, copy_into, ref_of, requester_of

log = logging.getLogger(__name__)

WORKERS: Final = 8
# A row that is older than this and was never marked as sent belongs to nobody any more.
_FORGOTTEN: Final = timedelta(seconds=30)
_LEEWAY: Final = timedelta(seconds=LEEWAY_SECONDS)
_OPEN: Final = (RunState.QUEUED, RunState.RUNNING, RunState.UNKNOWN)


class _TakenError(NarthexError):
    """Somebody else decided about the run while it waited."""


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class Delivery:
    """Sends runs in threads of its own, and asks after those that have not ended.

    ``alone`` says that no other operator uses the database: what was not sent when this one
    began, nobody will send.
    """

    database: Database
    audit: AuditLedger
    nodes: NodeClient
    alone: bool = False
    now: Callable[[], datetime] = utc_now
    _began: datetime = field(init=False)
    # Two pools: nodes that do not answer must not keep a run from being sent to one that does.
    _senders: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(WORKERS, thread_name_prefix="send"), init=False
    )
    _askers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(WORKERS, thread_name_prefix="ask"), init=False
    )
    _asking: set[str] = field(default_factory=set, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._began = self.now()

    def dispatch(self, run_id: str) -> None:
        """Send a run that has its row, in the background."""
        self._senders.submit(self._guarded, self._deliver, run_id)

    def reconcile(self) -> None:
        """Look after every run that has not ended; returns when all have been asked for."""
        with self.database.reading() as session:
            open_runs = session.scalars(
                select(RunRow.id).where(RunRow.state.in_(_OPEN)).order_by(RunRow.created_at)
            ).all()
        for task in [self._askers.submit(self._guarded, self.refresh, x) for x in open_runs]:
            task.result()

    def refresh(self, run_id: str) -> None:
        """Find out how one run stands, unless somebody is just doing so."""
        with self._lock:
            if run_id in self._asking:
                return
            self._asking.add(run_id)
        try:
            self._refresh(run_id)
        finally:
            with self._lock:
                self._asking.discard(run_id)

    def look_after(self, run_id: str) -> None:
        """Find out how one run stands, in the background."""
        self._askers.submit(self._guarded, self.refresh, run_id)

    def withdraw(self, run_id: str) -> bool:
        """Cancel a run that was not sent yet; tell whether that was in time."""
        with self.database.session() as session:
            done = session.execute(
                update(RunRow)
                .where(
                    RunRow.id == run_id,
                    RunRow.state == RunState.QUEUED,
                    RunRow.sent_at.is_(None),
                )
                .values(state=RunState.CANCELLED, finished_at=self.now())
            )
            if not isinstance(done, CursorResult) or done.rowcount != 1:
                return False
            self._tell(session, session.get_one(RunRow, run_id))
            return True

    def stop(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        for pool in (self._senders, self._askers):
            pool.shutdown(wait=True, cancel_futures=True)

    def _guarded(self, work: Callable[[str], None], run_id: str) -> None:
        try:
            work(run_id)
        except Exception:
            # The boundary of the background: one run's trouble is logged, and looked into again
            # by the next reconciliation.
            log.exception("run.delivery-failed", extra={"run_id": run_id})

    def _deliver(self, run_id: str) -> None:
        with self._lock:
            self._asking.add(run_id)
        try:
            self._send(run_id)
        except _TakenError:
            log.info("run.not-sent", extra={"run_id": run_id})
        finally:
            with self._lock:
                self._asking.discard(run_id)

    def _send(self, run_id: str) -> None:
        with self.database.reading() as session:
            row, node = _load(session, run_id)
        if row.state != RunState.QUEUED:
            return
        why = refusal(node)
        if why:
            self._fail(run_id, why, "")
            return
        try:
            run = self.nodes.run(
                ref_of(node),
                asker_of(row),
                row.action,
                run_id=run_id,
                body=row.body,
                before_sending=lambda claims: self._mark_sent(run_id, claims),
            )
        except (InDoubtError, NotUnderstoodError) as error:
            self._doubt(run_id, error)
        except NodeProblemError as error:
            if error.status >= 500:  # noqa: PLR2004
                self._doubt(run_id, error)
            else:
                self._fail(run_id, str(error), error.hint)
        except OperatorError as error:
            self._fail(run_id, f"nothing was done: {error}", error.hint)
        else:
            self._copy(run_id, run)

    def _mark_sent(self, run_id: str, claims: Claims) -> None:
        """Write down, before the request leaves, that it may be on its way until when."""
        with self.database.session() as session:
            done = session.execute(
                update(RunRow)
                .where(RunRow.id == run_id, RunRow.state == RunState.QUEUED)
                .values(
                    sent_at=self.now(),
                    ticket_expires_at=datetime.fromtimestamp(claims.exp, UTC),
                    instance=claims.inst,
                )
            )
            if not isinstance(done, CursorResult) or done.rowcount != 1:
                raise _TakenError(f"run {run_id} is no longer waiting to be sent")

    def _refresh(self, run_id: str) -> None:
        with self.database.reading() as session:
            row, node = _load(session, run_id)
        if RunState(row.state).final:
            return
        if row.sent_at is None:
            if row.fleet_run_id is not None:
                return  # whoever drives its fleet run has it sent, or withdraws it
            left_over = self.alone and row.created_at < self._began
            if left_over or self.now() - row.created_at > _FORGOTTEN:
                self._fail(
                    run_id,
                    "the operator stopped before the run was sent: nothing was done",
                    "run it again",
                )
            return
        if node.removed_at is not None:
            self._lose(
                run_id,
                "the node was removed while the run was under way: its outcome is not known",
                "",
            )
            return
        try:
            run = self.nodes.get_run(ref_of(node), asker_of(row), run_id)
        except NodeProblemError as error:
            if error.problem.type == "unknown-run":
                self._judge_unknown(row)
        except UnreachableError as error:
            log.debug("run.unreachable", extra={"run_id": run_id, "error": str(error)})
        else:
            self._copy(run_id, run)

    def _judge_unknown(self, row: RunRow) -> None:
        """Decide on a run that its node does not know: its request may still be under way."""
        over = row.ticket_expires_at is not None and (self.now() > row.ticket_expires_at + _LEEWAY)
        # A ticket is for one start of the actor: after the next it can never be accepted.
        restarted = self.nodes.instance(row.node_id) not in {"", row.instance}
        if over or restarted:
            self._lose(
                row.id,
                "the request never reached the node, and can no longer: nothing was done",
                "run it again",
            )

    def _copy(self, run_id: str, run: Run) -> None:
        with self.database.session() as session:
            row = session.get_one(RunRow, run_id, with_for_update=True)
            copy_into(row, run, now=self.now())
            self._tell(session, row)

    def _doubt(self, run_id: str, error: NarthexError) -> None:
        with self.database.session() as session:
            row = session.get_one(RunRow, run_id, with_for_update=True)
            if not RunState(row.state).final:
                row.state = RunState.UNKNOWN
                row.error = str(error)
                row.hint = "the node is being asked; nothing is sent again"

    def _fail(self, run_id: str, error: str, hint: str) -> None:
        self._end(run_id, RunState.FAILED, error, hint)

    def _lose(self, run_id: str, error: str, hint: str) -> None:
        self._end(run_id, RunState.LOST, error, hint)

    def _end(self, run_id: str, state: RunState, error: str, hint: str) -> None:
        with self.database.session() as session:
            row = session.get_one(RunRow, run_id, with_for_update=True)
            if RunState(row.state).final:
                return
            row.state, row.error, row.hint = state, error, hint
            row.finished_at = self.now()
            self._tell(session, row)

    def _tell(self, session: Session, row: RunRow) -> None:
        """Write the audit row of a run's end, once, in the transaction that ends it."""
        if not RunState(row.state).final or row.told_at is not None:
            return
        row.told_at = self.now()
        session.flush()
        self.audit.record(
            session,
            actor=requester_of(row),
            event="run.finished",
            node=row.node_id,
            node_name=row.node_name,
            resource=row.resource,
            run=row.id,
            outcome=row.state,
            details={"action": row.action} | ({"error": row.error} if row.error else {}),
        )
        log.info("run.finished", extra={"run_id": row.id, "state": row.state})


def refusal(node: Node) -> str:
    """Say why no run may be sent to a node; empty when it may."""
    if node.removed_at is not None:
        return f"node {node.name} was removed"
    if node.locked_reason:
        return f"node {node.name} is locked: {node.locked_reason}"
    if node.enrolled_at is None:
        return f"node {node.name} has not joined yet"
    if node.approved_at is None:
        return f"node {node.name} is not approved yet"
    return ""


def _load(session: Session, run_id: str) -> tuple[RunRow, Node]:
    row = session.get_one(RunRow, run_id)
    return row, session.get_one(Node, row.node_id)
