"""Read the counters of ZFS, from its kstats below /proc/spl."""

import itertools
import os
from collections.abc import Iterator

from narthex_exporter.sources.procfs import Procfs

_BASE = "spl/kstat/zfs"
# See the kstat.h of OpenZFS: KSTAT_DATA_INT64 and KSTAT_DATA_UINT64.
_NUMBERS = frozenset({"3", "4"})
_COLUMNS = 3


def parse_named(text: str) -> dict[str, int]:
    """Parse a kstat of names, types and numbers; other types are left out."""
    _, _, body = text.partition("data\n")
    found = {}
    for line in body.split("\n"):
        words = line.split()
        if len(words) == _COLUMNS and words[1] in _NUMBERS:
            try:
                found[words[0]] = int(words[2])
            except ValueError:
                continue
    return found


def parse_dataset(text: str) -> tuple[str, dict[str, int]]:
    """Parse a dataset's kstat: its name, which may hold blanks, and its numbers."""
    _, found, rest = text.partition("dataset_name")
    name = rest.partition("\n")[0].lstrip()[1:].lstrip() if found else ""
    return name, parse_named(text)


def parse_io(text: str) -> dict[str, int]:
    """Parse a kstat of one row below its names."""
    lines = [line.split() for line in text.split("\n")]
    for names, values in itertools.pairwise(lines):
        if names[:1] == ["nread"]:
            pairs = zip(names, values, strict=False)
            return {name: int(value) for name, value in pairs if value.isdecimal()}
    return {}


def present(proc: Procfs) -> bool:
    """Tell whether ZFS is loaded."""
    return os.path.isdir(f"{proc.root}/{_BASE}")  # noqa: PTH112 - hot path


def numbers(proc: Procfs, name: str) -> dict[str, int]:
    """Give one of the module's kstats; nothing where this version has none of the name."""
    text = _text(proc, name)
    return {} if text is None else parse_named(text)


def pools(proc: Procfs) -> list[str]:
    """Name the pools that are imported, sorted."""
    with os.scandir(f"{proc.root}/{_BASE}") as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def io(proc: Procfs, pool: str) -> dict[str, int]:
    """Give a pool's reads and writes; versions from 2.0 on have none."""
    text = _text(proc, f"{pool}/io")
    return {} if text is None else parse_io(text)


def state(proc: Procfs, pool: str) -> str | None:
    """Give a pool's health, in small letters; None where it is gone or not told."""
    text = _text(proc, f"{pool}/state")
    return None if text is None else text.strip().lower()


def datasets(proc: Procfs, pool: str) -> list[str]:
    """Name the kstats of a pool's datasets, for ``dataset``."""
    try:
        names = os.listdir(f"{proc.root}/{_BASE}/{pool}")  # noqa: PTH208 - hot path
    except OSError:
        return []
    return sorted(name for name in names if name.startswith("objset-"))


def dataset(proc: Procfs, pool: str, name: str) -> tuple[str, dict[str, int]]:
    """Give a dataset's name and numbers; no numbers where it is gone."""
    text = _text(proc, f"{pool}/{name}")
    return ("", {}) if text is None else parse_dataset(text)


def _text(proc: Procfs, name: str) -> str | None:
    try:
        return proc.text(f"{_BASE}/{name}")
    except OSError:
        return None


def each_dataset(
    proc: Procfs, found: list[tuple[str, str]]
) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Give pool, dataset and numbers of those kstats that can be read."""
    for pool, kstat in found:
        name, counts = dataset(proc, pool, kstat)
        if name:
            yield pool, name, counts
