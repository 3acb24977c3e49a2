"""Declare metrics and collectors: each fact once, next to the code that measures it."""

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.place import Paths, S, Sources
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

T = TypeVar("T")
_NAME: Final = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")
_new: Final = tuple.__new__
_PART: Final = re.compile(r"\{(\w+)\}")


class NoData(Exception):  # noqa: N818 - it is no error
    """There is nothing to report on this machine: not broken, only absent."""


class Kind(enum.StrEnum):
    """What a metric is to Prometheus. Histograms and summaries come as blocks only."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    UNTYPED = "untyped"


class Sample(NamedTuple):
    """One measured value; ``values`` in the order of the metric's labels."""

    metric: "Metric"
    values: tuple[str, ...]
    value: float


class Block(NamedTuple):
    """Lines of one metric that a collector has rendered itself, because it kept them.

    Each line is a whole sample of the text format with its line feed; ``series`` is how many. What
    a block holds must be unique: blocks are not looked into. Those of a histogram or a summary
    are whole, with bounds as OpenMetrics writes them (``le="1.0"``).
    """

    metric: "Metric"
    text: str
    series: int


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric: the name people see, its help in one sentence, its labels.

    Names of ours keep the rule that counters, and only they, end in ``_total``; names of other
    exporters are as they are there.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(f"{self.name!r} is no metric name")
        counts = self.name.endswith("_total")
        if self.name.startswith("narthex_") and (self.kind is Kind.COUNTER) != counts:
            raise ValueError(f"{self.name}: counters, and only they, end in _total")

    def sample(self, value: float, **labels: str) -> Sample:
        """Give one value; every declared label is due."""
        return Sample(self, tuple([labels[name] for name in self.labels]), value)

    def at(self, value: float, *values: str) -> Sample:
        """Give one value, with the labels by position: what inner loops use."""
        # A named tuple's own constructor is a function more for each of a thousand samples.
        return _new(Sample, (self, values, value))


@dataclass(frozen=True, slots=True)
class Family:
    """Metrics whose names come from the kernel: ``node_memory_{field}_bytes``."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

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


@lru_cache(maxsize=4096)
def _member(family: Family, parts: tuple[tuple[str, str], ...]) -> Metric:
    clean = {key: re.sub(r"[^a-zA-Z0-9_]", "_", value) for key, value in parts}
    return Metric(
        family.name.format(**clean), family.kind, family.help.format(**clean), family.labels
    )


def counter(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:  # noqa: A002
    """Declare what only grows, and starts again at nought."""
    return Metric(name, Kind.COUNTER, help, labels)


def gauge(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:  # noqa: A002
    """Declare what goes up and down."""
    return Metric(name, Kind.GAUGE, help, labels)


def untyped(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:  # noqa: A002
    """Declare what node_exporter exposes without a type."""
    return Metric(name, Kind.UNTYPED, help, labels)


def gauges(name: str, help: str, labels: tuple[str, ...] = ()) -> Family:  # noqa: A002
    """Declare gauges whose names the kernel gives."""
    return Family(name, Kind.GAUGE, help, labels)


@dataclass(frozen=True, slots=True, eq=False)
class Option(Generic[T]):
    """A setting of one collector: ``--collector.<collector>.<name>``.

    ``prefix`` is for the few flags of node_exporter that do not bear their collector's name.
    """

    name: str
    default: str
    parse: Callable[[str], T]
    help: str
    prefix: str = ""

    def flag(self, collector: str) -> str:
        """Give the flag that sets it."""
        return f"--collector.{self.prefix or collector}.{self.name}"


def pattern_option(name: str, default: str, help: str) -> Option[re.Pattern[str]]:  # noqa: A002
    """Declare a regular expression; as in node_exporter it may match anywhere, so anchor it."""
    return Option(name, default, re.compile, help)


class Switch(Option[bool]):
    """A setting that is on or off: its flag has no value, and a ``--no-…`` beside it."""


def switch_option(name: str, help: str, *, default: bool = False) -> Switch:  # noqa: A002
    """Declare a setting that is on or off."""

    def parse(text: str) -> bool:
        if text.lower() not in {"true", "false"}:
            raise ValueError("true or false")
        return text.lower() == "true"

    return Switch(name, str(default).lower(), parse, help)


class Words(Option[tuple[str, ...]]):
    """A setting of several words: its flag may be given more than once."""


def words_option(name: str, help: str) -> Words:  # noqa: A002
    """Declare a setting of several words, by default none."""
    return Words(name, "", lambda text: tuple(text.split()), help)


class Limit(Option[int]):
    """How many things a collector reports at most; see ``Node.capped``."""


def limit_option(name: str, default: int, help: str) -> Limit:  # noqa: A002
    """Declare a cap on how many things are reported; ``narthex_collector_truncated`` tells."""

    def parse(text: str) -> int:
        number = int(text)
        if number < 0:
            raise ValueError("nought or more")
        return number

    return Limit(name, str(default), parse, help)


def seconds_option(name: str, default: float, help: str) -> Option[float]:  # noqa: A002
    """Declare a time in seconds, more than nought."""

    def parse(text: str) -> float:
        number = float(text)
        if not 0 < number < float("inf"):
            raise ValueError("more than 0 seconds")
        return number

    return Option(name, f"{default:g}", parse, help)


@dataclass(frozen=True, slots=True)
class Filter:
    """What to report by name: the include pattern, less the exclude pattern."""

    include: Option[re.Pattern[str]]
    exclude: Option[re.Pattern[str]]

    @property
    def options(self) -> tuple[Option[Any], ...]:
        """Give both, for the collector's ``options``."""
        return (self.include, self.exclude)


