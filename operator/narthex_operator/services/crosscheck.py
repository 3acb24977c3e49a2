"""Compare what a node's audit says with our own ledger, both ways."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from narthex_operator.db.models import AuditEntry, RunRow
from narthex_operator.security.chain import clean

LEDGER: Final = "ledger"
REWRITTEN: Final = "rewritten"
TRUNCATED: Final = "truncated"
UNAUTHORISED: Final = "unauthorised"
KINDS: Final = (LEDGER, REWRITTEN, TRUNCATED, UNAUTHORISED)
MOST_ROWS: Final = 1 << 53

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A contradiction: its kind, the row of the node's chain, in words, and the run if any."""

    kind: str
    seq: int
    detail: str
    run: str = ""


def compare(session: Session, rows: Sequence[Row], *, node: str, cluster: str) -> list[Finding]:
    """Find runs that we did not ask for, and heads of our ledger that it no longer has."""
    ours = [
        row
        for row in rows
        if row.get("event") == "run.accepted"
        # Of this installation: the machine may have been another's before. A ticket of ours
        # cannot make such a row say otherwise.
        and row.get("iss", cluster) == cluster
        and row.get("aud", f"node:{node}") == f"node:{node}"
    ]
    return [*_unauthorised(session, ours, node), *_lost_heads(session, rows)]


def _unauthorised(session: Session, rows: Sequence[Row], node: str) -> Iterable[Finding]:
    ops = {_op(row) for row in rows}
    if not ops:
        return
    entries = session.execute(
        select(AuditEntry.run, AuditEntry.details).where(
            AuditEntry.event == "run.requested", AuditEntry.node == node, AuditEntry.run.in_(ops)
        )
    )
    asked = {entry.run: entry.details.get("ph") for entry in entries}
    # Parameters that are too large for the ledger leave no hash there.
    kept = session.execute(select(RunRow.id, RunRow.body_sha256).where(RunRow.id.in_(ops)))
    bodies = {row.id: row.body_sha256 for row in kept}
    for row in rows:
        op, what = _op(row), f"{_text(row, 'act')} on {_text(row, 'resource')}"
        if op not in asked:
            detail = f"it accepted run {op} ({what}), which we never asked it for"
        elif row.get("ph") != (asked[op] or bodies.get(op, row.get("ph"))):
            detail = f"it accepted run {op} ({what}) with another request than ours"
        else:
            continue
        yield Finding(kind=UNAUTHORISED, seq=row["seq"], detail=detail, run=op)


def _lost_heads(session: Session, rows: Sequence[Row]) -> Iterable[Finding]:
    seen = {}
    for row in rows:
        told = row.get("operator_head")
        if isinstance(told, Mapping) and isinstance(told.get("seq"), int):
            seen[row["seq"]] = (told["seq"], str(told.get("head")))
    wanted = {seq for seq, _ in seen.values() if 0 < seq < MOST_ROWS}
    present: dict[int, str] = {}
    if wanted:
        found = session.execute(
            select(AuditEntry.seq, AuditEntry.hash).where(AuditEntry.seq.in_(wanted))
        )
        present = {entry.seq: entry.hash for entry in found}
    for at, (seq, head) in seen.items():
        if present.get(seq) != head:
            fate = "is not the one that it saw" if seq in present else "is gone"
            yield Finding(
                kind=LEDGER, seq=at, detail=f"row {min(seq, MOST_ROWS)} of our own ledger {fate}"
            )


def _op(row: Row) -> str:
    return _text(row, "op", limit=64)


def _text(row: Row, name: str, *, limit: int = 200) -> str:
    return clean(str(row.get(name, "")), limit=limit)
