"""Have other people approve what their policy, or the node's, wants more than one to answer for.

A run that needs approval waits as ``unapproved``, with the exact plan that was shown. Each
approval, its withdrawal and the rejection stand in the audit in the same transaction; what
decides is the row, so that of an approval and a cancellation at once one wins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import RunState
from narthex_operator.db import Database
from narthex_operator.db.models import ApprovalRow, RunRow
from narthex_operator.errors import ConflictError, DeniedError, NotFoundError
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.authority import Authority
from narthex_operator.services.consent import check_reason, invalid
from narthex_operator.services.delivery import Delivery
from narthex_operator.services.run_ends import end_row
from narthex_operator.services.run_rows import RUN_ID, view_of
from narthex_operator.services.views import ApprovalRequestView, RunView

_SHOWN: Final = 50


@dataclass(slots=True, kw_only=True)
class ApprovalService:
    """Implements ``interfaces.Approvals``.

    ``prove`` makes an approver prove again who they are; it raises DeniedError where they do not.
    """

    database: Database
    audit: AuditLedger
    delivery: Delivery
    authority: Authority
    prove: Callable[[Actor], None] = lambda _actor: None

    def waiting(self, actor: Actor) -> int:
        """Count what waits for this actor's approval; never raises for who may see nothing."""
        if not actor.may("run:read"):
            return 0
        with self.database.reading() as session:
            rows = session.scalars(self._pending().limit(_SHOWN)).all()
            return sum(not self._why_not(session, row, actor) for row in rows)

    def list(self, actor: Actor) -> Sequence[ApprovalRequestView]:
        """List what waits, oldest first, then what was decided last (``run:read``)."""
        actor.require("run:read")
        decided = (
            select(RunRow)
            .where(RunRow.approvals_wanted > 0, RunRow.state != RunState.UNAPPROVED)
            .order_by(RunRow.created_at.desc())
        )
        with self.database.reading() as session:
            pending = session.scalars(self._pending().limit(_SHOWN)).all()
            rows = [*pending, *session.scalars(decided.limit(_SHOWN)).all()]
            return tuple(self._request(session, row, actor, whole=False) for row in rows)

    def get(self, actor: Actor, run_id: str) -> ApprovalRequestView:
        """Show one run with its plan, and whether this actor can approve it (``run:read``)."""
        actor.require("run:read")
        with self.database.reading() as session:
            return self._request(session, _find(session, run_id), actor)

    def approve(self, actor: Actor, run_id: str, *, plan: str) -> RunView:
        """Approve the plan whose digest is ``plan``; the last one that was missing sends it."""
        self.prove(actor)
        with self.database.session() as session:
            row = self._waiting_row(session, run_id)
            why = self.authority.approver_refusal(session, row, actor)
            if why:
                raise DeniedError(why, hint="another person can approve it")
            if plan != row.plan_digest:
                raise ConflictError(
                    "what you approve is not the plan that the run was asked for with",
                    hint="look at the request again",
                )
            now = self.authority.now()
            user_id = int(actor.id.partition(":")[2])
            row.approvals.append(ApprovalRow(user_id=user_id, user_name=actor.name, at=now))
            session.flush()
            have = len(self.authority.approvals(session, row))
            enough = have >= row.approvals_wanted
            if enough:
                row.state, row.approved_at, row.error = RunState.QUEUED, now, ""
                session.flush()
            self._record(session, actor, "run.approved", row, have=have)
        if enough:
            self.delivery.dispatch(run_id)
        return view_of(row)

    def withdraw(self, actor: Actor, run_id: str) -> RunView:
        """Take one's own approval back, before the run is sent."""
        with self.database.session() as session:
            row = self._waiting_row(session, run_id)
            mine = next((x for x in row.approvals if f"user:{x.user_id}" == actor.id), None)
            if mine is None:
                raise ConflictError("you have not approved this run")
            row.approvals.remove(mine)
            session.flush()
            have = len(self.authority.approvals(session, row))
            self._record(session, actor, "run.approval-withdrawn", row, have=have)
        return view_of(row)

    def reject(self, actor: Actor, run_id: str, *, reason: str) -> RunView:
        """End a run that waits; needs a person who may run it, and a reason."""
        reason = reason.strip()
        check_reason(reason)
        if not reason:
            raise invalid("reason", "must say why")
        with self.database.session() as session:
            row = self._waiting_row(session, run_id)
            actor.require(f"action:{row.action}", danger=Danger(row.danger))
            self._record(session, actor, "run.rejected", row, reason=reason)
            end_row(
                session, self.audit, row, RunState.CANCELLED, now=self.authority.now(),
                error=f"rejected by {actor.name}: {reason}",
            )  # fmt: skip
        return view_of(row)

    def _pending(self) -> Any:
        waits = (RunRow.state == RunState.UNAPPROVED, RunRow.approve_until > self.authority.now())
        return select(RunRow).where(*waits).order_by(RunRow.created_at)

    def _waiting_row(self, session: Session, run_id: str) -> RunRow:
        """Lock the row of a run that waits for approval. Raises ConflictError."""
        row = _find(session, run_id, lock=True)
        if row.state != RunState.UNAPPROVED:
            raise ConflictError(
                f"the run does not wait for approval: it is {row.state}", hint="look at its page"
            )
        if row.approve_until is None or self.authority.now() > row.approve_until:
            raise ConflictError(
                "the time to approve the run is over", hint="whoever wants it asks again"
            )
        return row

    def _request(
        self, session: Session, row: RunRow, actor: Actor, *, whole: bool = True
    ) -> ApprovalRequestView:
        why = self._why_not(session, row, actor)
        return ApprovalRequestView(run=view_of(row, whole=whole), why_not=why)

    def _why_not(self, session: Session, row: RunRow, actor: Actor) -> str:
        if row.state != RunState.UNAPPROVED:
            return "it does not wait for approval"
        if row.approve_until is None or self.authority.now() > row.approve_until:
            return "the time to approve it is over"
        return self.authority.approver_refusal(session, row, actor)

    def _record(
        self,
        session: Session,
        actor: Actor,
        event: str,
        row: RunRow,
        *,
        have: int | None = None,
        reason: str = "",
    ) -> None:
        counted = {} if have is None else {"have": have, "wanted": row.approvals_wanted}
        self.audit.record(
            session,
            actor=actor,
            event=event,
            node=row.node_id,
            node_name=row.node_name,
            resource=row.resource,
            run=row.id,
            reason=reason,
            details={"action": row.action, "plan": row.plan_digest, **counted},
        )


def _find(session: Session, run_id: str, *, lock: bool = False) -> RunRow:
    known = RUN_ID.fullmatch(run_id)
    row = session.get(RunRow, run_id, with_for_update=lock) if known else None
    if row is None:
        raise NotFoundError(f"there is no run {run_id[:64]!r}")
    return row
