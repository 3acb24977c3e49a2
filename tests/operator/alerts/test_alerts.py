"""Alerts: current, history, silences; repeated, late and hostile webhooks."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from narthex_operator.errors import DeniedError, InvalidError, NotFoundError
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from narthex_operator.services.alerts import AlertService
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.views import AlertState
from realstack import post
from rig import until

ADMIN = local_actor("tests")
VIEWER = Actor(id="user:9", name="vera", grants=GRANTS[Role.VIEWER])
AUDITOR = Actor(id="user:7", name="ada", grants=(GRANTS[Role.AUDITOR][0],))
START = "2026-11-24T10:00:00.123456789Z"
END = "2026-11-24T10:05:00.5Z"
ZERO = "0001-01-01T00:00:00Z"


def told(status: str = "firing", **changes: Any) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "NodeDown", "severity": "critical", "node": "web-1",
                   "instance": "10.0.0.1:19100"},
        "annotations": {"summary": "The node does not answer."},
        "startsAt": START,
        "endsAt": END if status == "resolved" else ZERO,
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "00000000deadbeef",
        **changes,
    }  # fmt: skip


def webhook(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}", "status": "firing", "alerts": list(alerts)}


@pytest.mark.parametrize(
    "order", list(itertools.permutations([told(), told(), told("resolved")])), ids=str
)
def test_webhooks_may_come_twice_and_in_any_order(
    lonely: AlertService, order: tuple[dict[str, Any], ...]
) -> None:
    for alert in order:
        assert lonely.receive(webhook(alert)) == 1
    (row,) = lonely.history(ADMIN).alerts
    assert row.state is AlertState.RESOLVED
    assert row.ended_at == datetime(2026, 11, 24, 10, 5, 0, 500000, tzinfo=UTC)
    assert row.started_at == datetime(2026, 11, 24, 10, 0, 0, 123000, tzinfo=UTC)


def test_the_history_is_newest_first_and_by_node(lonely: AlertService) -> None:
    lonely.receive(webhook(told()))
    later = "2026-11-24T11:00:00Z"
    other = {"alertname": "X", "node": "web-2"}
    lonely.receive(webhook(told(startsAt=later), told(labels=other, fingerprint="1")))
    assert [one.started_at.hour for one in lonely.history(ADMIN).alerts] == [11, 10, 10]
    assert [one.name for one in lonely.history(ADMIN, node="web-2").alerts] == ["X"]
    assert len(lonely.history(ADMIN, limit=1).alerts) == 1


def test_without_alertmanager_what_is_remembered_is_shown_as_such(lonely: AlertService) -> None:
    lonely.receive(webhook(told()))
    view = lonely.current(ADMIN)
    assert [one.name for one in view.alerts] == ["NodeDown"]
    assert "Alertmanager" in view.problem
    assert "Prometheus" in view.problem


def test_the_watchdog_is_heard_and_not_shown(lonely: AlertService) -> None:
    assert lonely.watchdog_at is None
    lonely.receive(webhook(told(labels={"alertname": "Watchdog"})))
    assert lonely.watchdog_at is not None
    assert lonely.history(ADMIN).alerts == ()


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"version": "3", "alerts": []},
        {"version": "4", "alerts": "none"},
        {"version": "4", "alerts": [{"status": "firing"}]},
        webhook(told(fingerprint="../../etc")),
        webhook(told(startsAt="yesterday")),
        webhook(told(labels={"a": {"b": 1}})),
        {"version": "4", "alerts": [told()] * 10_001},
    ],
    ids=range(8),
)
def test_what_is_no_webhook_is_refused(lonely: AlertService, payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        lonely.receive(payload)
    assert lonely.history(ADMIN).alerts == ()


def test_hostile_text_is_kept_as_text_and_bounded(lonely: AlertService) -> None:
    evil = {
        "alertname": "<script>alert(1)</script>",
        "node": "'; DROP TABLE alerts; --",
        "severity": "x" * 10_000,
        **{f"label{n}": "y" for n in range(1000)},
    }
    lonely.receive(webhook(told(labels=evil, annotations={"summary": "z" * 100_000})))
    (row,) = lonely.history(ADMIN).alerts
    assert row.name == "<script>alert(1)</script>"
    assert lonely.history(ADMIN, node="'; DROP TABLE alerts; --").alerts == (row,)
    assert len(row.summary) == 2000
    assert len(row.labels) == 64


def raise_alert(service: AlertService, name: str, **labels: str) -> str:
    """Have Prometheus' place taken by ourselves: tell Alertmanager of an alert."""
    post(
        f"{service.alertmanager.service.url}/api/v2/alerts",
        [{"labels": {"alertname": name, "severity": "warning", "node": "web-1", **labels},
          "annotations": {"summary": "made by a test"}}],
    )  # fmt: skip
    return name


