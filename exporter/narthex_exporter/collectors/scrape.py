"""Run the collectors for one scrape, so that a failing or hanging one costs only its own part."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from narthex_exporter.collectors.background import Background
from narthex_exporter.collectors.spec import (
    Block,
    Collector,
    NoData,
    Node,
    Sample,
    gauge,
)
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
NO_DATA: Final = gauge(
    "narthex_collector_no_data",
    "Is 1 for a collector that has nothing to report on this machine, which is no failure.",
    ("collector",),
)
TRUNCATED: Final = gauge(
    "narthex_collector_truncated",
    "Whether a collector left things out because there were more than its limits allow.",
    ("collector",),
)
LAST_SUCCESS: Final = gauge(
    "narthex_collector_last_success_timestamp_seconds",
    "When a collector with a schedule of its own last succeeded, in unixtime.",
    ("collector",),
)
METRICS: Final = (DURATION, SUCCESS, NO_DATA, TRUNCATED, LAST_SUCCESS)
# Whatever happens, one collector does not make a scrape that Prometheus' sample_limit refuses.
_SERIES_AT_MOST: Final = 10_000
# Most of what a kernel can tell, a machine has not: it is asked again now and then, so that what
# is plugged in or loaded appears.
_ABSENT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one collector found; ``at`` is unixtime."""

    samples: Sequence[Sample | Block] = ()
    truncated: bool = False
    at: float = 0.0


@dataclass(slots=True)
class Scraper:
    """The collectors that are on, and the node that they read.

    Those with a schedule of their own are run by ``background``; until it is started, and for a
    ``Scraper`` without one, they say nothing.
    """

    node: Node
    collectors: Sequence[Collector]
    total_seconds: float = 5.0
    background: Background | None = None
    look: "Callable[[Collector, Node], Look]" = field(default_factory=lambda: look)
    absent_seconds: float = _ABSENT_SECONDS
    clock: Callable[[], float] = time.monotonic
    _patience: Patience[str, Look] = field(
        default_factory=lambda: Patience("collector"), init=False
    )
    _failing: dict[str, str] = field(default_factory=dict, init=False)
    # What a collector without data said, and until when it is believed.
    _absent: dict[str, tuple[float, Outcome[Look]]] = field(default_factory=dict, init=False)

    def names(self) -> tuple[str, ...]:
        """Name the collectors that are on."""
        return tuple(collector.name for collector in self.collectors)

    def samples(self, wanted: frozenset[str] | None = None) -> list[Sample | Block]:
        """Measure, with those collectors named in ``wanted`` or with all."""
        chosen = [each for each in self.collectors if wanted is None or each.name in wanted]
        limits = {each.name: each.limit_seconds for each in chosen if each.interval is None}
        now, absent = self.clock(), {}
        for name in self._absent.keys() & limits.keys():
            until, outcome = self._absent[name]
            if now < until:
                absent[name] = outcome
                del limits[name]
        node = self.node.fresh()
        outcomes = self._patience.run(
            {each.name: self._measure(each, node) for each in chosen if each.name in limits},
            limit=limits.__getitem__,
            total_seconds=self.total_seconds,
        )
        for name, outcome in outcomes.items():
            if isinstance(outcome.error, NoData):
                self._absent[name] = (now + self.absent_seconds, outcome)
        outcomes |= absent
        node.proc.files.sweep()
        if node.sys.files is not node.proc.files:
            node.sys.files.sweep()
        if self.background is not None:
            outcomes |= self.background.outcomes(frozenset(each.name for each in chosen))
        found: list[Sample | Block] = []
        for each in outcomes.values():
            if each.value is not None:
                found += each.value.samples
        found += self._about(chosen, outcomes)
        return found

    def _measure(self, collector: Collector, node: Node) -> Callable[[], Look]:
        return lambda: self.look(collector, node)

    def _about(
        self, chosen: Iterable[Collector], outcomes: Mapping[str, Outcome[Look]]
    ) -> Iterator[Sample]:
        for collector in sorted(chosen, key=lambda each: each.name):
            name = collector.name
            outcome = outcomes.get(name)
            if outcome is None:
                continue  # it has a schedule, and its first look is not done
            self._tell(name, outcome.error)
            yield DURATION.at(outcome.seconds, name)
            yield SUCCESS.at(1 if outcome.error is None else 0, name)
            if isinstance(outcome.error, NoData):
                yield NO_DATA.at(1, name)
            if collector.limited:
                yield TRUNCATED.at(
                    int(outcome.value is not None and outcome.value.truncated), name
                )
            if collector.interval is not None and outcome.value is not None:
                yield LAST_SUCCESS.at(outcome.value.at, name)

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


def look(collector: Collector, node: Node, *, now: Callable[[], float] = time.time) -> Look:
    """Run one collector, and cut what it finds too much of."""
    samples: list[Sample | Block] = list(collector.collect(node))
    truncated = not node.cut.isdisjoint(collector.options)
    if len(samples) > _SERIES_AT_MOST:
        del samples[_SERIES_AT_MOST:]
        truncated = True
    return Look(samples=samples, truncated=truncated, at=now())
