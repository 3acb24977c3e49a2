"""Report which operating system this is, and until when it is supported."""

import datetime as dt
import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.osrelease import OsRelease

_INFO: Final = (
    *("build_id", "id", "id_like", "image_id", "image_version", "name", "pretty_name"),
    *("variant", "variant_id", "version", "version_codename", "version_id"),
)
INFO = gauge(
    "node_os_info", f"A metric with a constant '1' value labeled by {', '.join(_INFO)}.", _INFO
)
VERSION = gauge(
    "node_os_version",
    "Metric containing the major.minor part of the OS version.",
    ("id", "id_like", "name"),
)
SUPPORT_END = gauge(
    "node_os_support_end_timestamp_seconds",
    "Metric containing the end-of-life date timestamp of the OS.",
)
_MAJOR_MINOR: Final = re.compile(r"[0-9]+\.?[0-9]*")


@collector(name="os", metrics=(INFO, VERSION, SUPPORT_END))
def collect(node: Node) -> Iterator[Sample]:
    """Report which operating system this is, and until when it is supported."""
    try:
        fields = node.source(OsRelease).get()
    except FileNotFoundError as error:
        raise NoData("there is no os-release(5) here") from error
    yield INFO.at(1, *(fields.get(label.upper(), "") for label in _INFO))
    version = _MAJOR_MINOR.match(fields.get("VERSION_ID", ""))
    if version is not None and float(version[0]) > 0:
        yield VERSION.at(
            float(version[0]), *(fields.get(label.upper(), "") for label in VERSION.labels)
        )
    end = fields.get("SUPPORT_END", "")
    if end:
        # A date, which ends the support at its beginning, in UTC.
        day = dt.date.fromisoformat(end)
        moment = dt.datetime.combine(day, dt.time(), dt.UTC)
        yield SUPPORT_END.at(int(moment.timestamp()))
