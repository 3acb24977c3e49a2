"""End runs: state, time and audit row in one transaction, once."""

import logging
from datetime import datetime

from sqlalchemy.orm import Session

from narthex_exporter.contract.wire import RunState
from narthex_operator.db.models import RunRow
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.run_rows import requester_of

log = logging.getLogger(__name__)


def end_row(
    session: Session,
    audit: AuditLedger,
    row: RunRow,
    state: RunState,
    *,
    now: datetime,
    error: str = "",
    hint: str = "",
) -> None:
    """End a run that has not ended, in the caller's transaction."""
    if RunState(row.state).final:
        return
    row.state, row.error, row.hint, row.finished_at = state, error, hint, now
    tell_end(session, audit, row, now=now)


def tell_end(session: Session, audit: AuditLedger, row: RunRow, *, now: datetime) -> None:
    """Write the audit row of a run's end, once, in the transaction that ends it."""
    if not RunState(row.state).final or row.told_at is not None:
        return
    row.told_at = now
    session.flush()
    audit.record(
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
