"""Answer queries: choose streams, scan blocks, within bounds of time, memory and rows."""

import heapq
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from narthex_logstore.arithmetic import Series, aggregate, combine
from narthex_logstore.block import Block, Header
from narthex_logstore.logql.pipeline import ERROR, Pipeline, compile_pipeline, matcher_predicate
from narthex_logstore.logql.tree import (
    Aggregate,
    Binary,
    Expr,
    Grouping,
    LogQuery,
    Matcher,
    RangeFunction,
    Scalar,
    Vector,
)
from narthex_logstore.model import SECOND, Labels, Limits, QueryError, as_labels, format_labels
from narthex_logstore.storage import Snapshot, Store, Stream
from narthex_logstore.windows import Cells, Window, too_many_series

Direction = Literal["forward", "backward"]


@dataclass(slots=True)
class Stats:
    """What a query cost."""

    lines: int = 0
    bytes: int = 0
    blocks: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One line that a query found, with all its labels."""

    ts: int
    line: bytes
    labels: Labels


@dataclass(slots=True)
class Engine:
    """Run queries against a store."""

    store: Store
    limits: Limits
    clock: Callable[[], float] = time.monotonic
    _slots: threading.BoundedSemaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = threading.BoundedSemaphore(self.limits.queries_at_a_time)

    def select(
        self, query: LogQuery, *, start_ns: int, end_ns: int, limit: int, direction: Direction
    ) -> tuple[list[Found], Stats]:
        """Find lines from start to before end, at most ``limit``. Raises QueryError."""
        if not 0 < limit <= self.limits.entries_per_query:
            raise QueryError(
                "max entries limit per query exceeded, limit > max_entries_limit "
                f"({limit} > {self.limits.entries_per_query})"
                if limit > 0
                else "limit must be a positive value"
            )
        with self._run() as run:
            pipeline = compile_pipeline(query.stages)
            nearest = _Nearest(limit, direction, self.limits.answer_bytes)
            candidates = [
                (stream, header)
                for stream in matching(self.store.streams(), query.matchers)
                for header in run.view.headers(stream.id, start_ns, end_ns)
            ]
            backward = direction == "backward"
            candidates.sort(
                key=lambda each: -each[1].max_ts if backward else each[1].min_ts,
            )
            for stream, header in candidates:
                if nearest.beyond(header.max_ts if backward else header.min_ts):
                    break
                block = run.load(header)
                base = dict(stream.labels)
                for index in _candidates(block, pipeline, run, backward=backward):
                    ts = block.time(index)
                    if nearest.beyond(ts):
                        break
                    if start_ns <= ts < end_ns:
                        _offer(nearest, pipeline, block, index, base)
            return nearest.sorted(), run.stats

    def measure(self, expr: Expr, window: Window) -> tuple[float | Series, Stats]:
        """Evaluate a metric query at each step. Raises QueryError."""
        if window.step_ns <= 0:
            raise QueryError("zero or negative query resolution step widths are not accepted")
        if window.end_ns < window.start_ns:
            raise QueryError("the query end time is before its start time")
        if window.steps > self.limits.steps_per_query:
            raise QueryError(
                "exceeded maximum resolution of 11,000 points per timeseries. "
                "Try increasing the value of the step parameter"
            )
        with self._run() as run:
            result = self._evaluate(expr, window, run)
            if isinstance(result, dict) and len(result) > self.limits.series_per_query:
                raise too_many_series(self.limits.series_per_query)
            return result, run.stats

    def _evaluate(self, expr: Expr, window: Window, run: "_Run") -> float | Series:
        if isinstance(expr, Scalar):
            return expr.value
        if isinstance(expr, Vector):
            return {(): [expr.value] * window.steps}
        if isinstance(expr, Binary):
            return combine(
                expr,
                self._evaluate(expr.left, window, run),
                self._evaluate(expr.right, window, run),
            )
        if isinstance(expr, RangeFunction):
            return self._range(expr, window, run, None)
        inner = expr.expr
        if expr.name == "sum" and isinstance(inner, RangeFunction):
            # Sums are linear: grouping as lines are read keeps few series in memory.
            return self._range(inner, window, run, expr.grouping)
        return self._aggregate(expr, window, run)

    def _aggregate(self, expr: Aggregate, window: Window, run: "_Run") -> Series:
        inner = self._evaluate(expr.expr, window, run)
        if not isinstance(inner, dict):
            raise QueryError(f"parse error : {expr.name} needs series, not a number")
        return aggregate(expr.name, inner, lambda labels: group(labels, expr.grouping))

    def _range(
        self, expr: RangeFunction, window: Window, run: "_Run", grouping: Grouping | None
    ) -> Series:
        pipeline = compile_pipeline(expr.query.stages)
        cells = Cells(window, expr.range_ns, self.limits)
        start, end = window.start_ns - expr.range_ns + 1, window.end_ns + 1
        in_bytes = expr.name.startswith("bytes_")
        for stream in matching(self.store.streams(), expr.query.matchers):
            own = group(stream.labels, grouping)
            names = {name for name, _ in stream.labels}
            for header in run.view.headers(stream.id, start, end):
                steady = not header.has_meta or _settled_by(names, grouping)
                if not pipeline.passes_everything or (in_bytes and not steady):
                    block = run.load(header)
                    for key, index, length in _measure(run, block, stream, pipeline, grouping):
                        cells.add(key, block.time(index), 1, length if in_bytes else 1)
                elif steady and cells.same(header.min_ts, header.max_ts):
                    weight = header.raw_bytes if in_bytes else header.entries
                    cells.add(own, header.min_ts, header.entries, weight)
                elif steady:
                    block = run.load(header)
                    for ts, first, last in cells.parts(block):
                        weight = sum(block.lengths[first:last]) if in_bytes else last - first
                        cells.add(own, ts, last - first, weight)
                else:
                    _count_by_meta(cells, run.load(header), dict(stream.labels), grouping)
        seconds = expr.range_ns / SECOND if expr.name.endswith("rate") else 1.0
        return cells.series(seconds)

    @contextmanager
    def _run(self) -> Iterator["_Run"]:
        if not self._slots.acquire(timeout=self.limits.query_seconds):
            raise QueryError("too many outstanding requests", status=429)
        began = self.clock()
        try:
            with self.store.snapshot() as view:
                run = _Run(view, began + self.limits.query_seconds, self.clock)
                yield run
                run.stats.seconds = self.clock() - began
        finally:
            self._slots.release()


def matching(streams: list[Stream], matchers: tuple[Matcher, ...]) -> list[Stream]:
    """Choose the streams that every matcher accepts."""
    tests = [(each.name, matcher_predicate(each)) for each in matchers]
    found = []
    for stream in streams:
        labels = dict(stream.labels)
        if all(test(labels.get(name, "")) for name, test in tests):
            found.append(stream)
    return found


def group(labels: Labels, grouping: Grouping | None) -> Labels:
    """Keep the labels that a grouping keeps."""
    if grouping is None:
        return labels
    return tuple(each for each in labels if (each[0] in grouping.names) != grouping.without)


@dataclass(slots=True)
class _Run:
    """One query under way."""

    view: Snapshot
    deadline: float
    clock: Callable[[], float]
    stats: Stats = field(default_factory=Stats)

    def load(self, header: Header) -> Block:
        """Read a block, if there is time left."""
        self.check()
        self.stats.blocks += 1
        self.stats.lines += header.entries
        self.stats.bytes += header.raw_bytes
        return self.view.load(header)

    def check(self) -> None:
        """Stop a query that has taken too long."""
        if self.clock() > self.deadline:
            raise QueryError(
                "the query took too long: narrow its time range or its labels", status=504
            )


class _Nearest:
    """Keep the ``limit`` entries nearest to the end at which a query begins to read."""

    def __init__(self, limit: int, direction: Direction, max_bytes: int) -> None:
        self.limit = limit
        self.sign = 1 if direction == "backward" else -1
        self.max_bytes = max_bytes
        self.bytes = 0
        self.order = 0
        self.heap: list[tuple[int, int, Found]] = []

    def beyond(self, ts: int) -> bool:
        """Tell whether an entry of this time, and any farther, would be left out."""
        return len(self.heap) >= self.limit and self.sign * ts <= self.heap[0][0]

    def add(self, found: Found) -> None:
        """Take one in, and put the farthest out if there are too many."""
        self.order -= 1
        item = (self.sign * found.ts, self.order, found)
        self.bytes += len(found.line)
        if len(self.heap) < self.limit:
            heapq.heappush(self.heap, item)
        else:
            self.bytes -= len(heapq.heappushpop(self.heap, item)[2].line)
        if self.bytes > self.max_bytes:
            raise QueryError(
                f"the answer is larger than {self.max_bytes} bytes: ask for fewer lines"
            )

    def sorted(self) -> list[Found]:
        """Give what was kept, the nearest first."""
        return [item[2] for item in sorted(self.heap, key=lambda each: (-each[0], -each[1]))]


def _candidates(block: Block, pipeline: Pipeline, run: _Run, *, backward: bool) -> Iterator[int]:
    order: Iterable[int] = range(len(block.times))
    if pipeline.needle:
        order = block.holding(pipeline.needle)
    elif pipeline.pattern is not None and block.one_line_each:
        order = block.matching(pipeline.pattern)
    indices = reversed(list(order)) if backward else iter(order)
    for number, index in enumerate(indices):
        if number % 4096 == 4095:  # noqa: PLR2004 - now and then
            run.check()
        if not pipeline.filters or pipeline.keeps(block.line(index)):
            yield index


def _labels_of(base: Mapping[str, str], meta: Labels) -> dict[str, str]:
    labels = dict(base)
    for name, value in meta:
        labels[f"{name}_extracted" if name in base else name] = value
    return labels


def _offer(
    nearest: _Nearest, pipeline: Pipeline, block: Block, index: int, base: dict[str, str]
) -> None:
    labels = _labels_of(base, block.meta(index))
    line = pipeline.transform(block.line(index), labels)
    if line is not None:
        nearest.add(Found(ts=block.time(index), line=line, labels=as_labels(labels)))


def _measure(
    run: _Run, block: Block, stream: Stream, pipeline: Pipeline, grouping: Grouping | None
) -> Iterator[tuple[Labels, int, int]]:
    """Give each entry that passes: the series it counts for, its index, the line's length."""
    base = dict(stream.labels)
    known: dict[Labels, Labels] = {}
    for index in _candidates(block, pipeline, run, backward=False):
        meta = block.meta(index)
        if not pipeline.steps:
            key = known.get(meta)
            if key is None:
                key = known[meta] = group(as_labels(_labels_of(base, meta)), grouping)
            yield key, index, block.lengths[index]
            continue
        labels = _labels_of(base, meta)
        line = pipeline.transform(block.line(index), labels)
        if line is None:
            continue
        if ERROR in labels:
            raise QueryError(
                f"pipeline error: '{labels[ERROR]}' for series: "
                f"'{format_labels(as_labels(labels))[:500]}'. Use a label filter to "
                f'intentionally skip this error. (e.g | {ERROR}!="{labels[ERROR]}")'
            )
        yield group(as_labels(labels), grouping), index, len(line)


def _count_by_meta(
    cells: Cells, block: Block, base: dict[str, str], grouping: Grouping | None
) -> None:
    known: dict[Labels, Labels] = {}
    for ts, first, last in cells.parts(block):
        for meta, count in block.meta_counts(first, last):
            key = known.get(meta)
            if key is None:
                key = known[meta] = group(as_labels(_labels_of(base, meta)), grouping)
            cells.add(key, ts, count, count)


def _settled_by(names: set[str], grouping: Grouping | None) -> bool:
    """Tell whether a stream's own labels alone decide its group."""
    return grouping is not None and not grouping.without and grouping.names <= names
