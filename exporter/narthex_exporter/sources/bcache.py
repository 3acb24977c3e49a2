"""Read the state of bcache, from /sys/fs/bcache."""

import math
from typing import Final

from narthex_exporter.sources.sysfs import Sysfs

# See bch_hprint() in drivers/md/bcache/util.c: binary multiples, one decimal digit.
_UNITS: Final = {letter: 1 << (10 * power) for power, letter in enumerate("kMGTPEZY", 1)}


def parse_size(text: str) -> int:
    """Parse a number as bcache prints it: ``512``, ``-1.5k``, ``3.0G``. Raises ValueError."""
    units = _UNITS.get(text[-1:], 1)
    value = float(text if units == 1 else text[:-1]) * units
    if not math.isfinite(value):
        raise ValueError("a size is finite")
    return int(value)


def parse_rates(text: str) -> dict[str, int]:
    """Parse ``writeback_rate_debug``; lines whose value is no size are skipped."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        try:
            found[name] = parse_size(value.strip().removesuffix("/sec"))
        except ValueError:
            continue
    return found


def parse_priorities(text: str) -> dict[str, int]:
    """Parse the percentages of ``priority_stats``."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        percent = value.strip()
        if percent.endswith("%") and percent[:-1].isdecimal():
            found[name] = int(percent[:-1])
    return found


def sets(sys: Sysfs) -> list[str]:
    """Name the cache sets, by UUID."""
    return [name for name in sys.names("fs/bcache") if "-" in name]


def members(sys: Sysfs, cache_set: str) -> tuple[list[str], list[str]]:
    """Name the backing devices (``bdev0``) and the caches (``cache0``) of a set."""
    names = sys.names(f"fs/bcache/{cache_set}")
    backing = [name for name in names if name.startswith("bdev") and name[4:5].isdecimal()]
    return backing, [name for name in names if name.startswith("cache") and name[5:].isdecimal()]


def size(sys: Sysfs, path: str) -> int | None:
    """Give one attribute below /sys/fs/bcache; None where it is not there or no number."""
    text = sys.text(f"fs/bcache/{path}")
    try:
        return None if text is None else parse_size(text)
    except ValueError:
        return None
