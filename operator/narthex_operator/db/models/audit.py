"""The ledger: rows bound to one another, and signed checkpoints over them."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from narthex_operator.db.base import Base


class AuditEntry(Base):
    """One row. ``hash`` covers ``prev`` and everything else; text is already encoded."""

    __tablename__ = "audit"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(index=True)
    event: Mapped[str] = mapped_column(String(64), index=True)
    actor: Mapped[str] = mapped_column(String(128))
    actor_name: Mapped[str] = mapped_column(String(128))
    address: Mapped[str] = mapped_column(String(64))
    node: Mapped[str] = mapped_column(String(63), index=True)
    node_name: Mapped[str] = mapped_column(String(63))
    resource: Mapped[str] = mapped_column(String(1024))
    run: Mapped[str] = mapped_column(String(64), index=True)
    reason: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(256))
    details: Mapped[dict[str, Any]]
    prev: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class AuditCheckpoint(Base):
    """The signer's word that the chain once ended at ``seq`` with ``head``."""

    __tablename__ = "audit_checkpoints"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    head: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    signature: Mapped[str] = mapped_column(String(256))
