"""The whole operator over real TLS."""

import contextlib
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from narthex_exporter.contract.wire import new_run_id
from narthex_operator.app import running
from narthex_operator.config import ConfigError, OperatorConfig
from narthex_operator.db.models import AlertRow
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.retention import Retention
from realnode import RealNode
from realoperator import Operator
from rig import until

SIGNAL = "/api/v1/nodes/web-1/actions/process.signal"


@pytest.fixture
def node(tmp_path: Path, signer: SignerClient, operator: Operator) -> Iterator[RealNode]:
    with real_node(tmp_path, signer, operator) as node:
        yield node


@contextlib.contextmanager
def real_node(folder: Path, signer: SignerClient, operator: Operator) -> Iterator[RealNode]:
    node = RealNode(folder / "node", signer)
    with node.front(), node.actor():
        node.enter(operator.parts.core.database)
        yield node


@pytest.fixture
def victim() -> Iterator[dict[str, Any]]:
    process = subprocess.Popen(["sleep", "300"])
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    yield {"pid": process.pid, "start_ticks": int(ticks), "signal": "TERM"}
    process.kill()
    process.wait()


def test_it_is_healthy_ready_and_lists_nothing_at_first(operator: Operator) -> None:
    assert operator.call("GET", "/-/healthy").json() == {"status": "healthy"}
    assert operator.call("GET", "/-/ready").json() == {"status": "ready"}
    assert operator.call("GET", "/api/v1/nodes").json() == {"items": [], "next": None}


def test_a_process_is_stopped_through_the_api(
    operator_on_each: Operator, tmp_path: Path, signer: SignerClient, victim: dict[str, Any]
) -> None:
    with real_node(tmp_path, signer, operator_on_each):
        stop_a_process(operator_on_each, victim)


def stop_a_process(operator: Operator, victim: dict[str, Any]) -> None:
    plan = operator.call("POST", f"{SIGNAL}/plans", json={"params": victim}).json()
    assert plan["confirm"] == "reason"
    key = new_run_id()
    body = {"params": victim, "plan": plan["plan"]["digest"], "reason": "a test"}
    first = operator.call("POST", f"{SIGNAL}/runs", json=body, headers={"Idempotency-Key": key})
    again = operator.call("POST", f"{SIGNAL}/runs", json={**body, "run_id": key})
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["Location"] == f"/api/v1/runs/{key}"

    def ended() -> Any:
        run = operator.call("GET", f"/api/v1/runs/{key}").json()
        return run if run["finished_at"] else None

    assert until(ended, what="the run has ended")["state"] == "succeeded"
    rows = operator.call("GET", f"/api/v1/audit?run={key}").json()
    assert [row["event"] for row in rows["items"]] == ["run.finished", "run.requested"]
    assert rows["intact"]
    late = operator.call("DELETE", f"/api/v1/runs/{key}")
    assert late.status_code == 409


def test_a_query_and_what_a_node_can_do_are_answered(operator: Operator, node: RealNode) -> None:
    info = operator.call("POST", "/api/v1/nodes/web-1/queries/host.info", json={})
    assert info.json()["cpus"] >= 1
    actor = operator.call("GET", "/api/v1/nodes/web-1/actor").json()
    assert actor["off_reason"] == ""
    wrong = operator.call("POST", f"{SIGNAL}/plans", json={"params": {"pid": "x"}}).json()
    assert wrong["errors"][0]["path"].startswith("params.")


def test_prometheus_learns_which_nodes_to_scrape(operator: Operator, node: RealNode) -> None:
    operator.call("POST", "/api/v1/nodes", json={"name": "later", "address": "127.0.0.1:7"})
    reply = operator.call("GET", "/api/v1/sd/prometheus", headers=operator.secret("sd.token"))
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["X-Prometheus-Refresh-Interval-Seconds"] == "3"
    assert reply.json() == [
        {
            "targets": [node.address],
            "labels": {
                "__meta_narthex_node_id": node.id,
                "__meta_narthex_name": "web-1",
                "__meta_narthex_group": "",
            },
        }
    ]


def test_alertmanager_s_webhook_reaches_the_history(operator: Operator) -> None:
    alert = {
        "status": "firing", "labels": {"alertname": "NodeDown", "node": "web-1"},
        "annotations": {}, "startsAt": "2026-11-24T10:00:00Z", "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "ab",
    }  # fmt: skip
    told = operator.call(
        "POST",
        "/api/v1/alertmanager/webhook",
        json={"version": "4", "alerts": [alert], "receiver": "operator"},
        headers=operator.secret("webhook.token"),
    )
    assert (told.status_code, told.json()) == (202, {"alerts": 1})
    kept = operator.call("GET", "/api/v1/alerts/history?node=web-1").json()["items"]
    assert [one["name"] for one in kept] == ["NodeDown"]
    current = operator.call("GET", "/api/v1/alerts").json()
    assert "does not answer" in current["problem"]


def test_logs_and_fleet_say_who_is_away(operator: Operator, node: RealNode) -> None:
    assert "log store" in operator.call("GET", "/api/v1/logs").json()["empty_reason"]
    fleet = operator.call("GET", "/api/v1/fleet").json()
    assert "Prometheus" in fleet["problem"]
    assert [one["cpu_ratio"] for one in fleet["nodes"]] == [None]
    parts = {
        one["name"]: one["ok"] for one in operator.call("GET", "/api/v1/parts").json()["items"]
    }
    assert parts == {
        "Signer": True, "Database": True, "Prometheus": False, "Alertmanager": False,
        "Log store": False, "Watchdog alert": True,
    }  # fmt: skip


def test_the_operator_tells_its_own_metrics(operator: Operator) -> None:
    operator.call("GET", "/-/healthy")
    text = operator.call("GET", "/metrics", headers=operator.secret("sd.token")).text
    for name in (
        "narthex_operator_build_info{",
        'narthex_operator_runs{state="succeeded"} 0.0',
        "narthex_operator_http_request_duration_seconds_bucket{",
        "process_resident_memory_bytes",
    ):
        assert name in text


def test_enrolment_is_open_to_strangers_and_proves_each_request(operator: Operator) -> None:
    ca = operator.call("GET", "/pki/ca.pem")
    assert ca.text.startswith("-----BEGIN CERTIFICATE-----")
    nonce = operator.call("GET", "/api/v1/enrolment/nonce").json()["nonce"]
    body = {"node": "web-1", "csr": "x", "nonce": nonce, "mac": "0" * 64}
    refused = operator.call("POST", "/api/v1/enrolment/certificates", json=body)
    assert 400 <= refused.status_code < 500
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_what_ended_long_ago_is_forgotten(operator: Operator) -> None:
    now = datetime.now(UTC)
    ends = (now - timedelta(days=401), now - timedelta(days=1), None)
    with operator.parts.core.database.session() as session:
        for number, end in enumerate(ends):
            session.add(
                AlertRow(
                    fingerprint=str(number),
                    name="A",
                    status="resolved",
                    labels={},
                    annotations={},
                    started_at=now - timedelta(days=500),
                    ended_at=end,
                    first_seen_at=now,
                    last_seen_at=now,
                )
            )
    Retention(database=operator.parts.core.database).tidy()
    with operator.parts.core.database.reading() as session:
        left = session.scalars(select(AlertRow.fingerprint).order_by(AlertRow.fingerprint)).all()
    assert left == ["1", "2"]


def test_debugging_cannot_be_switched_on(
    config: OperatorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", "1")
    with pytest.raises(ConfigError, match="FLASK_DEBUG"), running(config):
        pass
