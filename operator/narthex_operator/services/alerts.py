"""Keep the history of alerts, show those that are, silence them."""

import hashlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from narthex_operator.clients.alertmanager import ActiveAlert, Alertmanager, Silence
from narthex_operator.clients.prometheus import Prometheus, RuleAlert
from narthex_operator.db import Database
from narthex_operator.db.models import AlertRow
from narthex_operator.errors import InvalidError, NotFoundError, UnreachableError
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.views import AlertState, AlertsView, AlertView, SilenceView

log = logging.getLogger(__name__)

WATCHDOG: Final = "Watchdog"
MAX_HISTORY: Final = 1000
MAX_SILENCE: Final = timedelta(days=30)
MAX_COMMENT: Final = 500
# Alertmanager forgets what Prometheus no longer sends; for so long it may merely have restarted.
_GONE: Final = timedelta(seconds=90)
_ALERTS: Final = 10_000
_LABELS: Final = 64
_TEXT: Final = 2000
_ORDER: Final = (AlertState.FIRING, AlertState.PENDING, AlertState.SILENCED)
_SEVERITIES: Final = ("critical", "warning", "info")


class _Told(BaseModel):
    """One alert of a webhook, version 4. Times are Alertmanager's, to the nanosecond."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    startsAt: AwareDatetime  # noqa: N815 - Alertmanager's own name
    endsAt: AwareDatetime  # noqa: N815 - Alertmanager's own name
    generatorURL: str = ""  # noqa: N815 - Alertmanager's own name
    fingerprint: str = Field(pattern=r"^[0-9a-f]{1,64}$")


class _Webhook(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    version: Literal["4"]
    alerts: tuple[_Told, ...] = Field(max_length=_ALERTS)


@dataclass(slots=True, kw_only=True)
class AlertService:
    """Alerts, their history and silences."""

    database: Database
    audit: AuditLedger
    alertmanager: Alertmanager
    prometheus: Prometheus
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _watchdog_at: datetime | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    @property
    def watchdog_at(self) -> datetime | None:
        """When the dead man's switch was last heard of; ``None`` before the first time."""
        return self._watchdog_at

    def current(self, actor: Actor, *, node: str = "") -> AlertsView:
        """List alerts that fire, are pending or silenced; the gravest first."""
        actor.require("alert:read")
        problems: list[str] = []
        try:
            silences = {silence.id: silence for silence in self.alertmanager.silences()}
            found = [_from_active(one, silences) for one in self.alertmanager.alerts()]
        except UnreachableError as error:
            problems.append(str(error))
            found = self._remembered()
        try:
            pending = [x for x in self.prometheus.alerts() if x.state == "pending"]
            found += [_from_rule(one) for one in pending]
        except UnreachableError as error:
            problems.append(str(error))
        shown = [
            alert
            for alert in found
            if alert.name != WATCHDOG and (not node or alert.node_name == node)
        ]
        return AlertsView(alerts=tuple(sorted(shown, key=_gravity)), problem="; ".join(problems))

    def history(self, actor: Actor, *, node: str = "", limit: int = 100) -> AlertsView:
        """List alerts that have been, newest first."""
        actor.require("alert:read")
        chosen = select(AlertRow).order_by(AlertRow.started_at.desc(), AlertRow.id.desc())
        if node:
            chosen = chosen.where(AlertRow.node_name == node)
        with self.database.reading() as session:
            rows = session.scalars(chosen.limit(max(1, min(limit, MAX_HISTORY)))).all()
        return AlertsView(alerts=tuple(_from_row(row) for row in rows))

    def receive(self, payload: Mapping[str, Any]) -> int:
        """Take Alertmanager's webhook: repeated and out of order, as it may come."""
        try:
            told = _Webhook.model_validate(payload)
        except ValidationError as error:
            raise InvalidError(
                f"this is not Alertmanager's webhook, version 4: {error.error_count()} errors",
                hint="does `url` in alertmanager.yml lead here from a webhook receiver?",
            ) from error
        kept = []
        for alert in told.alerts:
            if alert.labels.get("alertname") == WATCHDOG:
                self._watchdog_at = self.now()
            else:
                kept.append(alert)
        if kept:
            with self._lock, self.database.session() as session:
                for alert in kept:
                    self._keep(session, alert)
        return len(told.alerts)

    def poll(self) -> None:
        """Compare with Alertmanager: webhooks tell of no silenced alert, and may get lost."""
        try:
            active = self.alertmanager.alerts()
        except UnreachableError as error:
            log.info("alerts.poll-failed", extra={"error": str(error)})
            return
        now = self.now()
        with self._lock, self.database.session() as session:
            for alert in active:
                if alert.labels.get("alertname") == WATCHDOG:
                    self._watchdog_at = now
                else:
                    row = self._row(session, alert.fingerprint, alert.startsAt, alert)
                    # What Alertmanager holds now fires, whatever an old webhook said.
                    row.status, row.ended_at = AlertState.FIRING, None
            gone = select(AlertRow).where(
                AlertRow.status == AlertState.FIRING, AlertRow.last_seen_at < now - _GONE
            )
            for row in session.scalars(gone):
                row.status, row.ended_at = AlertState.RESOLVED, row.last_seen_at

    def silence(
        self, actor: Actor, alert_id: str, *, duration: timedelta, comment: str
    ) -> SilenceView:
        """Silence one alert by its labels."""
        actor.require("alert:silence")
        comment = comment.strip()
        if not comment or len(comment) > MAX_COMMENT:
            raise InvalidError(f"say why, in at most {MAX_COMMENT} characters")
        if not timedelta(minutes=1) <= duration <= MAX_SILENCE:
            raise InvalidError(f"a silence lasts from a minute to {MAX_SILENCE.days} days")
        labels, name = self._labels(alert_id)
        now = self.now()
        details = {"alert": alert_id, "labels": dict(labels), "ends_at": str(now + duration)}
        self._record(actor, "alert.silence-requested", name, comment, details)
        silence_id = self.alertmanager.silence(
            labels, ends_at=now + duration, created_by=actor.name, comment=comment
        )
        self._record(actor, "alert.silenced", name, comment, {"silence": silence_id})
        return SilenceView(
            id=silence_id,
            matchers=tuple(f"{key}={value}" for key, value in sorted(labels.items())),
            created_by=actor.name,
            comment=comment,
            starts_at=now,
            ends_at=now + duration,
        )

    def unsilence(self, actor: Actor, silence_id: str) -> None:
        """End a silence."""
        actor.require("alert:silence")
        active = [x for x in self.alertmanager.silences() if x.status.state != "expired"]
        if silence_id not in {silence.id for silence in active}:
            raise NotFoundError("there is no such silence", hint="it may have ended already")
        self._record(actor, "alert.unsilence-requested", "", "", {"silence": silence_id})
        self.alertmanager.end_silence(silence_id)
        self._record(actor, "alert.unsilenced", "", "", {"silence": silence_id})

    def _record(
        self, actor: Actor, event: str, alert: str, reason: str, details: Mapping[str, Any]
    ) -> None:
        with self.database.session() as session:
            self.audit.record(
                session,
                actor=actor,
                event=event,
                resource=f"alert/{alert}" if alert else "",
                reason=reason,
                details=details,
            )

    def _labels(self, alert_id: str) -> tuple[Mapping[str, str], str]:
        for alert in self.alertmanager.alerts():
            if _id(alert.fingerprint, alert.startsAt) == alert_id:
                return alert.labels, alert.labels.get("alertname", "")
        fingerprint = alert_id.partition("-")[0]
        with self.database.reading() as session:
            rows = session.scalars(select(AlertRow).where(AlertRow.fingerprint == fingerprint))
            for row in rows:
                if _id(row.fingerprint, row.started_at) == alert_id:
                    return row.labels, row.name
        raise NotFoundError("there is no such alert", hint="it may have ended; see its history")

    def _remembered(self) -> list[AlertView]:
        firing = select(AlertRow).where(AlertRow.status == AlertState.FIRING)
        with self.database.reading() as session:
            return [_from_row(row) for row in session.scalars(firing)]

    def _keep(self, session: Session, told: _Told) -> None:
        row = self._row(session, told.fingerprint, told.startsAt, told)
        if told.status == "resolved":
            row.status, row.ended_at = AlertState.RESOLVED, told.endsAt
        # A firing that arrives behind its own end is old news: the row stays resolved.

    def _row(
        self, session: Session, fingerprint: str, start: datetime, told: _Told | ActiveAlert
    ) -> AlertRow:
        """Find or make the row of one firing, and note that it was seen."""
        # Alertmanager's API tells milliseconds, its webhook nanoseconds.
        started = start.replace(microsecond=start.microsecond // 1000 * 1000)
        row = session.scalar(
            select(AlertRow).where(
                AlertRow.fingerprint == fingerprint, AlertRow.started_at == started
            )
        )
        if row is None:
            labels = _bounded(told.labels)
            row = AlertRow(
                fingerprint=fingerprint,
                started_at=started,
                name=labels.get("alertname", "")[:256],
                severity=labels.get("severity", "")[:64],
                status=AlertState.FIRING,
                node_name=labels.get("node", "")[:256],
                instance=labels.get("instance", "")[:256],
                labels=labels,
                annotations={},
                generator_url=told.generatorURL[:_TEXT],
                first_seen_at=self.now(),
                last_seen_at=self.now(),
            )
            session.add(row)
        row.annotations = _bounded(told.annotations)
        row.last_seen_at = self.now()
        return row


def _id(fingerprint: str, start: datetime) -> str:
    milliseconds = (start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return f"{fingerprint}-{milliseconds}"


def _bounded(texts: Mapping[str, str]) -> dict[str, str]:
    return {name[:256]: text[:_TEXT] for name, text in list(texts.items())[:_LABELS]}


def _view(
    *,
    fingerprint: str,
    state: AlertState,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    start: datetime,
    end: datetime | None = None,
    silence: SilenceView | None = None,
) -> AlertView:
    return AlertView(
        id=_id(fingerprint, start),
        fingerprint=fingerprint,
        name=labels.get("alertname", ""),
        severity=labels.get("severity", ""),
        state=state,
        node_name=labels.get("node", ""),
        instance=labels.get("instance", ""),
        summary=annotations.get("summary", ""),
        description=annotations.get("description", ""),
        runbook_url=annotations.get("runbook_url", ""),
        labels=labels,
        started_at=start,
        ended_at=end,
        silence=silence,
    )


def _from_active(alert: ActiveAlert, silences: Mapping[str, Silence]) -> AlertView:
    by = next((silences[x] for x in alert.status.silencedBy if x in silences), None)
    return _view(
        fingerprint=alert.fingerprint,
        state=AlertState.SILENCED if alert.status.silencedBy else AlertState.FIRING,
        labels=_bounded(alert.labels),
        annotations=_bounded(alert.annotations),
        start=alert.startsAt,
        silence=None if by is None else _silence(by),
    )


def _from_rule(alert: RuleAlert) -> AlertView:
    labels = _bounded(alert.labels)
    return _view(
        # Alertmanager has not seen it and given it no fingerprint: its labels are its name.
        fingerprint=hashlib.sha256(repr(sorted(labels.items())).encode()).hexdigest()[:16],
        state=AlertState.PENDING,
        labels=labels,
        annotations=_bounded(alert.annotations),
        start=alert.activeAt,
    )


def _from_row(row: AlertRow) -> AlertView:
    return _view(
        fingerprint=row.fingerprint,
        state=AlertState(row.status),
        labels=row.labels,
        annotations=row.annotations,
        start=row.started_at,
        end=row.ended_at,
    )


def _silence(silence: Silence) -> SilenceView:
    return SilenceView(
        id=silence.id,
        matchers=tuple(map(str, silence.matchers)),
        created_by=silence.createdBy,
        comment=silence.comment,
        starts_at=silence.startsAt,
        ends_at=silence.endsAt,
    )


def _gravity(alert: AlertView) -> tuple[int, int, float]:
    known = alert.severity in _SEVERITIES
    return (
        _ORDER.index(alert.state) if alert.state in _ORDER else len(_ORDER),
        _SEVERITIES.index(alert.severity) if known else len(_SEVERITIES),
        -alert.started_at.timestamp(),
    )
