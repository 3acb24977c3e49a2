"""Audit, alerts and logs in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.panel.world import World

from narthex_operator.errors import (
    UnreachableError,
)
from narthex_operator.services.access import Actor
from narthex_operator.services.views import (
    AlertState,
    AlertsView,
    AlertView,
    AuditPage,
    AuditRow,
    LogLine,
    LogPage,
    LogSearch,
    SilenceView,
)


@dataclass
class FakeAudit:
    world: World

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
        actor.require("audit:read")
        if self.world.mode == "empty":
            return AuditPage(rows=())
        events = ("run.finished", "run.requested", "session.started", "alert.silenced")
        rows = [
            AuditRow(
                seq=seq,
                at=self.world.time - timedelta(minutes=7 * (120 - seq)),
                event=events[seq % 4],
                actor="user:1",
                actor_name="anna",
                address="192.0.2.7",
                node=f"{1:016x}" if seq % 4 < 2 else "",
                node_name="web-1" if seq % 4 < 2 else "",
                resource="service/nginx.service" if seq % 4 < 2 else "",
                run="0190-a" if seq % 4 < 2 else "",
                reason=self.world.text or "the certificate was renewed" if seq % 4 == 1 else "",
                outcome="succeeded" if seq % 4 == 0 else "",
            )
            for seq in range((before or 121) - 1, 0, -1)
        ]
        kept = [
            row
            for row in rows
            if (not event or row.event == event)
            and (not node or node in {row.node, row.node_name})
            and (not run or row.run == run)
        ][:limit]
        return AuditPage(
            rows=tuple(kept),
            next_before=kept[-1].seq if kept and kept[-1].seq > 1 else None,
            verified_up_to=120 if not self.world.failing() else 77,
            intact=not self.world.failing(),
        )


@dataclass
class FakeAlerts:
    world: World

    def current(self, actor: Actor, *, node: str = "") -> AlertsView:
        actor.require("alert:read")
        if self.world.failing():
            raise UnreachableError(
                "Alertmanager does not answer at 127.0.0.1:19104: connection refused",
                hint="see log/alertmanager.log",
            )
        if self.world.mode in {"empty", "quiet"}:
            return AlertsView(alerts=())
        at = self.world.time
        text = self.world.text
        made = [
            alert(
                "a1",
                "NodeFilesystemAlmostFull",
                "critical",
                "db-primary",
                text or "/var/lib/postgresql on db-primary is 93 % full",
                at - timedelta(minutes=38),
            ),
            alert(
                "a2",
                "NodeDown",
                "critical",
                "batch-fra-07",
                "batch-fra-07 has not answered for 12 minutes",
                at - timedelta(minutes=12),
            ),
            alert(
                "a3",
                "NodeCPUHigh",
                "warning",
                "web-2",
                "web-2 uses 91 % of its CPU",
                at - timedelta(minutes=6),
            ),
            alert(
                "a4",
                "NodeMemoryHigh",
                "warning",
                "db-replica",
                "db-replica uses 80 % of its memory",
                at - timedelta(minutes=1),
                AlertState.PENDING,
            ),
        ]
        found = [
            one.model_copy(
                update={"state": AlertState.SILENCED, "silence": self.world.silenced[one.id]}
            )
            if one.id in self.world.silenced
            else one
            for one in made
        ]
        return AlertsView(alerts=tuple(a for a in found if not node or a.node_name == node))

    def history(self, actor: Actor, *, node: str = "", limit: int = 100) -> AlertsView:
        actor.require("alert:read")
        if self.world.mode == "empty":
            return AlertsView(alerts=())
        at = self.world.time
        return AlertsView(
            alerts=(
                alert(
                    "h1",
                    "NodeCPUHigh",
                    "warning",
                    "web-1",
                    "web-1 uses 96 % of its CPU",
                    at - timedelta(hours=5),
                    AlertState.RESOLVED,
                    ended_at=at - timedelta(hours=4, minutes=20),
                ),
            )
        )

    def receive(self, payload: Mapping[str, Any]) -> int:
        return 0

    def silence(
        self, actor: Actor, alert_id: str, *, duration: timedelta, comment: str
    ) -> SilenceView:
        actor.require("alert:silence")
        found = SilenceView(
            id=f"s-{alert_id}",
            matchers=('alertname="NodeCPUHigh"', 'node="web-2"'),
            created_by=actor.name,
            comment=comment,
            starts_at=self.world.time,
            ends_at=self.world.time + duration,
        )
        self.world.silenced[alert_id] = found
        return found

    def unsilence(self, actor: Actor, silence_id: str) -> None:
        actor.require("alert:silence")
        self.world.silenced.pop(silence_id.removeprefix("s-"), None)


def alert(
    key: str,
    name: str,
    severity: str,
    node_name: str,
    summary: str,
    started_at: datetime,
    state: AlertState = AlertState.FIRING,
    **more: Any,
) -> AlertView:
    return AlertView(
        id=key,
        fingerprint=key,
        name=name,
        severity=severity,
        state=state,
        node_name=node_name,
        instance=f"{node_name}:19100",
        summary=summary,
        description=f"{summary}. At this rate there are 3 hours left.",
        runbook_url=f"https://docs.example/runbooks/{name}",
        labels={"alertname": name, "node": node_name, "severity": severity, "job": "node"},
        started_at=started_at,
        **more,
    )


@dataclass
class FakeLogs:
    world: World

    def search(self, actor: Actor, search: LogSearch) -> LogPage:
        actor.require("log:read")
        query = f'{{node="{search.node or ".+"}"}} |= "{search.text}"'
        if self.world.failing():
            raise UnreachableError(
                "the log store does not answer at 127.0.0.1:19102: connection refused",
                hint="see log/logstore.log",
            )
        messages = (
            ("info", '10.0.9.14 - - "GET /api/orders?page=2 HTTP/1.1" 200 5311'),
            ("error", "upstream timed out (110: Connection timed out) while reading response"),
            ("warning", "worker process 4243 \x1b[33mexited\x1b[0m on signal 15"),
            ("info", "checkpoint complete: wrote 1284 buffers (7.8 %); 0 WAL files added"),
        )
        end = int(search.end.timestamp() * 1e9)
        lines = [
            LogLine(
                ns=str(end - (n + 1) * 700_000_000),
                at=datetime.fromtimestamp((end - (n + 1) * 700_000_000) / 1e9, tz=UTC),
                line=self.world.text or messages[n % 4][1],
                labels={
                    "node": ("web-1", "db-primary")[n % 2],
                    "unit": ("nginx.service", "postgresql@15-main.service")[n % 2],
                    "level": messages[n % 4][0],
                },
            )
            for n in range(0 if self.world.mode == "empty" else 60)
        ]
        found = [one for one in lines if search.regex or search.text in one.line]
        return LogPage(
            lines=tuple(found),
            query=query,
            more=bool(found),
            empty_reason=""
            if found
            else "no line of the last hour contains that text; 4 121 lines were searched",
        )

    def label_values(self, actor: Actor, label: str, *, node: str = "") -> Sequence[str]:
        if self.world.failing():
            raise UnreachableError("the log store does not answer")
        return {
            "unit": ["nginx.service", "postgresql@15-main.service", "ssh.service"],
            "level": ["error", "info", "warning"],
        }.get(label, [])
