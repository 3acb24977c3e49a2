"""Read the process table from /proc. See proc(5)."""

import os
import pwd
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from narthex_exporter.contract.facts import ProcessDetailFact, ProcessFact
from narthex_exporter.sources import processdetails
from narthex_exporter.sources.text import clean

_PF_KTHREAD: Final = 0x00200000
_CMDLINE_BYTES: Final = 4096
_SAMPLE_SECONDS: Final = 0.25
_SAMPLE_AGE_SECONDS: Final = 60.0
_CONTAINER: Final = re.compile(r"(?:^|[/-])([0-9a-f]{64})(?:\.scope)?(?:/|$)")
_OUR_UNIT: Final = re.compile(r"narthex-[^/]*\.service")

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """What /proc/PID/stat tells, as far as it is used here. Times are clock ticks."""

    comm: str
    state: str
    ppid: int
    session: int
    flags: int
    cpu_ticks: int
    nice: int
    threads: int
    start_ticks: int
    rss_pages: int


def parse_stat(raw: bytes) -> Stat:
    """Parse /proc/PID/stat. The name may hold spaces and brackets. Raises ValueError."""
    start, end = raw.index(b"("), raw.rindex(b")")
    fields = raw[end + 2 :].split()
    try:
        return Stat(
            comm=clean(raw[start + 1 : end], limit=64),
            state=fields[0].decode("ascii", "replace"),
            ppid=int(fields[1]),
            session=int(fields[3]),
            flags=int(fields[6]),
            cpu_ticks=int(fields[11]) + int(fields[12]),
            nice=int(fields[16]),
            threads=int(fields[17]),
            start_ticks=int(fields[19]),
            rss_pages=int(fields[21]),
        )
    except IndexError as error:
        raise ValueError("a short stat line") from error


def parse_owner(cgroup: str) -> tuple[str, str]:
    """Tell unit and container (its short id) from /proc/PID/cgroup, v1 and v2."""
    paths = {}
    for line in cgroup.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths[controllers] = path
    # Where systemd keeps units: the unified hierarchy, or its own named one.
    path = paths.get("name=systemd") or paths.get("") or ""
    found = next(filter(None, map(_CONTAINER.search, paths.values())), None)
    container = found[1][:12] if found else ""
    unit = next((part for part in path.split("/") if part.endswith((".service", ".scope"))), "")
    return clean(unit, limit=255), container


def parse_user_unit(cgroup: str) -> str:
    """Tell the unit of the user's own systemd from /proc/PID/cgroup; empty where there is none."""
    for line in cgroup.splitlines():
        *_, path = line.split(":", 2)
        _, manager, below = path.partition("/user@")
        if manager:
            # The first part is the manager itself: 1000.service.
            parts = below.split("/")[1:]
            unit = next((one for one in parts if one.endswith((".service", ".scope"))), "")
            return clean(unit, limit=255)
    return ""


def parse_uid(status: str) -> int:
    """Tell the effective user id from /proc/PID/status. Raises ValueError."""
    for line in status.splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise ValueError("a status without Uid")


