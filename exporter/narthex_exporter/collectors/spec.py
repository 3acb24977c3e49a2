"""Declare metrics and collectors: each fact once, next to the code that measures it."""

import enum
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

T = TypeVar("T")
_NAME: Final = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")
_PART: Final = re.compile(r"\{(\w+)\}")


class NoData(Exception):  # noqa: N818 - it is no error
    """There is nothing to report on this machine: not broken, only absent."""


class Kind(enum.StrEnum):
    """What a metric is to Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    UNTYPED = "untyped"


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured value; ``values`` in the order of the metric's labels."""

    metric: "Metric"
    values: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: the name people see, its help in one sentence, its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"{self.name!r} is no metric name")
        if (self.kind is Kind.COUNTER) != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: counters, and only they, end in _total")

    def sample(self, value: float, **labels: str) -> Sample:
        """Give one value; every declared label is due."""
        return Sample(self, tuple([labels[name] for name in self.labels]), value)

    def at(self, value: float, *values: str) -> Sample:
        """Give one value, with the labels by position: what inner loops use."""
        return Sample(self, values, value)


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics whose names come from the kernel: ``node_memory_{field}_bytes``."""

    name: str
    kind: Kind
    help: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Families have none."""
        return ()

    def named(self, **parts: str) -> Metric:
        """Give the metric for one name; what a metric name cannot hold becomes ``_``."""
        return _member(self, tuple(parts.items()))

    def matches(self, name: str) -> bool:
        """Tell whether a metric's name is of this family."""
        pattern = "".join(
            "[a-zA-Z0-9_]+" if position % 2 else re.escape(part)
            for position, part in enumerate(_PART.split(self.name))
        )
        return re.fullmatch(pattern, name) is not None


@lru_cache(maxsize=1024)
def _member(family: Family, parts: tuple[tuple[str, str], ...]) -> Metric:
    clean = {key: re.sub(r"[^a-zA-Z0-9_]", "_", value) for key, value in parts}
    return Metric(family.name.format(**clean), family.kind, family.help.format(**clean))


def counter(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:  # noqa: A002
    """Declare what only grows, and starts again at nought."""
    return Metric(name, Kind.COUNTER, help, labels)


def gauge(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:  # noqa: A002
    """Declare what goes up and down."""
    return Metric(name, Kind.GAUGE, help, labels)


def untyped(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:  # noqa: A002
    """Declare what node_exporter exposes without a type."""
    return Metric(name, Kind.UNTYPED, help, labels)


def gauges(name: str, help: str) -> Family:  # noqa: A002
    """Declare gauges whose names the kernel gives."""
    return Family(name, Kind.GAUGE, help)


@dataclass(frozen=True, slots=True, eq=False)
class Option(Generic[T]):
    """A setting of one collector: ``--collector.<collector>.<name>``."""

    name: str
    default: str
    parse: Callable[[str], T]
    help: str


def pattern_option(name: str, default: str, help: str) -> Option[re.Pattern[str]]:  # noqa: A002
    """Declare a regular expression; as in node_exporter it may match anywhere, so anchor it."""
    return Option(name, default, re.compile, help)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The node, as collectors see it: its interfaces, and the settings of this exporter."""

    proc: Procfs
    sys: Sysfs
    filesystems: Filesystems
    settings: Mapping[Option[Any], Any] = field(default_factory=dict)

    def setting(self, option: Option[T]) -> T:
        """Give the value of an option."""
        if option in self.settings:
            value: T = self.settings[option]
            return value
        return option.parse(option.default)

    def fresh(self) -> "Node":
        """Give the same node for one more scrape: each file is read once a scrape."""
        return Node(
            proc=Procfs(self.proc.root),
            sys=self.sys,
            filesystems=self.filesystems,
            settings=self.settings,
        )


Collect = Callable[[Node], Iterator[Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """One subsystem's metrics, and the function that measures them."""

    name: str
    metrics: tuple[Metric | Family, ...]
    collect: Collect
    enabled: bool
    limit_seconds: float
    options: tuple[Option[Any], ...]
    summary: str

    def declares(self, name: str) -> bool:
        """Tell whether a metric's name is declared here."""
        return any(
            metric.matches(name) if isinstance(metric, Family) else metric.name == name
            for metric in self.metrics
        )


def collector(
    *,
    name: str,
    metrics: tuple[Metric | Family, ...],
    enabled: bool = True,
    limit_seconds: float = 2.0,
    options: tuple[Option[Any], ...] = (),
) -> Callable[[Collect], Collector]:
    """Make a function a collector. What it takes longer than ``limit_seconds`` is given up."""

    def declare(collect: Collect) -> Collector:
        return Collector(
            name=name,
            metrics=metrics,
            collect=collect,
            enabled=enabled,
            limit_seconds=limit_seconds,
            options=options,
            summary=(collect.__doc__ or "").partition("\n")[0],
        )

    return declare
