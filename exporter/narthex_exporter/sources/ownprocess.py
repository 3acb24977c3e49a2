"""Read what this very process uses. See proc(5) and getrlimit(2)."""

import os
import resource
import time
from dataclasses import dataclass, field
from typing import Final

from narthex_exporter.sources.files import Files

_OWN: Final = "/proc/self"
_START: Final = 19  # of the fields after the name: starttime, in clock ticks after boot
_UNLIMITED: Final = float(2**64 - 1)


def _started() -> float:
    fields = Files().read(f"{_OWN}/stat").rpartition(b")")[2].split()
    after_boot = int(fields[_START]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + after_boot


@dataclass(slots=True)
class OwnProcess:
    """The process that asks. ``started_seconds`` is unixtime."""

    page_bytes: int = field(default_factory=lambda: os.sysconf("SC_PAGE_SIZE"))
    started_seconds: float = field(default_factory=_started, init=False)
    _files: Files = field(default_factory=Files, init=False)

    def cpu_seconds(self) -> float:
        """Tell the CPU time of all threads, those that ended too."""
        return time.process_time()

    def memory_bytes(self) -> tuple[int, int]:
        """Tell virtual and resident memory."""
        size, resident, *_ = self._files.read(f"{_OWN}/statm").split()
        return int(size) * self.page_bytes, int(resident) * self.page_bytes

    def memory_limit_bytes(self) -> float:
        """Tell how much virtual memory is allowed; 2^64 - 1 is without limit, as Go tells."""
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        return _UNLIMITED if limit == resource.RLIM_INFINITY else float(limit)

    def descriptors(self) -> tuple[int, int]:
        """Tell how many descriptors are open, and how many may be."""
        # Since Linux 6.2 the folder's size is their number; before it is 0.
        count = os.stat(f"{_OWN}/fd").st_size  # noqa: PTH116 - hot path
        if not count:
            count = len(os.listdir(f"{_OWN}/fd")) - 1  # noqa: PTH208
        return count, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