def shown(service: AlertService, name: str) -> Any:
    return next((one for one in service.current(ADMIN).alerts if one.name == name), None)


def test_an_alert_arrives_is_silenced_unsilenced_and_kept(service: AlertService) -> None:
    name = raise_alert(service, f"Real{uuid.uuid4().hex[:8]}")
    alert = until(lambda: shown(service, name), what="Alertmanager has it")
    assert alert.state is AlertState.FIRING
    kept = until(
        lambda: [x for x in service.history(ADMIN, node="web-1").alerts if x.name == name],
        what="the webhook has told of it",
    )
    assert [x.id for x in kept] == [alert.id]
    silence = service.silence(
        ADMIN, alert.id, duration=timedelta(hours=1), comment="known, being repaired"
    )

    def silenced() -> Any:
        found = shown(service, name)
        return found if found and found.state is AlertState.SILENCED else None

    quiet = until(silenced, what="it is silenced")
    assert quiet.silence.comment == "known, being repaired"
    assert quiet.silence.created_by == "tests"
    service.poll()
    assert service.history(ADMIN).alerts[0].state is AlertState.FIRING
    service.unsilence(ADMIN, silence.id)
    until(
        lambda: shown(service, name).state is AlertState.FIRING,
        what="it is no longer silenced",
    )
    with pytest.raises(NotFoundError):
        service.unsilence(ADMIN, silence.id)
    audit: AuditLedger = service.audit
    events = [row.event for row in reversed(audit.list(ADMIN).rows)]
    assert events == ["alert.silence-requested", "alert.silenced",
                      "alert.unsilence-requested", "alert.unsilenced"]  # fmt: skip


def test_an_alert_that_no_webhook_told_of_is_found_by_polling(service: AlertService) -> None:
    name = raise_alert(service, f"Polled{uuid.uuid4().hex[:8]}")
    until(lambda: shown(service, name), what="Alertmanager has it")
    service.poll()
    service.poll()
    found = [x for x in service.history(ADMIN).alerts if x.name == name]
    assert len(found) == 1


def test_an_alert_whose_end_was_never_told_ends_when_it_is_gone(service: AlertService) -> None:
    service.now = lambda: datetime.now(UTC) - timedelta(minutes=5)
    service.receive(webhook(told()))
    service.now = lambda: datetime.now(UTC)
    service.poll()
    (row,) = [x for x in service.history(ADMIN).alerts if x.name == "NodeDown"]
    assert row.state is AlertState.RESOLVED
    assert row.ended_at is not None


def test_a_pending_alert_is_shown_before_it_fires(service: AlertService) -> None:
    alert = until(lambda: shown(service, "Later"), what="Prometheus has evaluated it")
    assert (alert.state, alert.node_name) == (AlertState.PENDING, "web-1")
    assert all(one.name != "Later" for one in service.current(ADMIN, node="web-2").alerts)


@pytest.mark.parametrize(
    ("duration", "comment"),
    [
        (timedelta(0), "x"),
        (timedelta(days=31), "x"),
        (timedelta(hours=1), " "),
        (timedelta(hours=1), "x" * 501),
    ],
)
def test_a_silence_needs_a_time_and_a_reason(
    lonely: AlertService, duration: timedelta, comment: str
) -> None:
    with pytest.raises(InvalidError):
        lonely.silence(ADMIN, "0-1", duration=duration, comment=comment)


def test_who_may_only_see_cannot_silence(lonely: AlertService) -> None:
    with pytest.raises(DeniedError):
        lonely.silence(VIEWER, "0-1", duration=timedelta(hours=1), comment="x")
    with pytest.raises(DeniedError):
        lonely.unsilence(VIEWER, "0")
    with pytest.raises(DeniedError):
        lonely.current(AUDITOR)
    with pytest.raises(DeniedError):
        lonely.history(AUDITOR)
