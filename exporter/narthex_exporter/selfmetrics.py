"""Report the exporter itself: its build, its requests, its certificates, its configuration."""

import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client.process_collector import ProcessCollector

from narthex_exporter.collectors.certificates import NOT_AFTER, named
from narthex_exporter.collectors.scrape import from_families
from narthex_exporter.collectors.spec import Metric, Sample, counter, gauge
from narthex_exporter.sources.certificates import CertificateFiles

BUILD: Final = gauge(
    "narthex_exporter_build_info",
    "Which exporter this is; the value is always 1.",
    ("version", "pythonversion"),
)
REQUESTS: Final = counter(
    "narthex_exporter_http_requests_total", "HTTP requests answered.", ("code", "handler")
)
RELOADED: Final = gauge(
    "narthex_config_last_reload_successful",
    "Whether the configuration, as it is on disk, is the one in use.",
)
RELOAD_TIME: Final = gauge(
    "narthex_config_last_reload_success_timestamp_seconds",
    "When the configuration in use was read, in unixtime.",
)
METRICS: Final[tuple[Metric, ...]] = (BUILD, REQUESTS, NOT_AFTER, RELOADED, RELOAD_TIME)


@dataclass(slots=True)
class Requests:
    """Count what was answered."""

    _counts: Counter[tuple[str, str]] = field(default_factory=Counter, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def count(self, *, code: str, handler: str) -> None:
        """Count one reply."""
        with self._lock:
            self._counts[code, handler] += 1

    def samples(self) -> Iterator[Sample]:
        """Give the counts."""
        with self._lock:
            counts = dict(self._counts)
        for (code, handler), count in sorted(counts.items()):
            yield REQUESTS.at(count, code, handler)


@dataclass(slots=True)
class Certificates:
    """Watch when the exporter's own certificates expire."""

    paths: Callable[[], Sequence[Path]]
    _files: CertificateFiles = field(default_factory=CertificateFiles, init=False)

    def samples(self) -> Iterator[Sample]:
        """Give the expiry of each file that holds a certificate."""
        for path in self.paths():
            found = self._files.get(path)
            if found is not None:
                yield NOT_AFTER.at(found.not_after.timestamp(), str(path), named(found))


@dataclass(slots=True)
class Reloads:
    """Remember how the last reading of the configuration went."""

    successful: bool = True
    time_seconds: float = 0.0

    def samples(self) -> Iterator[Sample]:
        """Give the state."""
        yield RELOADED.at(1 if self.successful else 0)
        yield RELOAD_TIME.at(self.time_seconds)


@dataclass(slots=True, kw_only=True)
class SelfMetrics:
    """All that the exporter tells of itself; ``process`` is left out where not wanted."""

    requests: Requests
    certificates: Certificates
    reloads: Reloads
    process: bool = True
    _build: Sample = field(
        default_factory=lambda: BUILD.at(1, version("narthex"), platform.python_version()),
        init=False,
    )
    _process: ProcessCollector = field(
        default_factory=lambda: ProcessCollector(registry=None), init=False
    )

    def samples(self) -> Iterator[Sample]:
        """Give the exporter's own metrics."""
        yield self._build
        yield from self.requests.samples()
        yield from self.certificates.samples()
        yield from self.reloads.samples()
        if self.process:
            yield from from_families(self._process.collect())
