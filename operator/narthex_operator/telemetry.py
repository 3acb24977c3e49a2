"""The operator's own metrics."""

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from typing_extensions import override

from narthex_exporter.contract.wire import RunState
from narthex_operator.db import Database
from narthex_operator.db.models import RunRow

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


def build_registry(
    database: Database, *, version: str, watchdog_at: Callable[[], datetime | None]
) -> tuple[CollectorRegistry, Histogram]:
    """Make the registry, and the histogram of request durations that the pipeline feeds."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(RunsCollector(database))
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
