"""Figures and charts, from a real Prometheus that scrapes a pretended machine."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from narthex_operator.clients.prometheus import prometheus_client
from narthex_operator.errors import DeniedError, InvalidError, NotFoundError, UnreachableError
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from narthex_operator.services.fleet import Check, FleetService
from narthex_operator.services.views import FleetView, NodeState, NodeStatus, NodeView
from realstack import Machine, free_port, prometheus, site
from rig import until

ADMIN = local_actor("tests")
AUDITOR = Actor(id="user:2", name="ada", grants=GRANTS[Role.AUDITOR])
STATES = {
    "web-1": NodeState.UP,
    "web-2": NodeState.UP,
    "new-1": NodeState.JOINING,
    "new-2": NodeState.PENDING,
}
RULES = """
groups:
  - name: tests
    rules:
      - {alert: Loud, expr: 'up{node="web-1"} >= 0', labels: {severity: critical}}
      - {alert: Quiet, expr: 'up{node="web-1"} >= 0', labels: {severity: info}}
      - {alert: Watchdog, expr: 'up{node="web-1"} >= 0', labels: {severity: none}}
"""


class Nodes:
    """The records of four nodes."""

    def list(self, actor: Actor) -> list[NodeView]:
        actor.require("node:read")
        return [self._view(name) for name in STATES]

    def get(self, actor: Actor, ref: str) -> NodeView:
        actor.require("node:read")
        if ref not in STATES:
            raise NotFoundError("no such node")
        return self._view(ref)

    def _view(self, name: str) -> NodeView:
        return NodeView(
            id=f"{name}-x", name=name, address="127.0.0.1:1", state=STATES[name],
            added_at=datetime.now(UTC),
        )  # fmt: skip


@dataclass
class Watched:
    """A machine, and the Prometheus that scrapes it."""

    machine: Machine
    url: str

    def service(self, url: str = "", **more: object) -> FleetService:
        return FleetService(
            nodes=Nodes(),  # type: ignore[arg-type]
            prometheus=prometheus_client(url or self.url),
            scrape_seconds=1,
            **more,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    machine = Machine()
    (folder / "rules.yml").write_text(RULES)
    with site(machine.answer) as url:
        target = url.removeprefix("http://")
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": "node",
                    "static_configs": [
                        {"targets": [target], "labels": {"node": "web-1"}},
                        {"targets": ["127.0.0.1:9"], "labels": {"node": "web-2"}},
                    ],
                }
            ],
        }
        with prometheus(folder, config) as server:
            found = Watched(machine, server)
            until(lambda: row(found.service().overview(ADMIN)).sampled_at, what="the first scrape")
            yield found


def row(view: FleetView, name: str = "web-1") -> NodeStatus:
    return next(one for one in view.nodes if one.node.name == name)


def test_every_node_is_shown_with_its_figures(watched: Watched) -> None:
    service = watched.service()

    def whole() -> Any:
        found = row(service.overview(ADMIN))
        return found if found.cpu_ratio is not None and found.alerts_firing else None

    status = until(whole, what="a rate needs two scrapes")
    assert status.state is NodeState.UP
    assert status.cpu_ratio == pytest.approx(0.25, abs=0.05)
    assert status.memory_ratio == pytest.approx(0.6)
    assert (status.disk_ratio, status.disk_mountpoint) == (pytest.approx(0.8), "/data")
    assert (status.load1, status.cpus) == (0.5, 1)
    assert status.uptime_seconds == pytest.approx(3600, abs=60)
    assert (status.alerts_firing, status.alerts_severity) == (2, "critical")
    assert status.age_seconds is not None
    assert status.age_seconds < 3


def test_what_is_not_known_is_not_zero(watched: Watched) -> None:
    view = watched.service().overview(ADMIN)
    states = {one.node.name: one.state for one in view.nodes}
    assert states == {
        "web-1": NodeState.UP,
        "web-2": NodeState.DOWN,
        "new-1": NodeState.JOINING,
        "new-2": NodeState.PENDING,
    }
    gone = row(view, "web-2")
    assert (gone.cpu_ratio, gone.memory_ratio, gone.load1, gone.age_seconds) == (None,) * 4


def test_charts_have_a_value_or_a_gap_for_every_moment(watched: Watched) -> None:
    service = watched.service()
    until(
        lambda: all(chart.series for chart in service.charts(ADMIN, "web-1", minutes=5)),
        what="every chart has begun",
    )
    charts = service.charts(ADMIN, "web-1", minutes=5)
    assert [chart.name for chart in charts] == ["cpu", "memory", "disk", "network", "load"]
    for chart in charts:
        assert chart.problem == ""
        assert all(len(series.values) == len(chart.times) for series in chart.series)
        assert chart.query
    memory = charts[1].series[0]
    assert memory.values[-1] == pytest.approx(0.6)
    assert memory.values[0] is None
    assert {series.label for series in charts[2].series} == {"/", "/data"}
    received = next(one for one in charts[3].series if one.label == "received")
    assert received.values[-1] == pytest.approx(1000, rel=0.9)


@pytest.mark.parametrize("minutes", [0, -1, 10**9])
def test_charts_of_an_odd_length_are_refused(watched: Watched, minutes: int) -> None:
    with pytest.raises(InvalidError):
        watched.service().charts(ADMIN, "web-1", minutes=minutes)


def test_who_may_not_see_nodes_sees_no_figures(watched: Watched) -> None:
    service = watched.service()
    with pytest.raises(DeniedError):
        service.overview(AUDITOR)
    with pytest.raises(DeniedError):
        service.charts(AUDITOR, "web-1", minutes=5)
    with pytest.raises(DeniedError):
        service.parts(AUDITOR)


def test_without_prometheus_figures_are_old_and_say_so(watched: Watched) -> None:
    service = watched.service()
    service.overview(ADMIN)
    service.prometheus = prometheus_client(f"http://127.0.0.1:{free_port()}")
    service.now = lambda: datetime.fromtimestamp(time.time() + 60, UTC)
    view = service.overview(ADMIN)
    assert "Prometheus" in view.problem
    assert row(view).state is NodeState.STALE
    assert row(view).age_seconds == pytest.approx(60, abs=5)
    charts = service.charts(ADMIN, "web-1", minutes=5)
    assert all("Prometheus" in chart.problem and not chart.series for chart in charts)


def test_a_prometheus_that_hangs_costs_three_seconds_at_most() -> None:
    def hang(_path: str, _body: bytes) -> tuple[int, str, bytes]:
        time.sleep(4)
        return 200, "application/json", b"{}"

    with site(hang) as url:
        began = time.monotonic()
        view = Watched(Machine(), url).service().overview(ADMIN)
        assert time.monotonic() - began < 3.5
    assert "within 3 s" in view.problem


def test_parts_are_looked_at_and_named(watched: Watched) -> None:
    def broken() -> str:
        raise UnreachableError("it is away", hint="start it")

    checks = (Check(name="Good", look=lambda: "ready"), Check(name="Bad", look=broken))
    good, bad = watched.service(checks=checks).parts(ADMIN)
    assert (good.name, good.ok, good.detail) == ("Good", True, "ready")
    assert (bad.ok, bad.detail, bad.hint) == (False, "it is away", "start it")


def test_a_node_that_goes_down_is_seen_with_its_last_sample(watched: Watched) -> None:
    service = watched.service()
    watched.machine.down = True

    def down() -> Any:
        found = row(service.overview(ADMIN))
        return found if found.state is NodeState.DOWN else None

    status = until(down, what="the scrape has failed")
    watched.machine.down = False
    assert status.sampled_at is not None
    assert status.cpu_ratio is None or status.memory_ratio is None
