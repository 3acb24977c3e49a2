"""Add up what falls into the windows of a metric query."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from narthex_logstore.arithmetic import Series
from narthex_logstore.block import Block
from narthex_logstore.model import Labels, Limits, QueryError


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The moments at which a metric query is evaluated; Unix nanoseconds, both ends included."""

    start_ns: int
    end_ns: int
    step_ns: int

    @property
    def steps(self) -> int:
        """How many moments there are."""
        return (self.end_ns - self.start_ns) // self.step_ns + 1


class Cells:
    """Add up windows that end at each step, as differences: an entry costs two additions."""

    def __init__(self, window: Window, range_ns: int, limits: Limits) -> None:
        self.window = window
        self.range_ns = range_ns
        self.limits = limits
        self.steps = window.steps
        self.found: dict[Labels, tuple[array[float], array[float]]] = {}

    def span(self, ts: int) -> tuple[int, int]:
        """Name the first and the last step whose window (step - range, step] holds a time."""
        since = ts - self.window.start_ns
        step = self.window.step_ns
        return max(0, -(-since // step)), min(self.steps - 1, (since + self.range_ns - 1) // step)

    def same(self, first_ts: int, last_ts: int) -> bool:
        """Tell whether all times between two are in the same windows."""
        return self.span(first_ts) == self.span(last_ts)

    def parts(self, block: Block) -> Iterator[tuple[int, int, int]]:
        """Cut a block where windows begin and end: a time, first entry, the one behind the last.

        Entries are sorted by time, so that a part costs one search and no look at its entries.
        """
        start, step, range_ns = self.window.start_ns, self.window.step_ns, self.range_ns
        first, count = 0, len(block.times)
        while first < count:
            ts = block.time(first)
            since = ts - start
            entered = -(-since // step) * step + 1
            left = ((since + range_ns - 1) // step + 1) * step - range_ns + 1
            until = start + min(entered, left) - block.packed.min_ts
            last = bisect_left(block.times, until, first + 1)
            yield ts, first, last
            first = last

    def add(self, key: Labels, ts: int, count: float, weight: float) -> None:
        """Count entries of one time, or of times that are in the same windows."""
        first, last = self.span(ts)
        if first > last:
            return
        cells = self.found.get(key)
        if cells is None:
            if (len(self.found) + 1) * self.steps > self.limits.cells_per_query:
                raise too_many_series(len(self.found))
            empty = bytes(8 * (self.steps + 1))
            cells = self.found[key] = (array("d", empty), array("d", empty))
        counts, weights = cells
        counts[first] += count
        counts[last + 1] -= count
        weights[first] += weight
        weights[last + 1] -= weight

    def series(self, divisor: float) -> Series:
        """Give the sums."""
        return {
            key: [
                weight / divisor if count > 0 else None
                for count, weight in zip(
                    list(accumulate(counts))[:-1], list(accumulate(weights))[:-1], strict=True
                )
            ]
            for key, (counts, weights) in self.found.items()
        }


def too_many_series(count: int) -> QueryError:
    """Word the refusal of a query whose answer has too many series."""
    return QueryError(
        f"maximum of series ({count}) reached for a single query; "
        "consider reducing query cardinality by adding more specific stream selectors, "
        "reducing the time range, or aggregating results with functions like sum(), count() or "
        "topk()"
    )
