"""Forget what is older than anybody asks for. The audit is never shortened."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import CursorResult, delete, select

from narthex_operator.db import Database
from narthex_operator.db.models import AlertRow, FleetMember, FleetRunRow, RunRow, ScheduleSlot

log = logging.getLogger(__name__)

ALERTS: Final = timedelta(days=400)
RUNS: Final = timedelta(days=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Deletes alerts and runs that ended long ago; what has not ended stays."""

    database: Database
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def tidy(self) -> int:
        """Delete, and tell how many rows went."""
        now = self.now()
        gone = 0
        old = select(FleetRunRow.id).where(FleetRunRow.finished_at < now - RUNS)
        with self.database.session() as session:
            for statement in (
                delete(AlertRow).where(AlertRow.ended_at < now - ALERTS),
                delete(RunRow).where(RunRow.finished_at < now - RUNS),
                delete(FleetMember).where(FleetMember.fleet_run_id.in_(old)),
                delete(FleetRunRow).where(FleetRunRow.finished_at < now - RUNS),
                delete(ScheduleSlot).where(ScheduleSlot.slot < now - RUNS),
            ):
                done = session.execute(statement)
                gone += done.rowcount if isinstance(done, CursorResult) else 0
        if gone:
            log.info("retention.tidied", extra={"rows": gone})
        return gone
