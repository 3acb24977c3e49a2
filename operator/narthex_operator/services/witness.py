"""Read nodes' own audits as they grow, and notice what contradicts what was read or asked for.

A node and its operator witness each other: we keep the head of its chain, it keeps the head of
our ledger. Neither can cut or restamp its record without the other's contradicting it.
"""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from narthex_exporter.contract.chain import GENESIS, follows
from narthex_exporter.contract.wire import AuditRows
from narthex_operator.clients.node import Asker, NodeClient, NodeRef
from narthex_operator.db import Database
from narthex_operator.db.models import AuditEntry, Node, NodeAuditHead, NodeAuditProblem
from narthex_operator.errors import LimitedError, NodeProblemError, OperatorError
from narthex_operator.security.chain import clean
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.crosscheck import (
    MOST_ROWS,
    REWRITTEN,
    TRUNCATED,
    Finding,
    Row,
    compare,
)
from narthex_operator.services.run_rows import ref_of

log = logging.getLogger(__name__)

ASKER: Final = Asker(id="local:witness")
WORKERS: Final = 8
CONTRADICTED: Final = "node-audit.contradicted"
# So many pages of rows are read of one node in one turn; the next turn goes on.
_PAGES: Final = 20
_KEPT_HEADS: Final = 500
# The signer gives one subject 20 tickets a second: a thousand nodes take most of a minute.
_PATIENCE: Final = 12
# A hostile node must not fill our ledger.
_TOLD_AT_ONCE: Final = 20
_SELF: Final = Actor(id="local:witness", name="witness", grants=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A row of a node's chain up to which it was proven."""

    seq: int = 0
    head: str = GENESIS


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What reading on from a row gave. ``first`` is the oldest row that the node still has."""

    known: Known
    first: int = 0
    rows: int = 0
    done: bool = True
    findings: tuple[Finding, ...] = ()

    @property
    def broken(self) -> bool:
        """Tell whether the chain itself contradicts what was known."""
        return any(finding.kind in {REWRITTEN, TRUNCATED} for finding in self.findings)

    @property
    def cut(self) -> bool:
        """Tell whether the chain is shorter than it was, so that it must be read anew."""
        return any(finding.kind == TRUNCATED for finding in self.findings)


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(slots=True, kw_only=True)
class Witness:
    """Watches the audits of all nodes that may be acted on."""

    database: Database
    audit: AuditLedger
    nodes: NodeClient
    clock: Callable[[], datetime] = _now
    sleep: Callable[[float], None] = time.sleep
    _silent: set[str] = field(default_factory=set, init=False)

    def poll(self) -> None:
        """Read every node's new rows; returns when all have been asked. A job calls this."""
        self._each(self.follow)

    def verify(self) -> None:
        """Read every node's whole audit; returns when all have been asked. A job calls this."""
        self._each(self.check)

    def present(self) -> list[NodeRef]:
        """Name the nodes whose audits are read."""
        query = select(Node).where(
            Node.removed_at.is_(None), Node.approved_at.is_not(None), Node.locked_reason == ""
        )
        with self.database.reading() as session:
            return [ref_of(node) for node in session.scalars(query.order_by(Node.name))]

    def follow(self, node: NodeRef) -> Walk:
        """Read a node's rows on from the last known one. Raises OperatorError."""
        known = self._known(node)
        walk = self._walk(node, known or Known(), heads={}, new=known is None, pages=_PAGES)
        self._keep(node, walk)
        return walk

    def check(self, node: NodeRef) -> Walk:
        """Read all of a node's rows, against every head that is known. Raises OperatorError."""
        with self.database.reading() as session:
            query = select(NodeAuditHead.seq, NodeAuditHead.head)
            found = session.execute(query.where(NodeAuditHead.node == node.id))
            heads = {head.seq: head.head for head in found}
        walk = self._walk(node, Known(), heads=heads, new=True, pages=None)
        self._keep(node, walk)
        return walk

    def problems(self, node: NodeRef) -> list[tuple[str, str]]:
        """Give what stands against a node's audit: kind, and detail in words."""
        query = select(NodeAuditProblem).where(NodeAuditProblem.node == node.id)
        with self.database.reading() as session:
            return [
                (row.kind, row.detail)
                for row in session.scalars(query.order_by(NodeAuditProblem.kind))
            ]

    def accept(self, actor: Actor, ref: str, *, reason: str) -> int:
        """Take a node's audit as it is now, after somebody looked into it (``audit:accept``).

        Gives how many problems are thereby settled; the ledger keeps what they were.
        """
        actor.require("audit:accept")
        with self.database.session() as session:
            node = session.scalar(
                select(Node).where(
                    (Node.name == ref) | (Node.id == ref), Node.removed_at.is_(None)
                )
            )
            if node is None:
                raise OperatorError(f"there is no node {ref[:64]!r}")
            of_node = select(NodeAuditProblem).where(NodeAuditProblem.node == node.id)
            found = list(session.scalars(of_node))
            for problem in found:
                session.delete(problem)
            session.flush()
            self.audit.record(
                session,
                actor=actor,
                event="node-audit.accepted",
                node=node.id,
                node_name=node.name,
                resource=f"node/{node.name}",
                reason=reason,
                details={problem.kind: problem.detail for problem in found},
            )
        return len(found)

    def _each(self, work: Callable[[NodeRef], Walk]) -> None:
        def guarded(node: NodeRef) -> None:
            try:
                work(node)
            except OperatorError as error:
                # Told once: NodeDown and the age of what is known tell the rest.
                if node.id not in self._silent:
                    log.info("audit.unread", extra={"node": node.name, "error": str(error)})
                self._silent.add(node.id)
            except Exception:
                # The boundary of the background: one node's trouble does not hide another's.
                log.exception("audit.fault", extra={"node": node.name})
            else:
                self._silent.discard(node.id)

        with ThreadPoolExecutor(WORKERS, thread_name_prefix="witness") as pool:
            list(pool.map(guarded, self.present()))

    def _known(self, node: NodeRef) -> Known | None:
        query = select(NodeAuditHead).where(NodeAuditHead.node == node.id)
        with self.database.reading() as session:
            row = session.scalar(query.order_by(NodeAuditHead.seq.desc()).limit(1))
        return None if row is None else Known(seq=row.seq, head=row.head)

    def _walk(
        self,
        node: NodeRef,
        start: Known,
        *,
        heads: Mapping[int, str],
        new: bool,
        pages: int | None,
    ) -> Walk:
        """Read rows page by page until there are no more, or until one contradicts."""
        walk = Walk(known=start)
        left = pages
        while left is None or left > 0:
            left = None if left is None else left - 1
            try:
                page = self._page(node, walk.known.seq)
                walk = self._step(node, walk, page, heads=heads, new=new)
            except NodeProblemError as error:
                if error.problem.type != "audit-damaged":
                    raise
                return _with(walk, Finding(kind=REWRITTEN, seq=walk.known.seq, detail=str(error)))
            if walk.known.seq >= page.seq or not page.rows:
                break
        else:
            walk = replace(walk, done=False)
        lost = max(heads, default=0)
        if walk.done and lost > walk.known.seq:
            walk = _with(walk, _cut(Known(seq=lost, head=heads[lost]), walk.known.seq))
        return walk

    def _page(self, node: NodeRef, after: int) -> AuditRows:
        """Ask for rows; where the signer gives no more tickets just now, wait for the next."""
        for _ in range(_PATIENCE):
            try:
                return self.nodes.audit(node, ASKER, after=after)
            except LimitedError as error:
                self.sleep(error.retry_after_seconds)
        return self.nodes.audit(node, ASKER, after=after)

    def _step(
        self, node: NodeRef, walk: Walk, page: AuditRows, *, heads: Mapping[int, str], new: bool
    ) -> Walk:
        """Prove one page. What contradicts is found, and read past: more may be behind it."""
        known = walk.known
        if page.seq < known.seq:
            return _with(walk, _cut(known, page.seq))
        rows = tuple(row for row in page.rows if _is_row(row))
        if page.first > known.seq + 1 and rows:
            # Gone by rotation, which is no attack: it is written down, and the rest is proven.
            if not new:
                self._skip(node, known, page.first)
            known = Known(seq=page.first - 1, head=str(rows[0].get("prev")))
        findings = [] if len(rows) == len(page.rows) else [_changed(known)]
        for row in rows:
            right = _follows(row, known)
            if not right or heads.get(row["seq"], row["hash"]) != row["hash"]:
                findings.append(_changed(known))
            known = Known(seq=max(known.seq, row["seq"]), head=row["hash"])
        if known.seq > page.seq or (known.seq == page.seq and known.head != page.head):
            findings.append(_changed(known))
        if known.seq <= walk.known.seq < page.seq:
            findings.append(_changed(known))  # it claims rows that it does not show
            known = Known(seq=page.seq, head=page.head)
        return Walk(
            known=known,
            first=page.first,
            rows=walk.rows + len(rows),
            # One break is told; what follows from it would only repeat it.
            findings=(*walk.findings, *findings[:1], *self._compare(node, rows)),
        )

    def _compare(self, node: NodeRef, rows: tuple[Row, ...]) -> list[Finding]:
        with self.database.reading() as session:
            return compare(session, rows, node=node.id, cluster=self.nodes.cluster)

    def _skip(self, node: NodeRef, known: Known, first: int) -> None:
        log.warning("audit.skipped", extra={"node": node.name, "first": first})
        self.audit.note(
            _SELF,
            "node-audit.skipped",
            node=node.id,
            node_name=node.name,
            resource=f"node/{node.name}",
            details={"from": known.seq + 1, "to": first - 1, "why": "gone by rotation"},
        )

    def _keep(self, node: NodeRef, walk: Walk) -> None:
        """Keep what is proven, and tell what is not, in one transaction."""
        now = self.clock()
        with self.database.session() as session:
            self.database.lock(session, "audit")
            if walk.broken:
                # What it was stands in the ledger below; from now on it is another chain.
                session.execute(delete(NodeAuditHead).where(NodeAuditHead.node == node.id))
            if walk.known.seq and not walk.cut:
                _keep_head(session, node, walk.known, now)
            told = [one for one in walk.findings if not _is_told(session, node, one)]
            for finding in told[:_TOLD_AT_ONCE]:
                self._tell(session, node, finding, now, more=max(0, len(told) - _TOLD_AT_ONCE))

    def _tell(
        self, session: Session, node: NodeRef, finding: Finding, now: datetime, *, more: int
    ) -> None:
        if session.get(NodeAuditProblem, (node.id, finding.kind)) is None:
            session.add(
                NodeAuditProblem(
                    node=node.id,
                    kind=finding.kind,
                    seq=finding.seq,
                    detail=finding.detail,
                    at=now,
                )
            )
            session.flush()
        details: dict[str, Any] = {"row": finding.seq, "what": finding.detail}
        self.audit.record(
            session,
            actor=_SELF,
            event=CONTRADICTED,
            node=node.id,
            node_name=node.name,
            resource=f"node/{node.name}",
            run=finding.run,
            outcome=_outcome(finding),
            details=details | ({"and_more": more} if more else {}),
        )
        log.error(
            "audit.contradicted",
            extra={"node": node.name, "kind": finding.kind, "what": finding.detail},
        )


def _with(walk: Walk, finding: Finding) -> Walk:
    return replace(walk, findings=(*walk.findings, finding))


def _is_row(row: Row) -> bool:
    seq, digest = row.get("seq"), row.get("hash")
    numbered = isinstance(seq, int) and 0 < seq < MOST_ROWS
    return numbered and isinstance(digest, str) and len(digest) == len(GENESIS)


def _follows(row: Row, known: Known) -> bool:
    try:
        return follows(row, seq=known.seq, head=known.head)
    except (ValueError, TypeError, RecursionError):
        return False  # a row that cannot even be hashed is none of ours


def _changed(known: Known) -> Finding:
    detail = f"what stands behind row {known.seq} ({known.head[:12]}) does not follow from it"
    return Finding(kind=REWRITTEN, seq=known.seq, detail=detail)


def _cut(known: Known, newest: int) -> Finding:
    detail = f"its newest row is {newest}, but it had a row {known.seq} ({known.head[:12]})"
    return Finding(kind=TRUNCATED, seq=known.seq, detail=detail)


def _outcome(finding: Finding) -> str:
    return clean(f"{finding.kind} at row {finding.seq}: {finding.detail}")


def _is_told(session: Session, node: NodeRef, finding: Finding) -> bool:
    query = select(AuditEntry.seq).where(
        AuditEntry.event == CONTRADICTED,
        AuditEntry.node == node.id,
        AuditEntry.run == finding.run,
        AuditEntry.outcome == _outcome(finding),
    )
    return session.scalar(query.limit(1)) is not None


def _keep_head(session: Session, node: NodeRef, known: Known, now: datetime) -> None:
    row = session.get(NodeAuditHead, (node.id, known.seq))
    if row is not None:
        row.at = now
        return
    session.add(NodeAuditHead(node=node.id, seq=known.seq, head=known.head, at=now))
    session.flush()
    newest = (
        select(NodeAuditHead.seq)
        .where(NodeAuditHead.node == node.id)
        .order_by(NodeAuditHead.seq.desc())
    )
    oldest_kept = session.scalar(newest.offset(_KEPT_HEADS - 1).limit(1))
    if oldest_kept is not None:
        session.execute(
            delete(NodeAuditHead).where(
                NodeAuditHead.node == node.id, NodeAuditHead.seq < oldest_kept
            )
        )
