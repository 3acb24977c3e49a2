"""Read the time that a line of a log file begins with."""

import datetime as dt
import re
from typing import Final

_ISO: Final = re.compile(
    # Bare or bracketed, or as the first field of logfmt, as Prometheus and we write it.
    r"(?:[\[<(]|(?:time|ts)=\"?)?"
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\s?(Z|[+-]\d\d:?\d\d)?"
)
_SYSLOG: Final = re.compile(r"([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d) ")
_MONTHS: Final = [
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
]
_SECOND: Final = 1_000_000_000
_DAY_SECONDS: Final = 24 * 3600


def line_time_ns(line: str, *, now_ns: int) -> int | None:
    """Give the time as Unix nanoseconds; one without a zone is this machine's own."""
    try:
        if match := _ISO.match(line):
            day, clock, fraction, zone = match.groups()
            moment = dt.datetime.fromisoformat(f"{day}T{clock}{zone or ''}")
            return int(moment.timestamp()) * _SECOND + int((fraction or "0").ljust(9, "0"))
        if match := _SYSLOG.match(line):
            return _syslog(match, now_ns)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _syslog(match: "re.Match[str]", now_ns: int) -> int:
    """Read a time without a year: the latest that is not in the future."""
    month, day, hour, minute, second = match.groups()
    now = now_ns / _SECOND
    year = dt.datetime.fromtimestamp(now).astimezone().year
    moment = dt.datetime(  # noqa: DTZ001 - the line names no zone: local time is meant
        year, _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second)
    )
    if moment.timestamp() > now + _DAY_SECONDS:
        moment = moment.replace(year=year - 1)
    return int(moment.timestamp()) * _SECOND
