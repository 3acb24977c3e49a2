"""Write figures as people read them, in the reader's language; what is not known stays so."""

from datetime import datetime
from typing import Final

from babel.numbers import format_decimal, format_percent
from flask_babel import get_locale, gettext

UNKNOWN: Final = "—"
_WARN_RATIO: Final = 0.75
_BAD_RATIO: Final = 0.9
_STEP: Final = 1024.0
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86_400


def percent(ratio: float | None) -> str:
    """Write a ratio as a whole percentage."""
    if ratio is None:
        return UNKNOWN
    return format_percent(ratio, locale=get_locale())


def number(value: float | None, digits: int = 2) -> str:
    """Write a number with at most some decimals."""
    if value is None:
        return UNKNOWN
    pattern = "#,##0" + ("." + "0" * digits if digits else "")
    return format_decimal(value, format=pattern, locale=get_locale())


def size(value: float | None) -> str:
    """Write bytes in binary units."""
    if value is None:
        return UNKNOWN
    units = (gettext("B"), gettext("KiB"), gettext("MiB"), gettext("GiB"), gettext("TiB"))
    index = 0
    while abs(value) >= _STEP and index < len(units) - 1:
        value /= _STEP
        index += 1
    digits = 0 if index == 0 or abs(value) >= 100 else 1  # noqa: PLR2004 - three digits are enough
    return f"{number(value, digits)}\N{NO-BREAK SPACE}{units[index]}"


def duration(seconds: float | None) -> str:
    """Write a duration by its two greatest units."""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds)
    if whole < _MINUTE:
        return str(gettext("%(count)s s", count=whole if seconds >= 1 else number(seconds, 2)))
    days, hours = divmod(whole // _HOUR, 24)
    minutes = whole // _MINUTE % 60
    if whole >= _DAY:
        return str(gettext("%(days)s d %(hours)s h", days=days, hours=hours))
    if whole >= _HOUR:
        return str(gettext("%(hours)s h %(minutes)s min", hours=hours, minutes=minutes))
    return str(gettext("%(minutes)s min", minutes=minutes))


def level(ratio: float | None) -> str:
    """Tell how full something is: ``ok``, ``warn``, ``bad`` or ``none`` where not known."""
    if ratio is None:
        return "none"
    if ratio >= _BAD_RATIO:
        return "bad"
    return "warn" if ratio >= _WARN_RATIO else "ok"


def iso(at: datetime) -> str:
    """Write an instant for machines; the browser shows it in its own zone."""
    return at.isoformat()


def utc(at: datetime) -> str:
    """Write an instant for people without a script: in UTC, and saying so."""
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")
