"""Report what SCSI tape drives did."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Meaning, Reading, present, remembered, samples
from narthex_exporter.collectors.spec import (
    Metric,
    Node,
    Sample,
    collector,
    counter,
    gauge,
    pattern_option,
)

_FOLDER: Final = "class/scsi_tape"
# st0 is the drive; st0a, nst0 and the like are modes of the same one.
_DRIVE: Final = re.compile(r"st\d+")
_NANO: Final = 1_000_000_000
_LABELS: Final = ("device",)


def _count(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"node_tape_{name}_total", help, _LABELS)


# The kernel's Documentation/scsi/st.rst.
MEANINGS: Final = {
    "in_flight": Meaning(
        gauge(
            "node_tape_io_now",
            "The number of I/Os currently outstanding to this device.",
            _LABELS,
        )
    ),
    "io_ns": Meaning(
        _count(
            "io_time_seconds",
            "The amount of time spent waiting for all I/O to complete, tape movement included.",
        ),
        per=_NANO,
    ),
    "other_cnt": Meaning(
        _count(
            "io_others",
            "The number of I/Os issued to the tape drive other than read or write commands.",
        )
    ),
    "read_byte_cnt": Meaning(
        _count("read_bytes", "The number of bytes read from the tape drive.")
    ),
    "read_cnt": Meaning(
        _count("reads_completed", "The number of read requests issued to the tape drive.")
    ),
    "read_ns": Meaning(
        _count(
            "read_time_seconds",
            "The amount of time spent waiting for read requests to complete.",
        ),
        per=_NANO,
    ),
    "resid_cnt": Meaning(
        _count(
            "residual",
            "The number of times that a read or write left a residual amount of data.",
        )
    ),
    "write_byte_cnt": Meaning(
        _count("written_bytes", "The number of bytes written to the tape drive.")
    ),
    "write_cnt": Meaning(
        _count("writes_completed", "The number of write requests issued to the tape drive.")
    ),
    "write_ns": Meaning(
        _count(
            "write_time_seconds",
            "The amount of time spent waiting for write requests to complete.",
        ),
        per=_NANO,
    ),
}
IGNORED = pattern_option("ignored-devices", "^$", "Tape drives to leave out.")


@collector(
    name="tapestats",
    metrics=tuple(meaning.metric for meaning in MEANINGS.values()),
    options=(IGNORED,),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what SCSI tape drives did."""
    yield from samples(node.sys, remembered(node, "tape drives", lambda: _find(node)))


def _find(node: Node) -> list[Reading] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    ignored = node.setting(IGNORED)
    return [
        reading
        for name in names
        if _DRIVE.fullmatch(name) and not ignored.search(name)
        for reading in present(node.sys, f"{_FOLDER}/{name}/stats", MEANINGS, (name,))
    ]
