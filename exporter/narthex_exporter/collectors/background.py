"""Run the collectors whose sources are slow, each on a schedule of its own."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from narthex_exporter.collectors.spec import Collector, Node
from narthex_exporter.sources.patience import Outcome, Patience

if TYPE_CHECKING:
    from narthex_exporter.collectors.scrape import Look

# What may take longer is done in a lane of its own, where it delays nothing quick.
_QUICK_SECONDS = 5.0
# A look that is older than so many intervals says nothing about now, and is no longer told.
_STALE_INTERVALS = 3
_TICK_SECONDS = 1.0


@dataclass(slots=True)
class Background:
    """Looks, one after the other in two threads, quick ones apart; a scrape gets the last of each.

    ``look`` runs one collector. Where a look fails, the one before it is told until it is stale,
    together with the failure.
    """

    node: Node
    collectors: Sequence[Collector]
    look: "Callable[[Collector, Node], Look]"
    clock: Callable[[], float] = time.monotonic
    _outcomes: "dict[str, Outcome[Look]]" = field(default_factory=dict, init=False)
    _good: "dict[str, tuple[float, Look]]" = field(default_factory=dict, init=False)
    _due: dict[str, float] = field(default_factory=dict, init=False)
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)

    def start(self) -> None:
        """Begin to look; a lane without collectors has no thread."""
        for lane in self._lanes():
            if lane:
                thread = threading.Thread(target=self._loop, args=(lane,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def run_due(self) -> None:
        """Make the looks that are due now."""
        for lane in self._lanes():
            self._run_due(lane, Patience("slow-collector"))

    def _lanes(self) -> tuple[list[Collector], list[Collector]]:
        quick = [each for each in self.collectors if each.limit_seconds <= _QUICK_SECONDS]
        return quick, [each for each in self.collectors if each not in quick]

    def _run_due(self, lane: Sequence[Collector], patience: "Patience[str, Look]") -> None:
        for collector in lane:
            now = self.clock()
            if self._due.get(collector.name, 0.0) <= now and not self._stopping.is_set():
                self._run(collector, patience)

    def outcomes(self, wanted: frozenset[str]) -> "dict[str, Outcome[Look]]":
        """Give the last look of each, and how it ended."""
        now = self.clock()
        found = {}
        for collector in self.collectors:
            outcome = self._outcomes.get(collector.name)
            if outcome is None or collector.name not in wanted:
                continue
            at, good = self._good.get(collector.name, (0.0, None))
            fresh = now - at <= _STALE_INTERVALS * self._interval(collector)
            found[collector.name] = Outcome(
                value=good if fresh else None, error=outcome.error, seconds=outcome.seconds
            )
        return found

    def _run(self, collector: Collector, patience: "Patience[str, Look]") -> None:
        name, node = collector.name, self.node.fresh()
        outcome = patience.run(
            {name: lambda: self.look(collector, node)},
            limit=lambda _: collector.limit_seconds,
            total_seconds=collector.limit_seconds + 1.0,
        )[name]
        now = self.clock()
        if outcome.value is not None:
            self._good[name] = (now, outcome.value)
        self._outcomes[name] = outcome
        self._due[name] = now + self._interval(collector)

    def _interval(self, collector: Collector) -> float:
        assert collector.interval is not None  # noqa: S101 - only such are given
        return self.node.setting(collector.interval)

    def _loop(self, lane: Sequence[Collector]) -> None:
        patience: Patience[str, Look] = Patience("slow-collector")
        while not self._stopping.is_set():
            self._run_due(lane, patience)
            self._stopping.wait(_TICK_SECONDS)
