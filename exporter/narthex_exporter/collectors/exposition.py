"""Write samples in Prometheus' text format or in OpenMetrics, keeping lines from scrape to scrape.

Does what prometheus_client's encoders do, without an object a sample: a series' name and labels
are rendered once, and its line is kept while its value stays. A property test proves both equal.
"""

import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from narthex_exporter.collectors.spec import Block, Kind, Metric, Sample

_Values = tuple[str, ...]
_TOTAL: Final = "_total"
_HALF: Final = re.compile("[\ud800-\udfff]")
# Series that a metric may have lost before what is kept of them is thrown away.
_SLACK: Final = 32
# Metrics to remember: files of users may bring new names again and again.
_METRICS_AT_MOST: Final = 20_000
# What is the same in both formats; OpenMetrics has no counter without _total, as others have some.
_SAME: Final = frozenset({Kind.GAUGE, Kind.HISTOGRAM, Kind.SUMMARY})


class _Line:
    """One series: how it begins, its last value, and the whole line."""

    __slots__ = ("start", "text", "turn", "value")

    def __init__(self, start: str, value: float, turn: int) -> None:
        self.start = start
        self.value = value
        self.text = f"{start}{number(value)}\n"
        self.turn = turn


class _Group:
    """The series of one name, by labels, and the blocks of this turn."""

    __slots__ = ("blocks", "heads", "lines", "metric", "seen", "turn")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.lines: dict[_Values, _Line] = {}
        self.blocks: list[str] = []
        # As text, and as OpenMetrics.
        self.heads = ["", ""]
        self.turn = self.seen = 0

    def begin(self, metric: Metric) -> None:
        if metric is not self.metric:
            # A user's file may bring a name anew, with other labels or words.
            if metric.labels != self.metric.labels:
                self.lines.clear()
            self.metric = metric
            self.heads = ["", ""]
        self.blocks.clear()

    def head(self, *, openmetrics: bool) -> str:
        """Give the lines that say what it is."""
        head = self.heads[openmetrics] = _head(self.metric, openmetrics=openmetrics)
        return head

    def forget(self) -> None:
        """Drop series that are gone, now and then."""
        if len(self.lines) > 2 * self.seen + _SLACK:
            self.lines = {k: line for k, line in self.lines.items() if line.turn == self.turn}


@dataclass(slots=True)
class Encoder:
    """Writes scrapes, and remembers the lines of the last ones."""

    _groups: dict[str, _Group] = field(default_factory=dict, init=False)
    _turn: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def encode(
        self,
        samples: Iterable[Sample | Block],
        *,
        openmetrics: bool = False,
        names: frozenset[str] = frozenset(),
    ) -> bytes:
        """Write samples, grouped and sorted by name; of two with the same labels the last counts.

        With ``names`` only those metrics.
        """
        with self._lock:
            return self._encode(samples, openmetrics, names)

    def _encode(  # noqa: C901, PLR0912 - one loop, unrolled: see the comment in it
        self,
        samples: Iterable[Sample | Block],
        openmetrics: bool,  # noqa: FBT001
        names: frozenset[str],
    ) -> bytes:
        self._turn += 1
        turn, groups, touched = self._turn, self._groups, []
        # The hot path, a few thousand turns a scrape: a call in it would cost as much as the rest.
        for metric, values, value in samples:
            name = metric.name
            try:
                group = groups[name]
            except KeyError:
                group = groups[name] = _Group(metric)
            if group.turn != turn:
                group.turn, group.seen = turn, 0
                if group.metric is not metric or group.blocks:
                    group.begin(metric)
                touched.append((name, group))
            if type(values) is str:
                group.blocks.append(values)
                continue
            key: Any = values
            start = ""
            if metric is not group.metric and metric.labels != group.metric.labels:
                key, start = _foreign(group.metric, metric, key)
            line = group.lines.get(key)
            if line is None:
                group.lines[key] = _Line(start or _series(metric, key), value, turn)
                group.seen += 1
                continue
            if line.value != value:
                line.value = value
                line.text = f"{line.start}{number(value)}\n"
            if line.turn != turn:
                line.turn = turn
                group.seen += 1
        touched.sort()
        parts = []
        for name, group in touched:
            if names and name not in names:
                continue
            parts.append(group.heads[openmetrics] or group.head(openmetrics=openmetrics))
            lines = group.lines
            if group.seen == len(lines):
                parts += [line.text for line in lines.values()]
            else:
                parts += [line.text for line in lines.values() if line.turn == turn]
                group.forget()
            if group.blocks:
                parts += group.blocks
        if len(groups) > _METRICS_AT_MOST:
            self._groups = dict(touched)
        if openmetrics:
            parts.append("# EOF\n")
        return "".join(parts).encode()


def _foreign(ours: Metric, metric: Metric, values: _Values) -> tuple[_Values, str]:
    """Give key and start of a series that a user's file has under a name of ours."""
    if sorted(metric.labels) != sorted(ours.labels):
        return (*metric.labels, *values), _series(metric, values)
    pairs = dict(zip(metric.labels, values, strict=True))
    key = tuple([pairs[name] for name in ours.labels])
    return key, _series(ours, key)


def _head(metric: Metric, *, openmetrics: bool) -> str:
    name, kind = metric.name, str(metric.kind)
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        text = text.replace('"', r"\"")
        if metric.kind is Kind.COUNTER and name.endswith(_TOTAL):
            name = name.removesuffix(_TOTAL)
        elif metric.kind not in _SAME:
            kind = "unknown"
    return f"# HELP {name} {_whole(text)}\n# TYPE {name} {kind}\n"


def _series(metric: Metric, values: _Values) -> str:
    """Give name and labels, with the space before the value."""
    if not metric.labels:
        return f"{metric.name} "
    pairs = ",".join(
        f'{label}="{escape(value)}"' for label, value in zip(metric.labels, values, strict=True)
    )
    return f"{metric.name}{{{pairs}}} "


def escape(value: str) -> str:
    """Write a label's value: quotes, backslashes and line feeds escaped, no half characters."""
    if "\\" in value or '"' in value or "\n" in value:
        value = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return _whole(value)


def _whole(text: str) -> str:
    """Show halves of surrogate pairs, which no UTF-8 can hold, as U+FFFD."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def number(value: float) -> str:
    """Write a value. Whole numbers that the kernel gave as such stay whole."""
    if type(value) is int:
        return str(value)
    text = repr(float(value))
    return _ODD.get(text, text)


_ODD: Final = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
