"""Runs of actions: the outbox before sending, what is known of them after."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from narthex_operator.db.base import Base


class RunRow(Base):
    """One run, written before anything is sent.

    ``body`` is the exact request that tickets are made for, ``body_sha256`` its hash.
    ``sent_at`` is set before the first try to send, ``ticket_expires_at`` says until when a
    request under way may still arrive. ``told_at`` is set with the audit row of its end, so
    that the end is told once.

    ``plan`` is the plan that was shown, as the node tells it; ``approvals_wanted`` is how many
    other people must approve it until ``approve_until``, ``approved_at`` when enough had.
    ``confirm_seconds`` is not 0 where the run waits for our confirmation, ``ssh_open`` whether
    the node's SSH port could be reached before it was sent, ``probes`` what was found since.
    """

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_state", "state"),
        Index("ix_runs_node_id_created_at", "node_id", "created_at"),
        Index("ix_runs_created_at", "created_at"),
        Index("ix_runs_fleet_run_id", "fleet_run_id"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"))
    node_name: Mapped[str] = mapped_column(String(63))
    action: Mapped[str] = mapped_column(String(128))
    title: Mapped[str] = mapped_column(String(256))
    resource: Mapped[str] = mapped_column(String(1024))
    danger: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(128))
    actor_name: Mapped[str] = mapped_column(String(128))
    session: Mapped[str] = mapped_column(String(64), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    reason: Mapped[str] = mapped_column(Text, default="")
    params: Mapped[dict[str, Any]]
    plan_digest: Mapped[str] = mapped_column(String(64))
    body: Mapped[bytes] = mapped_column(LargeBinary)
    body_sha256: Mapped[str] = mapped_column(String(64))
    instance: Mapped[str] = mapped_column(String(64), default="")
    steps: Mapped[list[dict[str, Any]]] = mapped_column(default=list)
    error: Mapped[str] = mapped_column(Text, default="")
    hint: Mapped[str] = mapped_column(Text, default="")
    after: Mapped[dict[str, Any] | None]
    inverse: Mapped[str | None] = mapped_column(String(128))
    plan: Mapped[dict[str, Any] | None]
    undo: Mapped[dict[str, Any] | None]
    approvals_wanted: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    approve_until: Mapped[datetime | None]
    approved_at: Mapped[datetime | None]
    confirm_seconds: Mapped[float] = mapped_column(default=0.0, server_default=text("0"))
    confirm_until: Mapped[datetime | None]
    ssh_open: Mapped[bool] = mapped_column(default=False, server_default=false())
    probes: Mapped[list[dict[str, Any]] | None]
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    ticket_expires_at: Mapped[datetime | None]
    checked_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    told_at: Mapped[datetime | None]
    fleet_run_id: Mapped[str | None] = mapped_column(String(36))
    approvals: Mapped[list["ApprovalRow"]] = relationship(
        lazy="selectin", order_by="ApprovalRow.id", cascade="all, delete-orphan"
    )


class ApprovalRow(Base):
    """One person's approval of one run; withdrawn ones are deleted, the audit keeps them."""

    __tablename__ = "approvals"
    __table_args__ = (UniqueConstraint("run_id", "user_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    user_name: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
