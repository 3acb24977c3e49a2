"""The alerts service with a real Alertmanager, Prometheus and database."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from narthex_operator.clients.alertmanager import alertmanager_client
from narthex_operator.clients.prometheus import prometheus_client
from narthex_operator.db import Database
from narthex_operator.services.alerts import AlertService
from narthex_operator.services.audit import AuditLedger
from realstack import alertmanager, free_port, prometheus, site

RULES = """
groups:
  - name: tests
    rules:
      - alert: Later
        expr: vector(1)
        for: 1h
        labels: {severity: warning, node: web-1}
        annotations: {summary: not yet}
"""


@dataclass
class Stack:
    """Where Alertmanager and Prometheus are, and whom the webhook reaches."""

    prometheus: str
    alertmanager: str = ""
    service: AlertService | None = None
    received: list[Any] = field(default_factory=list)

    def hook(self, _path: str, body: bytes) -> tuple[int, str, bytes]:
        document = json.loads(body)
        self.received.append(document)
        if self.service is not None:
            self.service.receive(document)
        return 202, "application/json", b"{}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("alerting")
    (folder / "rules.yml").write_text(RULES)
    config = {
        "global": {"evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")],
    }
    with prometheus(folder / "prometheus", config) as url:
        found = Stack(prometheus=url)
        with (
            site(found.hook) as hook,
            alertmanager(folder / "alertmanager", hook) as found.alertmanager,
        ):
            yield found


@pytest.fixture
def service(stack: Stack, database: Database) -> Iterator[AlertService]:
    made = AlertService(
        database=database,
        audit=AuditLedger(database=database),
        alertmanager=alertmanager_client(stack.alertmanager),
        prometheus=prometheus_client(stack.prometheus),
    )
    stack.service = made
    yield made
    stack.service = None


@pytest.fixture
def lonely(database: Database) -> AlertService:
    """A service whose Alertmanager and Prometheus are away."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    return AlertService(
        database=database,
        audit=AuditLedger(database=database),
        alertmanager=alertmanager_client(nowhere),
        prometheus=prometheus_client(nowhere),
    )
