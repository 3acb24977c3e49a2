"""Tell when a schedule is due: a cron expression in a time zone, or every so many seconds."""

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.triggers.cron import CronTrigger

from narthex_exporter.contract.wire import FieldError
from narthex_operator.errors import InvalidError
from narthex_operator.security.chain import clean
from narthex_operator.services.views import ScheduleSpec

_FIELDS: Final = 5
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LOOK_BACK: Final = timedelta(days=2)
_WEEKDAY: Final = 4
_MONTH_DAY: Final = 2


def check_timing(spec: ScheduleSpec) -> None:
    """Raise InvalidError unless it says in one way when, in a zone that there is."""
    if bool(spec.cron) == (spec.every_seconds is not None):
        raise _invalid("cron", "or every_seconds must be given, and not both")
    _zone(spec)
    if spec.cron and next_after(spec, datetime.now(UTC), datetime.now(UTC)) is None:
        raise _invalid("cron", "names a time that never comes")


def next_after(spec: ScheduleSpec, anchor: datetime, after: datetime) -> datetime | None:
    """Give the first time later than ``after``; intervals are counted from ``anchor``."""
    if spec.every_seconds is not None:
        every = timedelta(seconds=spec.every_seconds)
        return anchor + every * max(1, (after - anchor) // every + 1)
    found = _trigger(spec).get_next_fire_time(None, after + timedelta(microseconds=1))
    return None if found is None else found.astimezone(UTC)


def upcoming(
    spec: ScheduleSpec, anchor: datetime, after: datetime, *, count: int = 5
) -> Iterator[datetime]:
    """Give the next times."""
    at: datetime | None = after
    for _ in range(count):
        at = next_after(spec, anchor, at) if at else None
        if at is None:
            return
        yield at


def latest(spec: ScheduleSpec, anchor: datetime, first: datetime, now: datetime) -> datetime:
    """Give the newest of the times from ``first``, which is one, up to now."""
    slot = first
    recent = next_after(spec, anchor, now - _LOOK_BACK)
    if recent is not None and slot < recent <= now:
        slot = recent
    while (later := next_after(spec, anchor, slot)) is not None and later <= now:
        slot = later
    return slot


def _trigger(spec: ScheduleSpec) -> CronTrigger:
    fields = spec.cron.split()
    if len(fields) != _FIELDS:
        raise _invalid("cron", "must have five fields: minute hour day month weekday")
    if fields[_MONTH_DAY] != "*" and fields[_WEEKDAY] != "*":
        # Crons differ on whether that means both or either.
        raise _invalid("cron", "must not restrict both the day of the month and the weekday")
    names = ("minute", "hour", "day", "month", "day_of_week")
    fields[_WEEKDAY] = _weekdays(fields[_WEEKDAY])
    try:
        return CronTrigger(**dict(zip(names, fields, strict=True)), timezone=_zone(spec))
    except (ValueError, TypeError) as error:
        raise _invalid("cron", f"is not a cron expression: {clean(str(error))}") from error


def _weekdays(text: str) -> str:
    """Write cron's numbers (0 and 7 are Sunday) as names: APScheduler counts from Monday."""
    if text == "*" or not any(character.isdigit() for character in text):
        return text
    found = []
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            first, last = "0", "6"
        numbers = (first, last or first, step or "1")
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise _invalid("cron", f"has the weekday {clean(part, limit=20)}, which is none")
        start, end, every = map(int, numbers)
        if not 0 <= start <= end <= 7 or every == 0:  # noqa: PLR2004 - Sunday again
            raise _invalid("cron", f"has the weekday {clean(part, limit=20)}, which is none")
        found += [_DAYS[day] for day in range(start, end + 1, every)]
    return ",".join(dict.fromkeys(found))


def _zone(spec: ScheduleSpec) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(spec.timezone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise _invalid("timezone", "is not one, such as UTC or Europe/Berlin") from error


def _invalid(path: str, message: str) -> InvalidError:
    return InvalidError(f"{path} {message}", errors=(FieldError(path=path, message=message),))