def name_filter(noun: str, things: str, *, include: str = ".+", exclude: str = "^$") -> Filter:
    """Declare ``<noun>-include`` and ``<noun>-exclude`` for ``things``."""
    return Filter(
        pattern_option(f"{noun}-include", include, f"{things} to report."),
        pattern_option(f"{noun}-exclude", exclude, f"{things} to leave out."),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The node, as collectors see it: its interfaces, and the settings of this exporter.

    ``proc`` and ``sys`` are for one scrape; what lives longer is a ``source``.
    """

    proc: Procfs
    sys: Sysfs
    filesystems: Filesystems
    paths: Paths = field(default_factory=Paths)
    settings: Mapping[Option[Any], Any] = field(default_factory=dict)
    sources: Sources = field(default_factory=Sources)
    cut: set[Limit] = field(default_factory=set)

    def setting(self, option: Option[T]) -> T:
        """Give the value of an option."""
        if option in self.settings:
            value: T = self.settings[option]
            return value
        return option.parse(option.default)

    def source(self, kind: type[S]) -> S:
        """Give the one long-lived source of a kind: made at its first use, with ``paths``."""
        return self.sources.get(kind, self.paths)

    def capped(self, limit: Limit, things: Iterable[T]) -> list[T]:
        """Give as many things as the limit allows, the first ones, and note if some were cut."""
        found = list(things)
        most = self.setting(limit)
        if len(found) > most:
            self.cut.add(limit)
            del found[most:]
        return found

    def wanted(self, names: Filter, name: str) -> bool:
        """Tell whether a filter lets a name through."""
        return (
            self.setting(names.include).search(name) is not None
            and self.setting(names.exclude).search(name) is None
        )

    def fresh(self) -> "Node":
        """Give the same node for one more scrape: each file is read once a scrape."""
        return Node(
            proc=self.proc.fresh(),
            sys=self.sys,
            filesystems=self.filesystems,
            paths=self.paths,
            settings=self.settings,
            sources=self.sources,
        )


Collect = Callable[[Node], Iterator[Sample | Block]]
_AnyCollect = Callable[[Node], Iterator[Sample]] | Collect


@dataclass(frozen=True, kw_only=True)
class Collector:
    """One subsystem's metrics, and the function that measures them.

    With ``interval`` it runs on a schedule of its own, and a scrape is given what it found last.
    ``privileged`` says that it needs root: elsewhere it reports what ``narthex probe`` left.
    """

    name: str
    metrics: tuple[Metric | Family, ...]
    collect: Collect
    enabled: bool
    limit_seconds: float
    options: tuple[Option[Any], ...]
    summary: str
    interval: Option[float] | None = None
    privileged: bool = False

    @cached_property
    def limited(self) -> bool:
        """Tell whether it may leave things out."""
        return any(isinstance(option, Limit) for option in self.options)

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
    every_seconds: float = 0.0,
    privileged: bool = False,
) -> Callable[[_AnyCollect], Collector]:
    """Make a function a collector. What it takes longer than ``limit_seconds`` is given up.

    A slow one says ``every_seconds``: it then runs in the background, so often and within that
    limit, and never in the path of a scrape.
    """
    interval = None
    if every_seconds:
        interval = seconds_option("interval", every_seconds, "Seconds between two looks.")
        options = (*options, interval)

    def declare(collect: _AnyCollect) -> Collector:
        return Collector(
            name=name,
            metrics=metrics,
            collect=collect,
            enabled=enabled,
            limit_seconds=limit_seconds,
            options=options,
            summary=(collect.__doc__ or "").partition("\n")[0],
            interval=interval,
            privileged=privileged,
        )

    return declare
