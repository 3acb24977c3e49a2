"""Nodes and their one-time join tokens."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from narthex_operator.db.base import Base


class Node(Base):
    """One node. Rows stay when a node is removed, so that its id can never be given again.

    ``generation`` counts its certificates, 0 before the first; ``csr_hash`` and
    ``certificate`` are the newest one's, so that a lost reply can be repeated. A node is
    *pending* while ``approved_at`` is empty, *locked* while ``locked_reason`` is not.
    ``ceiling`` narrows what may be sent to it: the worst danger, or ``off``, by family.
    """

    __tablename__ = "nodes"
    __table_args__ = (
        Index(
            "uq_nodes_live_name",
            "name",
            unique=True,
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(63), primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    address: Mapped[str] = mapped_column(String(64))
    group: Mapped[str] = mapped_column("group_name", String(63), default="")
    labels: Mapped[dict[str, str]] = mapped_column(default=dict, server_default="{}")
    added_at: Mapped[datetime]
    enrolled_at: Mapped[datetime | None]
    approved_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    locked_reason: Mapped[str] = mapped_column(String(200), default="")
    generation: Mapped[int] = mapped_column(default=0)
    csr_hash: Mapped[str] = mapped_column(String(64), default="")
    certificate: Mapped[str] = mapped_column(Text, default="")
    certificate_fingerprint: Mapped[str] = mapped_column(String(64), default="")
    previous_fingerprint: Mapped[str] = mapped_column(String(64), default="")
    certificate_not_after: Mapped[datetime | None]
    fingerprint: Mapped[str] = mapped_column(String(200), default="")
    actor_instance: Mapped[str] = mapped_column(String(64), default="")
    ceiling: Mapped[dict[str, str]] = mapped_column(default=dict, server_default=text("'{}'"))


class JoinTokenRow(Base):
    """A token that makes one node, once. ``secret_hash`` also keys the MAC of its request."""

    __tablename__ = "join_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"), index=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    csr_hash: Mapped[str] = mapped_column(String(64), default="")
    node: Mapped[Node] = relationship(lazy="joined", innerjoin=True)
