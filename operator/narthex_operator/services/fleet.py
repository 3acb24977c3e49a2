"""Show every node's figures, and one node's charts, as Prometheus has them."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from narthex_operator.clients.prometheus import Prometheus, Sample, Samples
from narthex_operator.errors import InvalidError, OperatorError, UnreachableError
from narthex_operator.services.access import Actor
from narthex_operator.services.fleet_queries import ChartPlan, chart_plans, figure_queries
from narthex_operator.services.interfaces import Nodes
from narthex_operator.services.views import (
    Chart,
    FleetView,
    NodeState,
    NodeStatus,
    NodeView,
    PartState,
    Series,
)

OVERVIEW_SECONDS: Final = 3.0
MAX_MINUTES: Final = 60 * 24 * 31
_POINTS: Final = 240
# A node's state here is decided by its record, whatever Prometheus says of it.
_UNSEEN: Final = frozenset({NodeState.JOINING, NodeState.REMOVED})
_SEVERITIES: Final = ("critical", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How one part of the product is looked at: ``look`` raises when it is not well."""

    name: str
    look: Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """What Prometheus said at one moment: figure, then node, then sample."""

    by_name: Mapping[str, Mapping[str, Sample]] = field(default_factory=dict)
    alerts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def value(self, name: str, node: str) -> float | None:
        sample = self.by_name.get(name, {}).get(node)
        return None if sample is None or not math.isfinite(sample.value) else sample.value


@dataclass(slots=True, kw_only=True)
class FleetService:
    """Figures and charts."""

    nodes: Nodes
    prometheus: Prometheus
    scrape_seconds: int
    checks: Sequence[Check] = ()
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _last: _Figures = field(default_factory=_Figures, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def overview(self, actor: Actor) -> FleetView:
        """Show every node now; where Prometheus does not answer, as it was last seen."""
        nodes = self.nodes.list(actor)
        problem = ""
        try:
            figures = self._ask()
            with self._lock:
                self._last = figures
        except UnreachableError as error:
            problem = str(error)
            with self._lock:
                figures = self._last
        now = self.now()
        return FleetView(
            nodes=tuple(self._status(node, figures, now, blind=bool(problem)) for node in nodes),
            generated_at=now,
            problem=problem,
        )

    def charts(self, actor: Actor, ref: str, *, minutes: int) -> Sequence[Chart]:
        """Give one node's charts over the last minutes."""
        if not 1 <= minutes <= MAX_MINUTES:
            raise InvalidError(f"minutes must be from 1 to {MAX_MINUTES}")
        node = self.nodes.get(actor, ref)
        step = max(self.scrape_seconds, math.ceil(minutes * 60 / _POINTS))
        end = math.floor(self.now().timestamp() / step) * step
        start = end - minutes * 60 // step * step
        times = tuple(float(at) for at in range(start, end + 1, step))
        plans = chart_plans(node.name, max(4 * self.scrape_seconds, 2 * step))
        with ThreadPoolExecutor(len(plans), thread_name_prefix="chart") as pool:
            return list(pool.map(lambda plan: self._chart(plan, times, step), plans))

    def parts(self, actor: Actor) -> Sequence[PartState]:
        """Look at every part of the product."""
        actor.require("node:read")
        with ThreadPoolExecutor(max(1, len(self.checks)), thread_name_prefix="part") as pool:
            return list(pool.map(_look, self.checks))

    def _ask(self) -> _Figures:
        """Ask for all figures at once: one query whose series carry the name of their figure."""
        samples = self.prometheus.instant(
            "\n or ".join(
                f'label_replace({query}, "figure", "{name}", "", "")'
                for name, query in figure_queries(max(4 * self.scrape_seconds, 15)).items()
            ),
            seconds=OVERVIEW_SECONDS,
        )
        by_name: dict[str, dict[str, Sample]] = {}
        alerts: dict[str, dict[str, int]] = {}
        for sample in samples:
            name, node = sample.labels.get("figure", ""), sample.labels.get("node", "")
            if name == "alerts":
                severity = sample.labels.get("severity", "")
                alerts.setdefault(node, {})[severity] = int(sample.value)
            else:
                by_name.setdefault(name, {})[node] = sample
        return _Figures(by_name=by_name, alerts=alerts)

    def _status(
        self, node: NodeView, figures: _Figures, now: datetime, *, blind: bool
    ) -> NodeStatus:
        if node.state in _UNSEEN:
            return NodeStatus(node=node, state=node.state)
        at = figures.value("at", node.name) or figures.value("last", node.name)
        age = None if at is None else max(0.0, now.timestamp() - at)
        alerts = figures.alerts.get(node.name, {})
        disk = figures.by_name.get("disk", {}).get(node.name)
        cpus = figures.value("cpus", node.name)
        return NodeStatus(
            node=node,
            state=self._state(node, figures, age, blind=blind),
            cpu_ratio=_ratio(figures.value("cpu", node.name)),
            memory_ratio=_ratio(figures.value("memory", node.name)),
            disk_ratio=_ratio(figures.value("disk", node.name)),
            disk_mountpoint=disk.labels.get("mountpoint", "")[:256] if disk else "",
            load1=figures.value("load1", node.name),
            cpus=None if cpus is None else int(cpus),
            uptime_seconds=figures.value("uptime", node.name),
            alerts_firing=sum(alerts.values()),
            alerts_severity=next((name for name in _SEVERITIES if alerts.get(name)), ""),
            sampled_at=None if at is None else datetime.fromtimestamp(at, UTC),
            age_seconds=age,
        )

    def _state(
        self, node: NodeView, figures: _Figures, age: float | None, *, blind: bool
    ) -> NodeState:
        if node.state is NodeState.PENDING:
            return node.state
        if not blind and figures.value("up", node.name) == 0:
            return NodeState.DOWN
        fresh = age is not None and age <= 3 * self.scrape_seconds
        return NodeState.UP if fresh else NodeState.STALE

    def _chart(self, plan: ChartPlan, times: tuple[float, ...], step: int) -> Chart:
        try:
            found = [
                (series, label)
                for query, label in plan.lines
                for series in self.prometheus.range(
                    query, start=times[0], end=times[-1], step=step
                )
            ]
        except UnreachableError as error:
            return plan.chart(times, (), problem=str(error))
        return plan.chart(times, [_series(series, label, times) for series, label in found])


def _series(samples: Samples, label: str, times: tuple[float, ...]) -> Series:
    if label.startswith("{"):
        label = samples.labels.get(label.strip("{}"), "")[:256]
    values = {round(at): value for at, value in samples.points if math.isfinite(value)}
    return Series(label=label, values=tuple(values.get(round(at)) for at in times))


def _ratio(value: float | None) -> float | None:
    return None if value is None else min(1.0, max(0.0, value))


def _look(check: Check) -> PartState:
    try:
        return PartState(name=check.name, ok=True, detail=check.look())
    except OperatorError as error:
        return PartState(name=check.name, ok=False, detail=str(error), hint=error.hint)
