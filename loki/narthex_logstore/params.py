"""Read the parameters of Loki's API: times, durations, limits."""

import datetime as dt
import math
from collections.abc import Mapping
from typing import Final, Literal

from narthex_logstore.logql.units import parse_duration
from narthex_logstore.model import SECOND, QueryError

_SECONDS_DIGITS: Final = 10
_DEFAULT_POINTS: Final = 250
_MAX_NS: Final = (1 << 62) - 1


def instant(text: str, *, default: int) -> int:
    """Read Unix nanoseconds, seconds (with a fraction too) or RFC 3339. Raises QueryError."""
    if not text:
        return default
    try:
        if text.isascii() and text.isdigit():
            return min(int(text) * (SECOND if len(text) <= _SECONDS_DIGITS else 1), _MAX_NS)
        if _is_number(text):
            return _clamp(float(text) * SECOND)
        return _clamp(_aware(text).timestamp() * SECOND)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"cannot parse {text[:60]!r} as a time: {error}") from error


def time_range(
    params: Mapping[str, str], *, now_ns: int, default_ns: int = 3600 * SECOND
) -> tuple[int, int]:
    """Read ``start``, ``end`` and ``since``. Raises QueryError."""
    end = instant(params.get("end", ""), default=now_ns)
    since = duration(params["since"], "since") if params.get("since") else default_ns
    start = instant(params.get("start", ""), default=min(end, now_ns) - since)
    if end < start:
        raise QueryError("end timestamp must not be before or equal to start time")
    return start, end


def step(params: Mapping[str, str], start_ns: int, end_ns: int) -> int:
    """Read ``step``, or choose one that gives 250 points. Raises QueryError."""
    if params.get("step"):
        return duration(params["step"], "step")
    return max(SECOND, (end_ns - start_ns) // _DEFAULT_POINTS // SECOND * SECOND)


def duration(text: str, name: str) -> int:
    """Read seconds or a duration as nanoseconds. Raises QueryError."""
    try:
        return _clamp(float(text) * SECOND) if _is_number(text) else parse_duration(text)
    except ValueError as error:
        raise QueryError(f"cannot parse {name} {text[:60]!r}: {error}") from error


def limit(params: Mapping[str, str]) -> int:
    """Read ``limit``. Raises QueryError."""
    text = params.get("limit") or "100"
    if not text.isascii() or not text.isdigit() or len(text) > _SECONDS_DIGITS:
        raise QueryError(f"cannot parse limit {text[:60]!r}: it must be a number above 0")
    return int(text)


def direction(params: Mapping[str, str]) -> Literal["forward", "backward"]:
    """Read ``direction``. Raises QueryError."""
    text = (params.get("direction") or "backward").lower()
    if text == "forward":
        return "forward"
    if text == "backward":
        return "backward"
    raise QueryError(f"invalid direction {text[:60]!r}: it is forward or backward")


def _aware(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it lacks its zone")
    return moment


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


def _clamp(value: float) -> int:
    return max(-_MAX_NS, min(_MAX_NS, round(value)))
