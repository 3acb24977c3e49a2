"""Report how full filesystems are, and which do not answer."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import (
    NoData,
    Node,
    Option,
    Sample,
    collector,
    gauge,
    limit_option,
    pattern_option,
)

_LABELS = ("device", "mountpoint", "fstype", "device_error")
SIZE = gauge("node_filesystem_size_bytes", "Filesystem size in bytes.", _LABELS)
FREE = gauge("node_filesystem_free_bytes", "Filesystem free space in bytes.", _LABELS)
AVAILABLE = gauge(
    "node_filesystem_avail_bytes",
    "Filesystem space available to non-root users in bytes.",
    _LABELS,
)
FILES = gauge("node_filesystem_files", "Filesystem total file nodes.", _LABELS)
FILES_FREE = gauge("node_filesystem_files_free", "Filesystem total free file nodes.", _LABELS)
READONLY = gauge("node_filesystem_readonly", "Filesystem read-only status.", _LABELS)
ERROR = gauge(
    "node_filesystem_device_error",
    "Whether an error occurred while getting statistics for the given device.",
    _LABELS,
)
INFO = gauge(
    "node_filesystem_mount_info",
    "Filesystem mount information.",
    ("device", "major", "minor", "mountpoint"),
)

MOUNT_POINTS_INCLUDE = pattern_option("mount-points-include", "", "Mount points to report.")
FS_TYPES_INCLUDE = pattern_option("fs-types-include", "", "Filesystem types to report.")
MAX = limit_option("max", 200, "How many filesystems to report at most.")
MOUNT_POINTS_EXCLUDE = pattern_option(
    "mount-points-exclude",
    r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
    "Mount points to leave out.",
)
FS_TYPES_EXCLUDE = pattern_option(
    "fs-types-exclude",
    r"^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs"
    r"|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs"
    r"|erofs|sysfs|tracefs)$",
    "Filesystem types to leave out.",
)
# All mounts together: less than the shortest scrape timeout that we configure.
_TOTAL_SECONDS = 2.0


def _timeout(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _TOTAL_SECONDS:
        raise ValueError(f"not more than 0 and at most {_TOTAL_SECONDS:g} seconds")
    return seconds


MOUNT_TIMEOUT = Option(
    "mount-timeout",
    "1",
    _timeout,
    "Seconds to wait for one mount before it counts as stuck; at most 2.",
)


@collector(
    name="filesystem",
    metrics=(SIZE, FREE, AVAILABLE, FILES, FILES_FREE, READONLY, ERROR, INFO),
    options=(
        MOUNT_POINTS_INCLUDE,
        MOUNT_POINTS_EXCLUDE,
        FS_TYPES_INCLUDE,
        FS_TYPES_EXCLUDE,
        MAX,
        MOUNT_TIMEOUT,
    ),
    limit_seconds=3.0,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report how full filesystems are, and which do not answer."""
    mounts = node.capped(
        MAX,
        node.filesystems.chosen(
            points=(node.setting(MOUNT_POINTS_INCLUDE), node.setting(MOUNT_POINTS_EXCLUDE)),
            kinds=(node.setting(FS_TYPES_INCLUDE), node.setting(FS_TYPES_EXCLUDE)),
        ),
    )
    if not mounts:
        raise NoData("every mount is left out")
    spaces = node.filesystems.spaces(
        mounts, limit_seconds=node.setting(MOUNT_TIMEOUT), total_seconds=_TOTAL_SECONDS
    )
    for mount in mounts:
        outcome = spaces[mount]
        error = ""
        if outcome.error is not None:
            error = "mountpoint timeout" if outcome.stuck else _reason(outcome.error)
        labels = (mount.device, mount.point, mount.kind, error)
        yield ERROR.at(1 if error else 0, *labels)
        yield READONLY.at(mount.readonly, *labels)
        space = outcome.value
        if space is not None:
            yield SIZE.at(space.size, *labels)
            yield FREE.at(space.free, *labels)
            yield AVAILABLE.at(space.available, *labels)
            yield FILES.at(space.files, *labels)
            yield FILES_FREE.at(space.files_free, *labels)
        yield INFO.at(1, mount.device, mount.major, mount.minor, mount.point)


def _reason(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) else None
    return (words or type(error).__name__).lower()
