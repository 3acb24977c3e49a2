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

from sqlalchemy import CursorResult, and_, or_, select, update
from sqlalchemy.orm import Session

from narthex_exporter.contract.tickets import LEEWAY_SECONDS, Claims
from narthex_exporter.contract.wire import Run, RunState
from narthex_operator.clients.node import InDoubtError, NodeClient, NodeRef, NotUnderstoodError
from narthex_operator.db import Database
from narthex_operator.db.models import Node, RunRow
from narthex_operator.errors import NarthexError, NodeProblemError, OperatorError, UnreachableError
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.authority import Authority
from narthex_operator.services.confirming import SSH_PORT, Confirming
from narthex_operator.services.run_ends import end_row, tell_end
from narthex_operator.services.run_rows import asker_of, copy_into, ref_of, requester_of

log = logging.getLogger(__name__)

# A wave of a fleet run comes at once; a node that is dead holds one of them for seconds.
WORKERS: Final = 24
# A row that is older than this and was never marked as sent belongs to nobody any more.
_FORGOTTEN: Final = timedelta(seconds=30)
_LEEWAY: Final = timedelta(seconds=LEEWAY_SECONDS)
_OPEN: Final = (
    RunState.UNAPPROVED,
    RunState.QUEUED,
    RunState.RUNNING,
    RunState.CONFIRMING,
    RunState.UNKNOWN,
)


class _TakenError(NarthexError):
    """Somebody else decided about the run while it waited."""


def utc_now() -> datetime:
    """Tell the time."""
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class Delivery:
    """Sends runs in threads of its own, and asks after those that have not ended.

    ``alone`` says that no other operator uses the database: what was not sent when this one
    began, nobody will send. ``ssh_port`` is where nodes take SSH connections, if they do.
    """

    database: Database
    audit: AuditLedger
    nodes: NodeClient
    authority: Authority
    alone: bool = False
    now: Callable[[], datetime] = utc_now
    ssh_port: int = SSH_PORT
    _began: datetime = field(init=False)
    _confirming: Confirming = field(init=False)
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
        self._confirming = Confirming(
            database=self.database,
            audit=self.audit,
            nodes=self.nodes,
            now=self.now,
            ssh_port=self.ssh_port,
        )

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

    def watch(self) -> None:
        """Look after the runs that wait for our confirmation, or soon will; a job does so often.

        Returns when each has been asked for, and confirmed where its node can be reached anew.
        """
        soon = RunRow.confirm_seconds > 0
        waits = or_(RunRow.state == RunState.CONFIRMING, and_(RunRow.state.in_(_OPEN), soon))
        with self.database.reading() as session:
            chosen = select(RunRow.id).where(waits, RunRow.sent_at.is_not(None))
            runs = session.scalars(chosen).all()
        for task in [self._askers.submit(self._guarded, self._watch, x) for x in runs]:
            task.result()

    def _watch(self, run_id: str) -> None:
        self.refresh(run_id)
        self._confirming.confirm(run_id)

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
                    RunRow.state.in_((RunState.UNAPPROVED, RunState.QUEUED)),
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
            self._step_back(run_id)
        finally:
            with self._lock:
                self._asking.discard(run_id)

    def _send(self, run_id: str) -> None:
        with self.database.reading() as session:
            row, node = _load(session, run_id)
            why = refusal(node) or self.authority.refusal(session, row, node)
            approvals = self.authority.approvals(session, row)
        if row.state != RunState.QUEUED:
            return
        if why:
            self._fail(run_id, why, "")
            return
        if len(approvals) < row.approvals_wanted:
            self._step_back(run_id)
            return
        if row.confirm_seconds:
            self._look_before(run_id, ref_of(node))
        try:
            run = self.nodes.run(
                ref_of(node),
                asker_of(row, approvals),
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
        """Write down, before the request leaves, that it may be on its way until when.

        This is where it is decided: who may not any more, or approves no longer, stops it here.
        """
        with self.database.session() as session:
            row, node = _load(session, run_id, lock=True)
            standing = {one.id for one in self.authority.approvals(session, row)}
            if self.authority.refusal(session, row, node) or not (
                {one.id for one in claims.apr} <= standing
                and len(standing) >= row.approvals_wanted
            ):
                raise _TakenError(f"run {run_id} may not be sent any more")
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
        if row.state == RunState.UNAPPROVED:
            self._expire(run_id)
            return
        if row.sent_at is None:
            self._judge_unsent(row)
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

    def _judge_unsent(self, row: RunRow) -> None:
        """Give a run up that nobody will send any more."""
        if row.fleet_run_id is not None:
            return  # whoever drives its fleet run has it sent, or withdraws it
        since = row.approved_at or row.created_at
        left_over = self.alone and since < self._began
        if left_over or self.now() - since > _FORGOTTEN:
            self._fail(
                row.id,
                "the operator stopped before the run was sent: nothing was done",
                "run it again",
            )

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
            end_row(session, self.audit, row, state, now=self.now(), error=error, hint=hint)

    def _expire(self, run_id: str) -> None:
        """End a run that nobody approved in time."""
        with self.database.session() as session:
            row = session.get_one(RunRow, run_id, with_for_update=True)
            until = row.approve_until
            if row.state == RunState.UNAPPROVED and (until is None or self.now() > until):
                error = "it was not approved in time: nothing was done"
                hint = "ask again, and tell who is to approve it"
                end_row(
                    session, self.audit, row, RunState.EXPIRED, now=self.now(),
                    error=error, hint=hint,
                )  # fmt: skip

    def _step_back(self, run_id: str) -> None:
        """Have a run wait again that lost an approval, or end it where it may not be any more."""
        with self.database.session() as session:
            row, node = _load(session, run_id, lock=True)
            if row.state != RunState.QUEUED or row.sent_at:
                return
            why = refusal(node) or self.authority.refusal(session, row, node)
            if why:
                end_row(session, self.audit, row, RunState.FAILED, now=self.now(), error=why)
                return
            have = len(self.authority.approvals(session, row))
            if have >= row.approvals_wanted:
                return
            row.state, row.approved_at = RunState.UNAPPROVED, None
            row.error = "somebody who approved it may not run it any more"
            session.flush()
            self.audit.record(
                session,
                actor=requester_of(row),
                event="run.approval-void",
                node=row.node_id,
                node_name=row.node_name,
                resource=row.resource,
                run=run_id,
                details={"action": row.action, "have": have, "wanted": row.approvals_wanted},
            )

    def _look_before(self, run_id: str, node: NodeRef) -> None:
        """Note what works before a change that could cut the node off."""
        is_open = self._confirming.ssh_open(node)
        with self.database.session() as session:
            session.execute(update(RunRow).where(RunRow.id == run_id).values(ssh_open=is_open))

    def _tell(self, session: Session, row: RunRow) -> None:
        tell_end(session, self.audit, row, now=self.now())


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


def _load(session: Session, run_id: str, *, lock: bool = False) -> tuple[RunRow, Node]:
    row = session.get_one(RunRow, run_id, with_for_update=lock)
    return row, session.get_one(Node, row.node_id)
