"""Keep the operator's ledger: append-only, chained, witnessed by the signer."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from narthex_exporter.contract.tickets import AuditHead
from narthex_operator.db.engine import Database
from narthex_operator.db.models import AuditCheckpoint, AuditEntry
from narthex_operator.security.certificates import signature_valid
from narthex_operator.security.chain import GENESIS, clean, clean_details, link
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import Actor
from narthex_operator.services.views import AuditPage, AuditRow
from narthex_operator.signer.messages import CheckpointRequest, checkpoint_bytes

CHECKPOINT_ROWS: Final = 100
CHECKPOINT_SECONDS: Final = 60.0
_BATCH: Final = 500
_MAX_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How far the chain proves itself; ``problem`` says where it does not go on."""

    up_to: int
    head: str
    problem: str = ""

    @property
    def intact(self) -> bool:
        """Tell whether nothing contradicts the chain."""
        return not self.problem


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(slots=True, kw_only=True)
class AuditLedger:
    """The ledger. Other services record in their own transactions, as their last statement."""

    database: Database
    signer: SignerClient | None = None
    clock: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _proven: Verification = field(default=Verification(up_to=0, head=GENESIS), init=False)
    _witnessed_at: float | None = field(default=None, init=False)

    def record(
        self,
        session: Session,
        *,
        actor: Actor,
        event: str,
        node: str = "",
        node_name: str = "",
        resource: str = "",
        run: str = "",
        reason: str = "",
        outcome: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> int:
        """Append one row in the caller's transaction and return its number.

        Makes other writers of the ledger wait until that transaction ends.
        """
        self.database.lock(session, "audit")
        last = session.execute(
            select(AuditEntry.seq, AuditEntry.hash).order_by(AuditEntry.seq.desc()).limit(1)
        ).one_or_none()
        seq, prev = (last.seq + 1, last.hash) if last else (1, GENESIS)
        entry = AuditEntry(
            seq=seq,
            at=self.clock(),
            event=clean(event, limit=64),
            actor=clean(actor.id, limit=128),
            actor_name=clean(actor.name, limit=128),
            address=clean(actor.address, limit=64),
            node=clean(node, limit=63),
            node_name=clean(node_name, limit=63),
            resource=clean(resource, limit=1024),
            run=clean(run, limit=64),
            reason=clean(reason, limit=4096),
            outcome=clean(outcome, limit=256),
            details=clean_details(details or {}),
            prev=prev,
        )
        entry.hash = link(prev, _content(entry))
        session.add(entry)
        session.flush()
        return seq

    def note(self, actor: Actor, event: str, **fields: Any) -> int:
        """Append one row in a transaction of its own."""
        with self.database.session() as session:
            return self.record(session, actor=actor, event=event, **fields)

    def head(self) -> AuditHead | None:
        """Give the newest row, for tickets to carry; None before the first."""
        with self.database.reading() as session:
            last = session.execute(
                select(AuditEntry.seq, AuditEntry.hash).order_by(AuditEntry.seq.desc()).limit(1)
            ).one_or_none()
        return AuditHead(seq=last.seq, head=last.hash) if last else None

    def checkpoint(self) -> bool:
        """Have the newest row witnessed when 100 rows or 60 s have passed; tell whether it was.

        A job calls this every few seconds. Raises UnreachableError without a signer.
        """
        if self.signer is None:
            return False
        with self.database.reading() as session:
            witnessed = session.scalar(
                select(AuditCheckpoint.seq).order_by(AuditCheckpoint.seq.desc()).limit(1)
            )
        head = self.head()
        rows = 0 if head is None else head.seq - (witnessed or 0)
        now = self.monotonic()
        recent = self._witnessed_at is not None and now - self._witnessed_at < CHECKPOINT_SECONDS
        if head is None or rows == 0 or (recent and rows < CHECKPOINT_ROWS):
            return False
        at = self.clock()
        signature = self.signer.checkpoint(CheckpointRequest(seq=head.seq, head=head.head, at=at))
        with self.database.session() as session:
            if session.get(AuditCheckpoint, head.seq) is None:
                session.add(
                    AuditCheckpoint(seq=head.seq, head=head.head, at=at, signature=signature)
                )
        self._witnessed_at = now
        return True

    def verify(self) -> Verification:
        """Prove the whole chain and every checkpoint anew."""
        found = self._prove(Verification(up_to=0, head=GENESIS))
        with self._lock:
            self._proven = found
        return found

    def list(
        self,
        actor: Actor,
        *,
        before: int | None = None,
        limit: int = 50,
        node: str = "",
        event: str = "",
        run: str = "",
    ) -> AuditPage:
        """Show rows, newest first (``audit:read``); ``node`` is a node's id or name."""
        actor.require("audit:read")
        limit = max(1, min(limit, _MAX_PAGE))
        query = select(AuditEntry).order_by(AuditEntry.seq.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(AuditEntry.seq < before)
        if node:
            query = query.where((AuditEntry.node == node) | (AuditEntry.node_name == node))
        if event:
            query = query.where(AuditEntry.event.startswith(event, autoescape=True))
        if run:
            query = query.where(AuditEntry.run == run)
        with self.database.reading() as session:
            entries = list(session.scalars(query))
        proven = self._prove_further()
        wrong = [e.seq for e in entries if e.seq <= proven.up_to and not _holds(e)]
        more = len(entries) > limit
        return AuditPage(
            rows=tuple(_view(entry) for entry in entries[:limit]),
            next_before=entries[limit - 1].seq if more else None,
            verified_up_to=min([proven.up_to, *(seq - 1 for seq in wrong)]),
            intact=proven.intact and not wrong,
        )

    def _prove_further(self) -> Verification:
        with self._lock:
            start = self._proven
        if not start.intact:
            return start
        found = self._prove(start)
        with self._lock:
            self._proven = found
        return found

    def _prove(self, start: Verification) -> Verification:
        up_to, head = start.up_to, start.head
        with self.database.reading() as session:
            checkpoints = {
                point.seq: point
                for point in session.scalars(
                    select(AuditCheckpoint).where(AuditCheckpoint.seq > up_to)
                )
            }
            while True:
                query = select(AuditEntry).where(AuditEntry.seq > up_to)
                batch = list(session.scalars(query.order_by(AuditEntry.seq).limit(_BATCH)))
                for entry in batch:
                    problem = ""
                    if entry.seq != up_to + 1:
                        problem = f"row {up_to + 1} is missing"
                    elif entry.prev != head or not _holds(entry):
                        problem = f"row {entry.seq} was changed"
                    elif entry.seq in checkpoints:
                        problem = self._contradiction(checkpoints[entry.seq], entry)
                    if problem:
                        return Verification(up_to=up_to, head=head, problem=problem)
                    up_to, head = entry.seq, entry.hash
                session.expunge_all()
                if len(batch) < _BATCH:
                    break
        lost = max(checkpoints, default=0)
        if lost > up_to:
            problem = f"rows {up_to + 1} to {lost} were witnessed and are gone"
            return Verification(up_to=up_to, head=head, problem=problem)
        return Verification(up_to=up_to, head=head)

    def _contradiction(self, point: AuditCheckpoint, entry: AuditEntry) -> str:
        if point.head != entry.hash:
            return f"row {entry.seq} is not the one that was witnessed"
        if self.signer is None:
            return ""
        ca = self.signer.ca()
        key = x509.load_pem_x509_certificate(ca.certificate.encode()).public_key()
        data = checkpoint_bytes(
            ca.cluster, CheckpointRequest(seq=point.seq, head=point.head, at=point.at)
        )
        if not signature_valid(key, point.signature, data):
            return f"the checkpoint at row {point.seq} is not the signer's"
        return ""


def _content(entry: AuditEntry) -> dict[str, Any]:
    return {
        "seq": entry.seq,
        "at": entry.at.astimezone(UTC).isoformat(),
        "event": entry.event,
        "actor": entry.actor,
        "actor_name": entry.actor_name,
        "address": entry.address,
        "node": entry.node,
        "node_name": entry.node_name,
        "resource": entry.resource,
        "run": entry.run,
        "reason": entry.reason,
        "outcome": entry.outcome,
        "details": entry.details,
    }


def _holds(entry: AuditEntry) -> bool:
    return entry.hash == link(entry.prev, _content(entry))


def _view(entry: AuditEntry) -> AuditRow:
    return AuditRow.model_validate({**_content(entry), "at": entry.at, "hash": entry.hash})
