"""Pass on what scripts leave in files: the metrics that no collector has."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Self

from narthex_exporter.collectors.exposition import escape, number
from narthex_exporter.collectors.spec import (
    Block,
    Kind,
    Metric,
    NoData,
    Node,
    Option,
    Sample,
    collector,
    gauge,
    limit_option,
)
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.textfile import File, Line, Textfiles

ERROR = gauge(
    "node_textfile_scrape_error",
    "1 if there was an error opening or reading a file, 0 otherwise",
)
MTIME = gauge(
    "node_textfile_mtime_seconds", "Unixtime mtime of textfiles successfully read.", ("file",)
)


def _folders(text: str) -> tuple[str, ...]:
    folders = tuple(word.strip() for word in text.split(",") if word.strip())
    if not all(folder.startswith("/") for folder in folders):
        raise ValueError("folders begin with a slash")
    return folders


DIRECTORY = Option(
    "directory",
    "/var/lib/prometheus/node-exporter",
    _folders,
    "Folders to read `*.prom` files from, separated by commas; each may be a pattern.",
)
MAX_SERIES = limit_option("max-series", 10_000, "Series of all files to pass on at most.")
_SAMPLES_OF: Final = {
    "histogram": ("", "_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
}


@dataclass(slots=True)
class _Family:
    """One metric of all files."""

    metric: Metric
    lines: list[Line] = field(default_factory=list)


@dataclass(slots=True)
class Merged:
    """What all files say together, kept while none of them changes."""

    samples: list[Sample | Block] = field(default_factory=list)
    error: bool = False
    _of: tuple[object, ...] = ()

    @classmethod
    def of(cls, _paths: Paths) -> Self:
        """Make an empty one."""
        return cls()

    def renew(self, files: list[File], most: int) -> bool:
        """Merge again if something has changed; tell whether there was more than ``most``."""
        key = (most, *((file.path, file.version) for file in files))
        if key != self._of:
            families, self.error = _merge(files)
            self.samples = [each for family in families for each in _written(family)]
            self._of = key
        return sum(_series(each) for each in self.samples) > most


@collector(name="textfile", metrics=(ERROR, MTIME), options=(DIRECTORY, MAX_SERIES))
def collect(node: Node) -> Iterator[Sample | Block]:
    """Pass on what scripts leave in `*.prom` files."""
    folders = node.setting(DIRECTORY)
    files, missing = node.source(Textfiles).read(folders)
    if missing and folders == _folders(DIRECTORY.default):
        raise NoData(f"there is no folder {missing[0]}")
    merged = node.source(Merged)
    most = node.setting(MAX_SERIES)
    if merged.renew(files, most):
        node.cut.add(MAX_SERIES)
    left = most
    for each in merged.samples:
        left -= _series(each)
        if left < 0:
            break
        yield each
    good = [file for file in files if file.error is None]
    for file in good:
        yield MTIME.at(file.mtime_seconds, file.path)
    yield ERROR.at(1 if missing or merged.error or len(good) < len(files) else 0)


def _series(each: Sample | Block) -> int:
    return each.series if isinstance(each, Block) else 1


def _merge(files: list[File]) -> tuple[list[_Family], bool]:
    """Give each metric once; of what contradicts itself the first counts, and that is an error."""
    families: dict[str, _Family] = {}
    owners: dict[str, str] = {}
    seen: set[tuple[str, tuple[str, ...], tuple[str, ...]]] = set()
    wrong = False
    for file in files:
        for line in file.lines:
            family = families.get(line.family)
            if family is None:
                family = _claim(line, file, owners)
                if family is None:
                    wrong = True
                    continue
                families[line.family] = family
            key = (line.name, line.labels, line.values)
            if family.metric.kind != line.kind or key in seen:
                wrong = True
                continue
            if line.help is not None and line.help != family.metric.help:
                wrong = True
            seen.add(key)
            family.lines.append(line)
    for name, family in families.items():
        base = name.removesuffix("_total")
        if family.metric.kind is Kind.COUNTER and base != name and base in families:
            # In OpenMetrics both would be one family.
            family.metric = _metric(name, "untyped", family.metric.help, ())
    return list(families.values()), wrong


def _claim(line: Line, file: File, owners: dict[str, str]) -> _Family | None:
    """Begin a metric, unless the names of its samples are another one's."""
    names = [line.family + suffix for suffix in _SAMPLES_OF.get(line.kind, ("",))]
    if any(name in owners for name in names):
        return None
    if len(names) > 1 and any(_ours(name) for name in names):
        return None
    text = f"Metric read from {file.path}" if line.help is None else line.help
    try:
        metric = _metric(line.family, line.kind, text, ())
    except ValueError:
        return None  # a name of ours, against the rules of ours
    owners.update(dict.fromkeys(names, line.family))
    return _Family(metric)


def _written(family: _Family) -> Iterator[Sample | Block]:
    if not _ours(family.metric.name):
        text = "".join([_rendered(line) for line in family.lines])
        yield Block(family.metric, text, len(family.lines))
        return
    about = family.metric
    for line in family.lines:
        yield Sample(
            _metric(about.name, str(about.kind), about.help, line.labels), line.values, line.value
        )


def _rendered(line: Line) -> str:
    pairs = ",".join(
        f'{label}="{escape(value)}"' for label, value in zip(line.labels, line.values, strict=True)
    )
    return (
        f"{line.name}{{{pairs}}} {number(line.value)}\n"
        if pairs
        else (f"{line.name} {number(line.value)}\n")
    )


@lru_cache(maxsize=4096)
def _metric(name: str, kind: str, text: str, labels: tuple[str, ...]) -> Metric:
    # The same one each time, for the encoder keeps lines by it.
    return Metric(name, Kind(kind), text, labels)


@lru_cache(maxsize=4096)
def _ours(name: str) -> bool:
    """Tell whether the exporter has a metric of this name: the encoder sees to the rest."""
    from narthex_exporter.collectors.reference import is_declared  # noqa: PLC0415 - it names us

    return is_declared(name)
