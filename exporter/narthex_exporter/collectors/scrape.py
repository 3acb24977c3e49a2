"""Run the collectors for one scrape, so that a failing or hanging one costs only its own part."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric as MetricFamily

from narthex_exporter.collectors.spec import Collector, Kind, Metric, NoData, Node, Sample, gauge
from narthex_exporter.sources.patience import Outcome, Patience

log = logging.getLogger(__name__)

DURATION: Final = gauge(
    "node_scrape_collector_duration_seconds",
    "node_exporter: Duration of a collector scrape.",
    ("collector",),
)
SUCCESS: Final = gauge(
    "node_scrape_collector_success",
    "node_exporter: Whether a collector succeeded.",
    ("collector",),
)
METRICS: Final = (DURATION, SUCCESS)
_TYPES: Final = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.UNTYPED: "unknown"}


@dataclass(slots=True)
class Scraper:
    """The collectors that are on, and the node that they read."""

    node: Node
    collectors: Sequence[Collector]
    total_seconds: float = 5.0
    _patience: Patience[str, list[Sample]] = field(
        default_factory=lambda: Patience("collector"), init=False
    )
    _failing: dict[str, str] = field(default_factory=dict, init=False)

    def names(self) -> tuple[str, ...]:
        """Name the collectors that are on."""
        return tuple(collector.name for collector in self.collectors)

    def families(self, wanted: frozenset[str] | None = None) -> Iterator[MetricFamily]:
        """Measure, with those collectors named in ``wanted`` or with all."""
        limits = {
            each.name: each.limit_seconds
            for each in self.collectors
            if wanted is None or each.name in wanted
        }
        node = self.node.fresh()
        calls = {
            each.name: _measure(each, node) for each in self.collectors if each.name in limits
        }
        outcomes = self._patience.run(
            calls, limit=limits.__getitem__, total_seconds=self.total_seconds
        )
        samples = [sample for each in outcomes.values() for sample in each.value or ()]
        return to_families([*samples, *self._about(outcomes)])

    def _about(self, outcomes: Mapping[str, Outcome[list[Sample]]]) -> Iterator[Sample]:
        for name, outcome in sorted(outcomes.items()):
            self._tell(name, outcome.error)
            yield DURATION.at(outcome.seconds, name)
            yield SUCCESS.at(1 if outcome.error is None else 0, name)

    def _tell(self, name: str, error: Exception | None) -> None:
        """Log a failure when it begins, changes or ends, not at each scrape."""
        why = "" if error is None else f"{type(error).__name__}: {error}"
        if self._failing.get(name, "") == why:
            return
        self._failing[name] = why
        if error is None:
            log.info("collector.recovered", extra={"collector": name})
        elif isinstance(error, NoData):
            log.debug("collector.no_data", extra={"collector": name, "reason": why})
        else:
            log.warning("collector.failed", extra={"collector": name, "error": why})


def _measure(collector: Collector, node: Node) -> Callable[[], list[Sample]]:
    return lambda: list(collector.collect(node))


def to_families(samples: Iterable[Sample]) -> Iterator[MetricFamily]:
    """Group samples as prometheus_client wants them; of two with the same labels one counts."""
    grouped: dict[Metric, dict[tuple[str, ...], float]] = {}
    for sample in samples:
        grouped.setdefault(sample.metric, {})[sample.values] = sample.value
    for metric in sorted(grouped, key=lambda each: each.name):
        family = MetricFamily(
            metric.name.removesuffix("_total") if metric.kind is Kind.COUNTER else metric.name,
            metric.help,
            _TYPES[metric.kind],
        )
        names = metric.labels
        for values, value in grouped[metric].items():
            family.add_sample(metric.name, dict(zip(names, values, strict=True)), value)
        yield family
