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

# A look that is older than so many intervals says nothing about now, and is no longer told.
_STALE_INTERVALS = 3
_TICK_SECONDS = 1.0


@dataclass(slots=True)
class Background:
    """Looks, one after the other in a thread of its own; a scrape is given the last of each.

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
    _patience: "Patience[str, Look]" = field(
        default_factory=lambda: Patience("slow-collector"), init=False
    )
    _stopping: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to look; without slow collectors nothing runs."""
        if not self.collectors:
            return
        self._thread = threading.Thread(target=self._loop, name="slow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def run_due(self) -> None:
        """Make the looks that are due now."""
        now = self.clock()
        for collector in self.collectors:
            if self._due.get(collector.name, 0.0) <= now and not self._stopping.is_set():
                self._run(collector)

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

    def _run(self, collector: Collector) -> None:
        name, node = collector.name, self.node.fresh()
        outcome = self._patience.run(
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

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self.run_due()
            self._stopping.wait(_TICK_SECONDS)
