"""Tell what only root may see, where the exporter is not root: from what a probe left in files.

The exporter faces the network, so it holds no capability. What needs root is looked at by
``narthex probe``, a program of its own, which systemd starts now and then, which listens to
nobody, and ends. A file for each collector is what crosses, in Prometheus' text format, in a
folder that root alone can write to.
"""

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import Look, look
from narthex_exporter.collectors.spec import Collector, Family, Metric, NoData, Node, Sample
from narthex_exporter.durable import write_durably
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources import textfile

FOLDER: Final = Path("/run/narthex-probe")
_HINT: Final = "systemctl enable --now narthex-probe.timer"
# The timer's own period, for collectors that have none.
_PERIOD_SECONDS: Final = 300.0
_STALE_PERIODS: Final = 3


@dataclass(slots=True)
class Probes:
    """Looks as an ordinary user: what needs root is read from ``folder``."""

    folder: Path = FOLDER
    root: bool = field(default_factory=lambda: os.geteuid() == 0)
    now: Callable[[], float] = time.time

    def look(self, collector: Collector, node: Node) -> Look:
        """Run a collector, or read what the probe found for it."""
        if self.root or not collector.privileged:
            return look(collector, node, now=self.now)
        file = textfile.read(str(self.folder / f"{collector.name}.prom"))
        if file.version == (errno.ENOENT,):
            raise NoData(f"this needs root, or: {_HINT}")
        if file.error is not None:
            raise UnavailableError(f"{file.path}: {file.error}")
        if self.now() - file.mtime_seconds > _STALE_PERIODS * period(collector, node):
            raise UnavailableError(f"{file.path} is old: does narthex-probe.timer run?")
        samples = list(_samples(collector, file.lines))
        if not samples:
            raise NoData("narthex probe found nothing")
        return Look(samples=samples, at=float(file.mtime_seconds))


def period(collector: Collector, node: Node) -> float:
    """Tell how many seconds pass between two looks of the probe."""
    own = node.setting(collector.interval) if collector.interval is not None else 0.0
    return max(own, _PERIOD_SECONDS)


def leave(collector: Collector, node: Node, folder: Path) -> None:
    """Look as root, and leave what was found in a file that is whole. Raises what looking raises.

    Where there is nothing to report the file is empty, which is to say so.
    """
    try:
        samples = look(collector, node).samples
    except NoData:
        samples = ()
    write_durably(folder / f"{collector.name}.prom", Encoder().encode(samples), mode=0o644)


def _samples(collector: Collector, lines: Iterable[textfile.Line]) -> Iterator[Sample]:
    for line in lines:
        metric = _declared(collector, line)
        if metric is not None:
            given = dict(zip(line.labels, line.values, strict=True))
            yield Sample(
                metric, tuple([given.get(name, "") for name in metric.labels]), line.value
            )


def _declared(collector: Collector, line: textfile.Line) -> Metric | None:
    """Find the declaration of a line; what is none of this collector's is left out."""
    for metric in collector.metrics:
        if isinstance(metric, Metric) and metric.name == line.name:
            return metric
        if isinstance(metric, Family) and metric.matches(line.name):
            return Metric(line.name, metric.kind, line.help or metric.help, metric.labels)
    return None
