"""Read what CPUs there are, how fast they run and whether they were throttled."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import CpuTimes
from narthex_exporter.sources.sysfs import Sysfs

_BASE: Final = "devices/system/cpu"
# The kernel lets counts sink a little; a bigger fall is a CPU that was off and came back.
_FALL_SECONDS: Final = 3.0
_IDLE: Final = 3
_MODES: Final = 8
_SETTINGS_SECONDS: Final = 30.0
_SCHEDSTAT_WORDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuInfo:
    """One CPU in /proc/cpuinfo, with the kernel's names of the fields."""

    fields: dict[str, str]

    def get(self, name: str) -> str:
        """Give a field; empty where there is none."""
        return self.fields.get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttles:
    """How often a core or a package was too hot; ``core`` is None for a package."""

    package: str
    core: str | None
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frequency:
    """The frequency settings of one CPU, in kHz; they change by hand only."""

    cpu: str
    minimum: int | None
    maximum: int | None
    scaling_minimum: int | None
    scaling_maximum: int | None
    governor: str
    governors: tuple[str, ...]


def parse_cpuinfo(text: str) -> list[CpuInfo]:
    """Parse /proc/cpuinfo; a block without ``processor`` is no CPU."""
    found = []
    for block in text.split("\n\n"):
        fields = {}
        for line in block.splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
        if fields.get("processor", "").isdecimal():
            found.append(CpuInfo(fields=fields))
    return found


def parse_cpu_list(text: str) -> list[int]:
    """Parse a list of CPUs such as ``0-3,8``. Raises ValueError."""
    found: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        # cpuset's notation has strides too: 0-30:2/4, which this kernel file never uses.
        found += range(int(first), int(last or first) + 1)
    return found


def parse_schedstat(text: str) -> Iterator[tuple[str, int, int, int]]:
    """Give CPU, nanoseconds running, nanoseconds waiting and timeslices. Raises ValueError.

    See the kernel's Documentation/scheduler/sched-stats.rst.
    """
    for line in text.splitlines():
        if line.startswith("cpu"):
            words = line.split()
            if len(words) >= _SCHEDSTAT_WORDS:
                yield words[0][3:], int(words[7]), int(words[8]), int(words[9])


@dataclass(slots=True)
class Cpus:
    """The CPUs: where they sit, and times that never go back."""

    _online: str | None = field(default=None, init=False)
    _places: list[tuple[str, str, str]] = field(default_factory=list, init=False)
    _last: dict[str, tuple[float, ...]] = field(default_factory=dict, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        del paths
        return cls()

    def steady(self, cpus: Iterable[CpuTimes]) -> list[CpuTimes]:
        """Hold back times that went down: iowait and idle do, see proc(5)."""
        found, seen = [], {}
        for each in cpus:
            now = (*each.modes, each.guest, each.guest_nice)
            last = self._last.get(each.cpu)
            if last is not None and last != now and last[_IDLE] - now[_IDLE] < _FALL_SECONDS:
                now = tuple(map(max, last, now))
            seen[each.cpu] = now
            found.append(CpuTimes(each.cpu, now[:_MODES], now[_MODES], now[_MODES + 1]))
        self._last = seen
        return found

    def throttles(self, sys: Sysfs) -> Iterator[Throttles]:
        """Count overheating once a core and once a package."""
        seen: set[tuple[str, str | None]] = set()
        for cpu, package, core in self._where(sys):
            folder = f"{_BASE}/{cpu}/thermal_throttle"
            for file, which in (("core_throttle_count", core), ("package_throttle_count", None)):
                if (package, which) in seen:
                    continue
                count = sys.number(f"{folder}/{file}")
                if count is not None:
                    seen.add((package, which))
                    yield Throttles(package=package, core=which, count=count)

    def _where(self, sys: Sysfs) -> list[tuple[str, str, str]]:
        """Give CPU, package and core of those that count throttling, anew when CPUs change."""
        online = sys.text(f"{_BASE}/online") or ""
        if online != self._online:
            self._places = []
            for cpu in _names(sys):
                package = sys.number(f"{_BASE}/{cpu}/topology/physical_package_id")
                core = sys.number(f"{_BASE}/{cpu}/topology/core_id")
                counted = sys.names(f"{_BASE}/{cpu}/thermal_throttle")
                if counted and package is not None and core is not None:
                    self._places.append((cpu, str(package), str(core)))
            self._online = online
        return self._places


@dataclass(slots=True)
class Frequencies:
    """How CPUs may run. What is set by hand is read anew each half minute."""

    clock: Callable[[], float] = time.monotonic
    _known: list[Frequency] = field(default_factory=list, init=False)
    _at: float = field(default=float("-inf"), init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        del paths
        return cls()

    def get(self, sys: Sysfs) -> list[Frequency]:
        """Give the settings of each CPU that has some."""
        now = self.clock()
        if now - self._at >= _SETTINGS_SECONDS:
            self._known = [_frequency(sys, cpu) for cpu in _names(sys) if _scales(sys, cpu)]
            self._at = now
        return self._known


def current_kilohertz(sys: Sysfs, cpu: str, name: str) -> int | None:
    """Read a frequency that moves, such as ``scaling_cur_freq``."""
    return sys.number(f"{_BASE}/cpu{cpu}/cpufreq/{name}")


def listed(sys: Sysfs, name: str) -> list[int] | None:
    """Read a list of CPUs, such as ``online``; None where this kernel has none."""
    text = sys.text(f"{_BASE}/{name}")
    return None if text is None else parse_cpu_list(text)


def _names(sys: Sysfs) -> list[str]:
    found = [name for name in sys.names(_BASE) if name[:3] == "cpu" and name[3:].isdecimal()]
    return sorted(found, key=lambda name: int(name[3:]))


def _scales(sys: Sysfs, cpu: str) -> bool:
    return bool(sys.names(f"{_BASE}/{cpu}/cpufreq"))


def _frequency(sys: Sysfs, cpu: str) -> Frequency:
    folder = f"{_BASE}/{cpu}/cpufreq"
    return Frequency(
        cpu=cpu[3:],
        minimum=sys.number(f"{folder}/cpuinfo_min_freq"),
        maximum=sys.number(f"{folder}/cpuinfo_max_freq"),
        scaling_minimum=sys.number(f"{folder}/scaling_min_freq"),
        scaling_maximum=sys.number(f"{folder}/scaling_max_freq"),
        governor=sys.text(f"{folder}/scaling_governor") or "",
        governors=tuple((sys.text(f"{folder}/scaling_available_governors") or "").split()),
    )
