"""Read how the kernel lays out memory: swaps, free blocks, slabs, zones, NUMA nodes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from narthex_exporter.sources.sysfs import Sysfs

_SWAP_WORDS: Final = 5
_BUDDY_WORDS: Final = 4
_SLAB_WORDS: Final = 6
_NUMA_NODES: Final = "devices/system/node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One line of /proc/swaps; ``device`` with the kernel's octal escapes."""

    device: str
    kind: str
    size_bytes: int
    used_bytes: int
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """One zone of /proc/zoneinfo; the first of a NUMA node has the node's own fields too."""

    node: str
    zone: str
    fields: dict[str, int]
    protection: tuple[int, ...]


def parse_swaps(text: str) -> list[Swap]:
    """Parse /proc/swaps. Raises ValueError."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) >= _SWAP_WORDS:
            size, used, priority = map(int, words[2:5])
            found.append(
                Swap(
                    device=words[0],
                    kind=words[1],
                    size_bytes=size * 1024,
                    used_bytes=used * 1024,
                    priority=priority,
                )
            )
    return found


def parse_buddyinfo(text: str) -> Iterator[tuple[str, str, list[int]]]:
    """Give NUMA node, zone and free blocks by order. Raises ValueError."""
    for line in text.splitlines():
        words = line.replace(",", "").split()
        if len(words) > _BUDDY_WORDS and words[0] == "Node":
            yield words[1], words[3], [int(word) for word in words[4:]]


def parse_slabinfo(text: str) -> Iterator[tuple[str, list[int]]]:
    """Give slab and its five numbers, as slabinfo(5) orders them. Raises ValueError."""
    for line in text.splitlines()[1:]:
        words = line.split(None, _SLAB_WORDS)
        if len(words) >= _SLAB_WORDS and not line.startswith("#"):
            yield words[0], [int(word) for word in words[1:_SLAB_WORDS]]


def parse_zoneinfo(text: str) -> list[Zone]:
    """Parse /proc/zoneinfo; what has no number is skipped."""
    found: list[Zone] = []
    for block in text.split("Node ")[1:]:
        head, _, rest = block.partition("\n")
        node, _, zone = head.partition(", zone")
        fields: dict[str, int] = {}
        protection: tuple[int, ...] = ()
        for line in rest.splitlines():
            words = line.replace("(", " ").replace(")", " ").replace(",", " ").split()
            if len(words) > 1 and words[0] == "protection:":
                protection = tuple(map(int, words[1:]))
            elif len(words) > 1 and words[1].isdecimal():
                fields[words[0]] = int(words[1])
        found.append(
            Zone(node=node.strip(), zone=zone.strip(), fields=fields, protection=protection)
        )
    return found


def numa_nodes(sys: Sysfs) -> Iterator[tuple[str, str, str]]:
    """Give number, meminfo and numastat of each NUMA node."""
    for name in sys.names(_NUMA_NODES):
        number = name.removeprefix("node")
        if number != name and number.isdecimal():
            yield (
                number,
                sys.text(f"{_NUMA_NODES}/{name}/meminfo") or "",
                sys.text(f"{_NUMA_NODES}/{name}/numastat") or "",
            )


def parse_numa_meminfo(text: str) -> Iterator[tuple[str, int]]:
    """Give field and bytes (or pages) of ``Node 0 MemTotal: 7 kB`` lines. Raises ValueError."""
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and name.strip():
            yield name.split()[-1], int(words[0]) * (1024 if words[1:] == ["kB"] else 1)


def parse_numastat(text: str) -> Iterator[tuple[str, int]]:
    """Give counter and pages. Raises ValueError."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if number:
            yield name, int(number)
