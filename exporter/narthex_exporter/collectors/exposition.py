"""Write samples in Prometheus' text format or in OpenMetrics, keeping lines from scrape to scrape.

Does what prometheus_client's encoders do, without an object a sample: a series' name and labels
are rendered once, and its line is kept while its value stays. A property test proves both equal.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, cast

from narthex_exporter.collectors.spec import Block, Kind, Metric, Sample

_Values = tuple[str, ...]
_Lines = dict[_Values, str]
_TOTAL: Final = "_total"
# Series that a metric may have lost before what is kept of them is thrown away.
_SLACK: Final = 32
# Metrics to remember: files of users may bring new names again and again.
_METRICS_AT_MOST: Final = 20_000
# What is the same in both formats; OpenMetrics has no counter without _total, as others have some.
_SAME: Final = frozenset({Kind.GAUGE, Kind.HISTOGRAM, Kind.SUMMARY})


@dataclass(slots=True)
class _Group:
    """The samples of one name: lines by labels, and blocks."""

    metric: Metric
    kept: dict[_Values, tuple[float, str]]
    lines: _Lines = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Encoder:
    """Writes scrapes, and remembers the lines of the last ones."""

    _kept: dict[Metric, dict[_Values, tuple[float, str]]] = field(default_factory=dict, init=False)
    _heads: dict[tuple[Metric, bool], str] = field(default_factory=dict, init=False)

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
        groups: dict[str, _Group] = {}
        # The hot path: a few thousand turns a scrape.
        for metric, values, value in samples:
            group = groups.get(metric.name)
            if group is None:
                group = groups[metric.name] = _Group(metric, self._kept.setdefault(metric, {}))
            if type(values) is str:
                group.blocks.append(values)
                continue
            key = cast("_Values", values)
            if metric is not group.metric and metric.labels != group.metric.labels:
                _add_foreign(group, metric, key, value)
                continue
            kept = group.kept.get(key)
            if kept is None:
                kept = group.kept[key] = (value, _series(metric, key) + _number(value))
            elif kept[0] != value:
                start = kept[1]
                kept = group.kept[key] = (
                    value,
                    start[: start.rindex(" ") + 1] + _number(value),
                )
            group.lines[key] = kept[1]
        parts = []
        for name in sorted(groups):
            group = groups[name]
            self._forget(group)
            if names and name not in names:
                continue
            parts.append(self._head(group.metric, openmetrics))
            parts += group.lines.values()
            parts += group.blocks
        self._forget_metrics()
        if openmetrics:
            parts.append("# EOF\n")
        return "".join(parts).encode()

    def _head(self, metric: Metric, openmetrics: bool) -> str:  # noqa: FBT001 - part of the key
        head = self._heads.get((metric, openmetrics))
        if head is None:
            head = _head(metric, openmetrics=openmetrics)
            self._heads[metric, openmetrics] = head
        return head

    def _forget_metrics(self) -> None:
        if len(self._kept) > _METRICS_AT_MOST:
            self._kept.clear()
            self._heads.clear()

    def _forget(self, group: _Group) -> None:
        """Drop what is kept of series that are gone."""
        if len(group.kept) > 2 * len(group.lines) + _SLACK:
            self._kept[group.metric] = {
                key: kept for key, kept in group.kept.items() if key in group.lines
            }


def _add_foreign(group: _Group, metric: Metric, values: _Values, value: float) -> None:
    """Add what a user's file has under a name of ours, perhaps with other labels."""
    if sorted(metric.labels) != sorted(group.metric.labels):
        group.lines[*metric.labels, *values] = _series(metric, values) + _number(value)
        return
    pairs = dict(zip(metric.labels, values, strict=True))
    key = tuple([pairs[name] for name in group.metric.labels])
    group.lines[key] = _series(group.metric, key) + _number(value)


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
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text


def number(value: float) -> str:
    """Write a value. Whole numbers that the kernel gave as such stay whole."""
    if type(value) is int:
        return str(value)
    text = repr(float(value))
    return _ODD.get(text, text)


def _number(value: float) -> str:
    return f"{number(value)}\n"


_ODD: Final = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}
