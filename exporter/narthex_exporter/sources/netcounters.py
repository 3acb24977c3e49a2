"""Read what the network stack counts: /proc/net/snmp, netstat, snmp6, softnet_stat and stat/."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from narthex_exporter.sources.procfs import Procfs

_HEX: Final = 16
# Where the columns of /proc/net/softnet_stat are; see softnet_seq_show() in the kernel.
_OLDEST_COLUMNS: Final = 9
_INDEX: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Softnet:
    """What one CPU's backlog of packets did; None where this kernel does not tell."""

    cpu: str
    processed: int
    dropped: int
    times_squeezed: int
    cpu_collision: int
    received_rps: int | None
    flow_limit_count: int | None
    backlog_len: int | None


def protocol_lines(text: str) -> Iterator[tuple[str, str]]:
    """Pair each line of names in /proc/net/snmp or netstat with its line of values."""
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        if names.partition(":")[0] == values.partition(":")[0]:
            yield names, values


def parse_softnet(text: str) -> list[Softnet]:
    """Parse /proc/net/softnet_stat: hexadecimal columns, a line a CPU. Raises ValueError."""
    found = []
    for position, line in enumerate(text.splitlines()):
        numbers = [int(word, _HEX) for word in line.split()]
        if len(numbers) < _OLDEST_COLUMNS:
            raise ValueError("a short line in softnet_stat")
        # Columns came with Linux 2.6.39 (9), 4.18 (10) and 5.14 (11, 12).
        newer = dict(enumerate(numbers))
        found.append(
            Softnet(
                cpu=str(newer.get(_INDEX, position)),
                processed=numbers[0],
                dropped=numbers[1],
                times_squeezed=numbers[2],
                cpu_collision=numbers[8],
                received_rps=newer.get(9),
                flow_limit_count=newer.get(10),
                backlog_len=newer.get(11) if _INDEX in newer else None,
            )
        )
    return found


def caches(proc: Procfs) -> Iterator[tuple[str, str]]:
    """Give name and text of each file in /proc/net/stat. Raises FileNotFoundError."""
    for name in sorted(os.listdir(proc.root / "net/stat")):  # noqa: PTH208 - names only
        try:
            yield name, proc.text(f"net/stat/{name}")
        except OSError:
            continue  # its module was unloaded just now


def parse_cache(text: str) -> Iterator[tuple[str, int, int]]:
    """Give column, row (a CPU) and number of a file of /proc/net/stat. Raises ValueError."""
    names, *rows = text.splitlines() or [""]
    columns = names.split()
    for row, line in enumerate(rows):
        for column, word in zip(columns, line.split(), strict=False):
            yield column, row, int(word, _HEX)
