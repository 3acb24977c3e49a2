"""Prove the whole audit once a day: our ledger, its checkpoints, and every node's record."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger, Verification
from narthex_operator.services.witness import Witness

log = logging.getLogger(__name__)

CONTRADICTED: Final = "audit.contradicted"
_SELF: Final = Actor(id="local:verification", name="verification", grants=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What the last proof gave, and when it was made."""

    at: datetime
    ledger: Verification


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(slots=True, kw_only=True)
class Verifier:
    """Keeps the last result, for metrics; tells a contradiction in log and ledger."""

    audit: AuditLedger
    witness: Witness
    clock: Callable[[], datetime] = _now
    last: Verified | None = field(default=None, init=False)

    def run(self) -> None:
        """Prove everything. A job calls this daily, and when the operator starts."""
        found = self.audit.verify()
        before = self.last
        self.last = Verified(at=self.clock(), ledger=found)
        if not found.intact:
            log.error("audit.contradicted", extra={"what": found.problem, "up_to": found.up_to})
            if before is None or before.ledger.problem != found.problem:
                # Behind the break, but in the log and in nodes' records of our head as well.
                self.audit.note(
                    _SELF,
                    CONTRADICTED,
                    outcome=found.problem,
                    details={"proven_up_to": found.up_to},
                )
        self.witness.verify()
