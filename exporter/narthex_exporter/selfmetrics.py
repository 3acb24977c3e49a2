"""Report the exporter itself: its build, its requests, its certificates, its configuration."""

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from narthex_exporter.collectors.certificates import NOT_AFTER, NOT_BEFORE, named
from narthex_exporter.collectors.spec import Metric, Sample, counter, gauge
from narthex_exporter.sources.certificates import CertificateFiles
from narthex_exporter.sources.ownprocess import OwnProcess

BUILD: Final = gauge(
    "narthex_exporter_build_info",
    "Which exporter this is; the value is always 1.",
    ("version", "pythonversion"),
)
# The node mixin's dashboards find their nodes by it. It is node_exporter's, down to the labels.
COMPATIBLE: Final = gauge(
    "node_exporter_build_info",
    "Stands in for node_exporter's own, so that dashboards find this node; the value is always 1.",
    ("branch", "goarch", "goos", "goversion", "revision", "version"),
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
# What every Prometheus client library tells of its process, under the names they all use.
CPU: Final = counter("process_cpu_seconds_total", "User and system CPU time spent, in seconds.")
OPEN_FDS: Final = gauge("process_open_fds", "Number of open file descriptors.")
MAX_FDS: Final = gauge("process_max_fds", "Maximum number of open file descriptors.")
RESIDENT: Final = gauge("process_resident_memory_bytes", "Resident memory size in bytes.")
VIRTUAL: Final = gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.")
VIRTUAL_MAX: Final = gauge(
    "process_virtual_memory_max_bytes", "Maximum amount of virtual memory available in bytes."
)
STARTED: Final = gauge("process_start_time_seconds", "Start time of the process, in unixtime.")
METRICS: Final[tuple[Metric, ...]] = (
    BUILD,
    COMPATIBLE,
    REQUESTS,
    NOT_AFTER,
    NOT_BEFORE,
    RELOADED,
    RELOAD_TIME,
    CPU,
    OPEN_FDS,
    MAX_FDS,
    RESIDENT,
    VIRTUAL,
    VIRTUAL_MAX,
    STARTED,
)


# They change each few days.
_LOOK_SECONDS: Final = 10.0


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
    """Watch when the exporter's own certificates expire; looks at the files now and then."""

    paths: Callable[[], Sequence[Path]]
    clock: Callable[[], float] = time.monotonic
    _files: CertificateFiles = field(default_factory=CertificateFiles, init=False)
    _found: tuple[Sample, ...] = field(default=(), init=False)
    _at: float = field(default=float("-inf"), init=False)

    def samples(self) -> tuple[Sample, ...]:
        """Give the expiry of each file that holds a certificate."""
        now = self.clock()
        if now - self._at >= _LOOK_SECONDS:
            self._at, self._found = now, tuple(self._look())
        return self._found

    def _look(self) -> Iterator[Sample]:
        for path in self.paths():
            found = self._files.get(path)
            if found is not None:
                labels = (str(path), named(found))
                yield NOT_AFTER.at(found.not_after.timestamp(), *labels)
                yield NOT_BEFORE.at(found.not_before.timestamp(), *labels)


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
    version: str = "unknown"
    _own: OwnProcess = field(default_factory=OwnProcess, init=False)

    def samples(self) -> Iterator[Sample]:
        """Give the exporter's own metrics."""
        yield BUILD.at(1, self.version, platform.python_version())
        yield COMPATIBLE.at(1, "", platform.machine(), "linux", "", "", self.version)
        yield from self.requests.samples()
        yield from self.certificates.samples()
        yield from self.reloads.samples()
        if self.process:
            own = self._own
            virtual, resident = own.memory_bytes()
            descriptors, most = own.descriptors()
            yield CPU.at(own.cpu_seconds())
            yield OPEN_FDS.at(descriptors)
            yield MAX_FDS.at(most)
            yield RESIDENT.at(resident)
            yield VIRTUAL.at(virtual)
            yield VIRTUAL_MAX.at(own.memory_limit_bytes())
            yield STARTED.at(own.started_seconds)
