"""Read what XFS counts, from /sys/fs/xfs."""

from narthex_exporter.sources.sysfs import Sysfs


def parse(text: str) -> dict[str, list[int]]:
    """Parse the statistics of one filesystem: groups, and their numbers in the kernel's order.

    See Documentation/admin-guide/xfs.rst; lines of another shape are skipped.
    """
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and all(map(str.isdecimal, words[1:])):
            found[words[0]] = list(map(int, words[1:]))
    return found


def filesystems(sys: Sysfs) -> list[str]:
    """Name the block devices with a mounted XFS."""
    return [name for name in sys.names("fs/xfs") if name not in {"stats", "debug"}]


def statistics(sys: Sysfs, device: str) -> dict[str, list[int]]:
    """Give the statistics of one; nothing where it has been unmounted."""
    return parse(sys.text(f"fs/xfs/{device}/stats/stats") or "")
