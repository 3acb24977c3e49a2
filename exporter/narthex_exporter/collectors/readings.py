"""Turn attributes below /sys, each a whole number, into samples."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from narthex_exporter.collectors.spec import Metric, NoData, Node, Sample
from narthex_exporter.sources.devices import Devices
from narthex_exporter.sources.sysfs import Sysfs

T = TypeVar("T")


class Reading(NamedTuple):
    """One attribute; it is worth ``number * times / per``."""

    path: str
    metric: Metric
    labels: tuple[str, ...]
    times: int = 1
    per: int = 1


class Meaning(NamedTuple):
    """What an attribute of a kind of device becomes."""

    metric: Metric
    times: int = 1
    per: int = 1


def remembered(node: Node, kind: str, look: Callable[[], T | None]) -> T:
    """Give what ``look`` finds, at most some seconds old. Raises NoData where it finds None."""
    found = node.source(Devices).remembered(kind, look)
    if found is None:
        raise NoData(f"this machine has no {kind}")
    return found


def present(
    sys: Sysfs, folder: str, meanings: Mapping[str, Meaning], labels: tuple[str, ...]
) -> list[Reading]:
    """Give the readings of those attributes that a folder has."""
    return [
        Reading(f"{folder}/{name}", *meanings[name][:1], labels, *meanings[name][1:])
        for name in sys.names(folder)
        if name in meanings
    ]


def samples(sys: Sysfs, readings: Iterable[Reading]) -> Iterator[Sample]:
    """Read them. What cannot be read now, is gone, or is no number is left out."""
    for path, metric, labels, times, per in readings:
        number = sys.number(path)
        if number is not None:
            number *= times
            yield Sample(metric, labels, number if per == 1 else number / per)
