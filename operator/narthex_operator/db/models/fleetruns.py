"""Runs over many nodes, schedules of them, and who drives them."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from narthex_operator.db.base import Base


class Lease(Base):
    """Who of several operators does something alone, and until when.

    ``term`` grows each time it changes hands.
    """

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    term: Mapped[int] = mapped_column(default=1)
    expires_at: Mapped[datetime]


class FleetPlanRow(Base):
    """A plan over many nodes as it was shown to somebody, for a while.

    ``digest`` covers the action, its parameters and each member with its own plan's digest.
    """

    __tablename__ = "fleet_plans"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    actor: Mapped[str] = mapped_column(String(128), primary_key=True)
    action: Mapped[str] = mapped_column(String(128))
    params: Mapped[dict[str, Any]]
    selector: Mapped[str] = mapped_column(Text)
    members: Mapped[list[dict[str, Any]]]
    retry_of: Mapped[str | None] = mapped_column(String(36))
    created_at: Mapped[datetime] = mapped_column(index=True)


class FleetRunRow(Base):
    """One action over many nodes, wave by wave. Everything that its driver knows stands here.

    ``driven_at`` is when a driver last looked after it. ``gate_since`` is since when the gate has
    held without a gap, ``gate_checked_at`` when it was last asked. ``forgiven`` is how many
    members had failed when somebody let it go on.
    """

    __tablename__ = "fleet_runs"
    __table_args__ = (
        Index("ix_fleet_runs_state", "state"),
        Index("ix_fleet_runs_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    action: Mapped[str] = mapped_column(String(128))
    title: Mapped[str] = mapped_column(String(256))
    resource: Mapped[str] = mapped_column(String(1024))
    danger: Mapped[str] = mapped_column(String(16))
    params: Mapped[dict[str, Any]]
    selector: Mapped[str] = mapped_column(Text)
    strategy: Mapped[dict[str, Any]]
    plan_digest: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text, default="")
    actor: Mapped[str] = mapped_column(String(128))
    actor_name: Mapped[str] = mapped_column(String(128))
    session: Mapped[str] = mapped_column(String(64), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    schedule_id: Mapped[str | None] = mapped_column(String(36))
    retry_of: Mapped[str | None] = mapped_column(String(36))
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str] = mapped_column(Text, default="")
    hint: Mapped[str] = mapped_column(Text, default="")
    wave: Mapped[int] = mapped_column(default=0)
    waves: Mapped[int]
    forgiven: Mapped[int] = mapped_column(default=0)
    pause_until: Mapped[datetime | None]
    gate_began_at: Mapped[datetime | None]
    gate_since: Mapped[datetime | None]
    gate_checked_at: Mapped[datetime | None]
    gate_told: Mapped[str] = mapped_column(Text, default="")
    cancelled_by: Mapped[dict[str, str] | None]
    created_at: Mapped[datetime]
    driven_at: Mapped[datetime]
    halted_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class FleetMember(Base):
    """One node of a fleet run. ``run_id`` is its run's, given before anything is sent.

    That is why no member can run twice: whoever sends it again sends the same run. ``wave`` is
    -1 for nodes that refused at the plan and were left out.
    """

    __tablename__ = "fleet_members"

    fleet_run_id: Mapped[str] = mapped_column(ForeignKey("fleet_runs.id"), primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("nodes.id"), primary_key=True)
    node_name: Mapped[str] = mapped_column(String(63))
    wave: Mapped[int]
    position: Mapped[int]
    run_id: Mapped[str] = mapped_column(String(36), unique=True)
    plan_digest: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    error: Mapped[str] = mapped_column(Text, default="")
    hint: Mapped[str] = mapped_column(Text, default="")


class ScheduleRow(Base):
    """What is to be done over and over, on whose behalf, and when next."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    cron: Mapped[str] = mapped_column(String(128), default="")
    every_seconds: Mapped[int | None]
    timezone: Mapped[str] = mapped_column(String(64))
    misfire: Mapped[str] = mapped_column(String(16))
    grace_seconds: Mapped[int]
    action: Mapped[str] = mapped_column(String(128))
    params: Mapped[dict[str, Any]]
    selector: Mapped[str] = mapped_column(Text)
    strategy: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(Text, default="")
    owner: Mapped[str] = mapped_column(String(128))
    owner_name: Mapped[str] = mapped_column(String(128))
    enabled: Mapped[bool]
    paused_reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    next_at: Mapped[datetime | None] = mapped_column(index=True)


class ScheduleSlot(Base):
    """One time at which a schedule was due, taken by whoever wrote the row first."""

    __tablename__ = "schedule_slots"
    __table_args__ = (UniqueConstraint("schedule_id", "slot"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    slot: Mapped[datetime]
    fleet_run_id: Mapped[str] = mapped_column(String(36))
    holder: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    error: Mapped[str] = mapped_column(Text, default="")
    taken_at: Mapped[datetime]
