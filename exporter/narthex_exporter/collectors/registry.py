"""Speak prometheus_client's language: its metric families, and a collector for its registries.

The exporter itself needs none of it, and loads none: see ADR 0013. It is for who embeds the
collectors elsewhere, and for the tests that hold our encoder to the library's.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import Metric as MetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from narthex_exporter.collectors.scrape import Scraper
from narthex_exporter.collectors.spec import Block, Kind, Metric, Sample
from narthex_exporter.overriding import override

_TYPES: Final = {kind: "unknown" if kind is Kind.UNTYPED else str(kind) for kind in Kind}
# A sample's name, and its labels.
_Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(slots=True)
class Registered(Collector):
    """The collectors, as prometheus_client's registry takes them."""

    scraper: Scraper

    @override
    def collect(self) -> Iterator[MetricFamily]:
        """Measure all."""
        return to_families(self.scraper.samples())


def to_families(samples: Iterable[Sample | Block]) -> Iterator[MetricFamily]:
    """Group samples as prometheus_client wants them; of two with the same labels one counts."""
    grouped: dict[str, tuple[Metric, dict[_Series, float]]] = {}
    for metric, name, labels, value in _unpacked(samples):
        series = (name, frozenset(labels.items()))
        grouped.setdefault(metric.name, (metric, {}))[1][series] = value
    for _, (metric, values) in sorted(grouped.items()):
        counts = metric.kind is Kind.COUNTER and metric.name.endswith("_total")
        family = MetricFamily(
            metric.name.removesuffix("_total") if counts else metric.name,
            metric.help,
            _TYPES[metric.kind] if counts or metric.kind is not Kind.COUNTER else "unknown",
        )
        for (name, pairs), value in values.items():
            found = dict(pairs)
            labels = {each: found.pop(each) for each in metric.labels if each in found}
            family.add_sample(name, {**labels, **dict(sorted(found.items()))}, value)
        yield family


def _unpacked(
    samples: Iterable[Sample | Block],
) -> Iterator[tuple[Metric, str, dict[str, str], float]]:
    for sample in samples:
        metric = sample.metric
        if isinstance(sample, Sample):
            labels = dict(zip(metric.labels, sample.values, strict=True))
            yield metric, metric.name, labels, sample.value
            continue
        for family in text_string_to_metric_families(sample.text):
            for each in family.samples:
                yield metric, each.name, each.labels, each.value
