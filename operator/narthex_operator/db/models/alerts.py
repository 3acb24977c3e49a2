"""Alerts that have been, as Alertmanager told of them."""

from datetime import datetime

from sqlalchemy import Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from narthex_operator.db.base import Base


class AlertRow(Base):
    """One firing of one alert: a fingerprint with its start. Its text comes from outside."""

    __tablename__ = "alerts"
    __table_args__ = (
        UniqueConstraint("fingerprint", "started_at"),
        Index("ix_alerts_node_name_started_at", "node_name", "started_at"),
        Index("ix_alerts_started_at", "started_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(256))
    severity: Mapped[str] = mapped_column(String(64), default="")
    status: Mapped[str] = mapped_column(String(16))
    node_name: Mapped[str] = mapped_column(String(256), default="")
    instance: Mapped[str] = mapped_column(String(256), default="")
    labels: Mapped[dict[str, str]]
    annotations: Mapped[dict[str, str]]
    generator_url: Mapped[str] = mapped_column(Text, default="")
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
