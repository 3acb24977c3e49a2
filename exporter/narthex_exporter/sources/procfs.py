"""Read /proc: a method a file, each a parser that skips what it does not know."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from narthex_exporter.sources.files import Files

# See proc(5): USER_HZ is 100 on every architecture that Linux has left.
_HZ: Final = 100.0
CPU_MODES: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
# What /proc/net/dev calls its columns, as node_exporter names them.
NET_COLUMNS: Final = (
    *(f"receive_{n}" for n in ("bytes", "packets", "errs", "drop", "fifo", "frame")),
    *("receive_compressed", "receive_multicast"),
    *(f"transmit_{n}" for n in ("bytes", "packets", "errs", "drop", "fifo", "colls")),
    *("transmit_carrier", "transmit_compressed"),
)


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """What one CPU did, in seconds; ``modes`` in the order of CPU_MODES."""

    cpu: str
    modes: tuple[float, ...]
    guest: float
    guest_nice: float


@dataclass(slots=True)
class Stat:
    """What /proc/stat tells; ``numbers`` has each line's first value."""

    cpus: list[CpuTimes] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    softirqs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DiskStats:
    """One line of /proc/diskstats; ``numbers`` as the kernel orders them, 11 to 17."""

    major: str
    minor: str
    device: str
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Procfs:
    """The files below ``root``, at one moment: what two collectors read is read once.

    Each method raises FileNotFoundError where this kernel has no such file, and ValueError where
    the file is not what its documentation says.
    """

    root: Path = Path("/proc")
    files: Files = field(default_factory=Files)

    _base: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_base", f"{self.root}/")

    def fresh(self) -> "Procfs":
        """Give the same files at a later moment."""
        return Procfs(self.root, self.files)

    def bytes(self, name: str) -> bytes:
        """Read a file below the root."""
        return self.files.read(self._base + name)

    def text(self, name: str) -> str:
        """Read a file; what is not UTF-8 is shown as U+FFFD."""
        return self.files.read(self._base + name).decode("utf-8", "replace")

    @cached_property
    def stat(self) -> Stat:
        """Parse /proc/stat."""
        found = Stat()
        for line in self.text("stat").splitlines():
            name, _, rest = line.partition(" ")
            if name.startswith("cpu"):
                if name != "cpu":
                    found.cpus.append(_cpu_times(name[3:], rest))
            elif rest:
                found.numbers[name] = int(rest.split(None, 1)[0])
                if name == "softirq":
                    found.softirqs = tuple(map(int, rest.split()[1:]))
        return found

    def loadavg(self) -> tuple[float, float, float]:
        """Give the load of one, five and fifteen minutes."""
        one, five, fifteen = self.text("loadavg").split()[:3]
        return float(one), float(five), float(fifteen)

    def meminfo(self) -> list[tuple[str, int, bool]]:
        """Give name, number and whether it is in kB, of each line."""
        found = []
        for line in self.text("meminfo").split("\n"):
            name, _, rest = line.partition(":")
            if rest.endswith(" kB"):
                found.append((name, int(rest[:-3]), True))
            elif rest and not rest.isspace():
                found.append((name, int(rest.split(None, 1)[0]), False))
        return found

    def vmstat(self) -> dict[str, int]:
        """Give /proc/vmstat by name."""
        pairs = (line.split() for line in self.text("vmstat").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1}

    def diskstats(self) -> list[DiskStats]:
        """Give the counters of each block device."""
        found = []
        for line in self.text("diskstats").splitlines():
            words = line.split()
            if len(words) >= 14:  # noqa: PLR2004 - three names and eleven numbers
                numbers = tuple(map(int, words[3:]))
                found.append(DiskStats(words[0], words[1], words[2], numbers))
        return found

    def net_dev(self) -> list[tuple[str, tuple[int, ...]]]:
        """Give each network device's counters, in the order of NET_COLUMNS."""
        found = []
        for line in self.text("net/dev").splitlines()[2:]:
            device, _, rest = line.rpartition(":")
            found.append((device.strip(), tuple(map(int, rest.split()))))
        return found

    def file_nr(self) -> tuple[int, int]:
        """Give how many file handles are allocated, and how many may be."""
        allocated, _, maximum = self.text("sys/fs/file-nr").split()
        return int(allocated), int(maximum)

    def sockstat(self, name: str = "sockstat") -> list[tuple[str, str, int]]:
        """Give protocol, field and number of /proc/net/sockstat (or sockstat6)."""
        found = []
        for line in self.text(f"net/{name}").splitlines():
            protocol, _, rest = line.partition(":")
            words = rest.split()
            pairs = zip(words[::2], words[1::2], strict=False)
            found += [(protocol, key, int(value)) for key, value in pairs]
        return found

    def pressure(self, resource: str) -> dict[str, float]:
        """Give the seconds that ``some`` and ``full`` of the tasks waited for a resource."""
        found = {}
        for line in self.text(f"pressure/{resource}").splitlines():
            kind, _, rest = line.partition(" ")
            found[kind] = int(rest.rpartition("total=")[2]) / 1e6
        return found

    def arp_devices(self) -> list[str]:
        """Name the device of each entry of /proc/net/arp."""
        lines = self.text("net/arp").splitlines()[1:]
        return [line.rsplit(None, 1)[-1] for line in lines if line.strip()]

    def conntrack(self) -> tuple[int, int]:
        """Give how many connections are tracked, and how many may be."""
        folder = "sys/net/netfilter"
        entries, most = (self.text(f"{folder}/nf_conntrack_{n}") for n in ("count", "max"))
        return int(entries), int(most)

    def conntrack_stat(self) -> dict[str, int]:
        """Give what /proc/net/stat/nf_conntrack counts, by column, of all CPUs together."""
        names, *rows = (line.split() for line in self.text("net/stat/nf_conntrack").splitlines())
        columns = zip(*([int(word, 16) for word in row] for row in rows), strict=False)
        return dict(zip(names, map(sum, columns), strict=False))

    def udp_queues(self, file: str) -> tuple[int, int]:
        """Give the bytes that all sockets of net/udp or net/udp6 have yet to send, and to read."""
        sent = received = 0
        for line in self.bytes(f"net/{file}").splitlines()[1:]:
            words = line.split(None, 5)
            if len(words) > 4:  # noqa: PLR2004 - the queues are the fifth
                to_send, _, to_read = words[4].partition(b":")
                if to_send != b"00000000":
                    sent += int(to_send, 16)
                if to_read != b"00000000":
                    received += int(to_read, 16)
        return sent, received

    def softirqs(self) -> tuple[list[str], list[tuple[str, list[int]]]]:
        """Give the numbers of the CPUs, and how often each ran each kind of softirq."""
        heads, *lines = self.text("softirqs").splitlines()
        rows = []
        for line in lines:
            kind, _, rest = line.partition(":")
            rows.append((kind.strip(), list(map(int, rest.split()))))
        return [head.removeprefix("CPU") for head in heads.split()], rows

    def xfrm_stat(self) -> dict[str, int]:
        """Give /proc/net/xfrm_stat by name."""
        pairs = (line.split() for line in self.text("net/xfrm_stat").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1}


def _cpu_times(cpu: str, rest: str) -> CpuTimes:
    times = [int(word) / _HZ for word in rest.split()]
    times += [0.0] * (10 - len(times))  # old kernels have fewer columns
    return CpuTimes(cpu, tuple(times[:8]), times[8], times[9])
