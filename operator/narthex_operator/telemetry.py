"""The operator's own metrics."""

import logging
import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from narthex_exporter.contract.wire import RunState
from narthex_operator.db import Database
from narthex_operator.db.models import (
    AuditEntry,
    Node,
    NodeAuditHead,
    NodeAuditProblem,
    RunRow,
)
from narthex_operator.services.crosscheck import KINDS
from narthex_operator.services.verification import Verified

log = logging.getLogger(__name__)

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RunsCollector(Collector):
    """Counts runs by state, in the database, whenever it is asked."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            with self.database.reading() as session:
                counted = session.execute(
                    select(RunRow.state, func.count()).group_by(RunRow.state)
                ).all()
        except SQLAlchemyError as error:
            # Its own figure is missing; the others are still told.
            log.warning("metrics.runs-failed", extra={"error": type(error).__name__})
            return
        yield self._family({str(state): float(count) for state, count in counted})

    def _family(self, counts: Mapping[str, float]) -> GaugeMetricFamily:
        family = GaugeMetricFamily("narthex_operator_runs", "Runs by state.", labels=["state"])
        for state in RunState:
            family.add_metric([state], counts.get(state, 0.0))
        return family


class AuthorisedCollector(Collector):
    """Counts the runs that were authorised, by node: from the ledger, which only grows.

    By the node's name, as Prometheus knows it: one that joined anew under its name goes on.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._counts: Counter[str] = Counter()
        self._seq = 0
        self._lock = threading.Lock()

    @override
    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "narthex_operator_runs_authorised",
            "Runs that somebody was allowed to ask a node for.",
            labels=["node"],
        )
        try:
            counts = self._counted()
        except SQLAlchemyError as error:
            log.warning("metrics.authorised-failed", extra={"error": type(error).__name__})
            return
        for name, count in sorted(counts.items()):
            family.add_metric([name], count)
        yield family

    def _counted(self) -> dict[str, int]:
        """Count what is new since the last time; each present node is there, with 0 at first."""
        new = (
            select(AuditEntry.node_name, func.count(), func.max(AuditEntry.seq))
            .where(AuditEntry.event == "run.requested", AuditEntry.seq > self._seq)
            .group_by(AuditEntry.node_name)
        )
        present = select(Node.name).where(Node.removed_at.is_(None))
        with self._lock, self.database.reading() as session:
            for name, count, last in session.execute(new).all():
                self._counts[name] += count
                self._seq = max(self._seq, last)
            return {name: self._counts[name] for name in session.scalars(present)}


class NodeAuditCollector(Collector):
    """Tells how far each node's own audit was read, and what contradicts it."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self.database, self.clock = database, clock

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        try:
            with self.database.reading() as session:
                known = select(Node.id, Node.name).where(
                    Node.removed_at.is_(None), Node.approved_at.is_not(None)
                )
                names = {node: name for node, name in session.execute(known)}  # noqa: C416 - rows
                kinds = select(NodeAuditProblem.node, NodeAuditProblem.kind)
                problems = {(node, kind) for node, kind in session.execute(kinds)}
                heads = session.execute(
                    select(
                        NodeAuditHead.node, func.max(NodeAuditHead.seq), func.max(NodeAuditHead.at)
                    ).group_by(NodeAuditHead.node)
                ).all()
        except SQLAlchemyError as error:
            log.warning("metrics.node-audits-failed", extra={"error": type(error).__name__})
            return
        yield self._problems(names, problems)
        yield from self._heads(
            {names[node]: (seq, at) for node, seq, at in heads if node in names}
        )

    def _problems(
        self, names: Mapping[str, str], problems: set[tuple[str, str]]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(
            "narthex_operator_node_audit_problem",
            "Whether something contradicts a node's own audit, until somebody accepts it.",
            labels=["node", "kind"],
        )
        for node, name in sorted(names.items(), key=lambda item: item[1]):
            for kind in KINDS:
                family.add_metric([name, kind], float((node, kind) in problems))
        return family

    def _heads(self, heads: Mapping[str, tuple[int, datetime]]) -> Iterator[GaugeMetricFamily]:
        seqs = GaugeMetricFamily(
            "narthex_operator_node_audit_verified_seq",
            "The newest row of a node's audit that was read and proven.",
            labels=["node"],
        )
        ages = GaugeMetricFamily(
            "narthex_operator_node_audit_age_seconds",
            "How long ago a node's audit was last read.",
            labels=["node"],
        )
        now = self.clock()
        for name, (seq, at) in sorted(heads.items()):
            seqs.add_metric([name], seq)
            ages.add_metric([name], max(0.0, (now - at).total_seconds()))
        yield seqs
        yield ages


def _verification_gauges(
    registry: CollectorRegistry, verified: Callable[[], Verified | None]
) -> None:
    def told(name: str, text: str, read: Callable[[Verified], float]) -> None:
        def value() -> float:
            found = verified()
            return read(found) if found is not None else 0.0

        gauge = Gauge(f"narthex_operator_audit_verified_{name}", text, registry=registry)
        gauge.set_function(value)

    told(
        "timestamp_seconds",
        "When the whole ledger was last proven; 0 for never.",
        lambda found: found.at.timestamp(),
    )
    told(
        "up_to",
        "The last row of the ledger that was proven then.",
        lambda found: found.ledger.up_to,
    )
    # Nothing is known to be broken before the first proof; the time tells that there was none.
    Gauge(
        "narthex_operator_audit_verified_intact",
        "Whether nothing contradicted the ledger and its checkpoints.",
        registry=registry,
    ).set_function(lambda: float(found.ledger.intact) if (found := verified()) else 1.0)


def build_registry(
    database: Database,
    *,
    version: str,
    watchdog_at: Callable[[], datetime | None],
    verified: Callable[[], Verified | None] = lambda: None,
) -> tuple[CollectorRegistry, Histogram]:
    """Make the registry, and the histogram of request durations that the pipeline feeds."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RunsCollector(database))
    registry.register(AuthorisedCollector(database))
    registry.register(NodeAuditCollector(database, lambda: datetime.now(UTC)))
    _verification_gauges(registry, verified)
    Gauge(
        "narthex_operator_build_info",
        "Always 1; its labels tell what runs.",
        ["version", "pythonversion"],
        registry=registry,
    ).labels(version, platform.python_version()).set(1)
    Gauge(
        "narthex_operator_watchdog_timestamp_seconds",
        "When the alert that fires always was last heard of; 0 for never.",
        registry=registry,
    ).set_function(lambda: at.timestamp() if (at := watchdog_at()) else 0.0)
    durations = Histogram(
        "narthex_operator_http_request_duration_seconds",
        "How long requests took.",
        ["method", "handler", "code"],
        registry=registry,
        buckets=_BUCKETS,
    )
    return registry, durations