@dataclass(slots=True)
class Processes:
    """The processes of this node.

    ``protected`` are processes of ours by number: they, their descendants, processes in a
    ``narthex-*.service`` and ``narthex`` programs of our own user are ``is_ours``.
    """

    proc: Path = Path("/proc")
    protected: Iterable[int] = ()
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    ticks_per_second: int = field(default_factory=lambda: os.sysconf("SC_CLK_TCK"))
    page_bytes: int = field(default_factory=lambda: os.sysconf("SC_PAGE_SIZE"))
    _ours: frozenset[Identity] = field(default=frozenset(), init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _sample: Mapping[Identity, int] = field(default_factory=dict, init=False)
    _sampled_at: float = field(default=float("-inf"), init=False)

    def __post_init__(self) -> None:
        # With their start times: a protected number that is reused later is not ours.
        stats = ((pid, self._stat(pid)) for pid in self.protected)
        self._ours = frozenset((pid, stat.start_ticks) for pid, stat in stats if stat is not None)

    def get(self, pid: int) -> ProcessFact | None:
        """Look one process up; ``None`` when there is none."""
        stat = self._stat(pid)
        return None if stat is None else self._fact(pid, {pid: stat}, self._boot_seconds(), None)

    def start_ticks(self, pid: int) -> int | None:
        """Tell when a process started, in ticks after boot; ``None`` when there is none."""
        stat = self._stat(pid)
        return None if stat is None else stat.start_ticks

    def parents(self) -> dict[int, int]:
        """Tell the parent of every process."""
        return {pid: stat.ppid for pid, stat in self._stats()}

    def details(self, pid: int, start_ticks: int) -> ProcessDetailFact | None:
        """Look into one process; ``None`` when exactly that one is gone."""
        found = processdetails.look(self.proc, pid)
        return found if self.start_ticks(pid) == start_ticks else None

    def environment(self, pid: int, start_ticks: int) -> Sequence[str] | None:
        """Read a process's environment; ``None`` when it is gone. Raises UnavailableError."""
        found = processdetails.environment(self.proc, pid)
        return found if self.start_ticks(pid) == start_ticks else None

    def session(self, leader: int) -> Sequence[Identity]:
        """List the processes of a session, whose number is its first process's."""
        return [
            (pid, stat.start_ticks) for pid, stat in self._stats() if stat.session == leader > 1
        ]

    def list(self) -> list[ProcessFact]:
        """List every process; waits 0.25 s where there is no earlier look to compare with."""
        with self._lock:
            if self.clock() - self._sampled_at > _SAMPLE_AGE_SECONDS:
                self._sample, self._sampled_at = self._cpu_ticks(), self.clock()
                self.sleep(_SAMPLE_SECONDS)
            before, age = self._sample, self.clock() - self._sampled_at
            stats = dict(self._stats())
            now = {(pid, stat.start_ticks): stat.cpu_ticks for pid, stat in stats.items()}
            if age >= _SAMPLE_SECONDS:
                self._sample, self._sampled_at = now, self.clock()
        boot = self._boot_seconds()
        found = []
        for pid, stat in stats.items():
            earlier = before.get((pid, stat.start_ticks))
            ratio = None
            if earlier is not None and age > 0:
                ratio = max(0.0, (stat.cpu_ticks - earlier) / self.ticks_per_second / age)
            fact = self._fact(pid, stats, boot, ratio)
            if fact is not None:
                found.append(fact)
        return found

    def _stats(self) -> Iterator[tuple[int, Stat]]:
        for entry in self.proc.iterdir():
            if entry.name.isdecimal() and (stat := self._stat(int(entry.name))) is not None:
                yield int(entry.name), stat

    def _cpu_ticks(self) -> dict[Identity, int]:
        return {(pid, stat.start_ticks): stat.cpu_ticks for pid, stat in self._stats()}

    def _stat(self, pid: int) -> Stat | None:
        try:
            return parse_stat((self.proc / str(pid) / "stat").read_bytes())
        except (OSError, ValueError):
            return None

    def _fact(
        self, pid: int, stats: Mapping[int, Stat], boot: float, ratio: float | None
    ) -> ProcessFact | None:
        stat = stats[pid]
        folder = self.proc / str(pid)
        try:
            uid = parse_uid((folder / "status").read_text(errors="replace"))
            with (folder / "cmdline").open("rb") as file:
                raw = file.read(_CMDLINE_BYTES).rstrip(b"\0")
            cgroup = (folder / "cgroup").read_text(errors="replace")
        except (OSError, ValueError):
            return None  # it ended while we looked
        owner_unit, container = parse_owner(cgroup)
        cmdline = "\0".join(clean(part, limit=_CMDLINE_BYTES) for part in raw.split(b"\0"))
        return ProcessFact(
            pid=pid,
            start_ticks=stat.start_ticks,
            ppid=stat.ppid,
            user=user_name(uid),
            uid=uid,
            comm=stat.comm,
            cmdline=cmdline,
            state=stat.state,
            nice=stat.nice,
            threads=stat.threads,
            rss_bytes=stat.rss_pages * self.page_bytes,
            cpu_seconds=stat.cpu_ticks / self.ticks_per_second,
            started_at_seconds=boot + stat.start_ticks / self.ticks_per_second,
            is_kernel_thread=bool(stat.flags & _PF_KTHREAD),
            is_ours=(
                self._is_program_of_ours(pid, uid, cmdline, owner_unit)
                or self._has_protected_ancestor(pid, stats)
            ),
            owner_unit=owner_unit,
            owner_container=container,
            cpu_ratio=ratio,
            owner_user_unit=parse_user_unit(cgroup),
        )

    def _is_program_of_ours(self, pid: int, uid: int, cmdline: str, unit: str) -> bool:
        if pid == os.getpid() or _OUR_UNIT.fullmatch(unit):
            return True
        # Only our own user's: others could name a process so, to make it untouchable.
        return uid == os.geteuid() and _is_narthex(cmdline)

    def _has_protected_ancestor(self, pid: int, stats: Mapping[int, Stat]) -> bool:
        seen: set[int] = set()
        while self._ours and pid > 1 and pid not in seen:
            stat = stats.get(pid) or self._stat(pid)
            if stat is None:
                return False
            if (pid, stat.start_ticks) in self._ours:
                return True
            seen.add(pid)
            pid = stat.ppid
        return False

    def _boot_seconds(self) -> float:
        for line in (self.proc / "stat").read_text().splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
        return 0.0


def _is_narthex(cmdline: str) -> bool:
    program, *words = cmdline.split("\0")
    if Path(program).name == "narthex":
        return True
    # `python …/bin/narthex up`, `python -Im narthex_exporter actor`
    return Path(program).name.startswith("python") and any(
        Path(word).name == "narthex" or word.split(".")[0] == "narthex_exporter"
        for word in words[:3]
    )


@lru_cache(maxsize=4096)
def user_name(uid: int) -> str:
    """Name a user; its number where it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
