"""What nodes' own audits looked like when they were last read, and what contradicted it."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from narthex_operator.db.base import Base


class NodeAuditHead(Base):
    """A row of a node's chain that was its newest once, with its hash.

    ``at`` is when the node last told it: the newest head's says how fresh our knowledge is.
    """

    __tablename__ = "node_audit_heads"

    node: Mapped[str] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    head: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]


class NodeAuditProblem(Base):
    """A contradiction of one kind that stands until a person has looked into it.

    ``seq`` is the row of the node's chain where it was first seen.
    """

    __tablename__ = "node_audit_problems"

    node: Mapped[str] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    detail: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
