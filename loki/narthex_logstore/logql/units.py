"""Read durations and sizes as Go and Loki write them."""

import math
import re
from typing import Final

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 24 * 3600 * 10**9,
    "w": 7 * 24 * 3600 * 10**9,
    "y": 365 * 24 * 3600 * 10**9,
}
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|µs|ms|s|m|h|d|w|y)")
_WHOLE: Final = re.compile(rf"(?:{_PART.pattern})+")
_BYTES: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgtp])(i?))?b?", re.IGNORECASE)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LONGEST: Final = 40


def parse_duration(text: str) -> int:
    """Read ``1h30m`` or ``-5s`` as nanoseconds. Raises ValueError."""
    body = text.removeprefix("-")
    if len(text) > _LONGEST or not _WHOLE.fullmatch(body):
        raise ValueError(f"not a duration: {text[:_LONGEST]!r}")
    found = sum(float(number) * _NANOSECONDS[unit] for number, unit in _PART.findall(body))
    return round(-found if body != text else found)


def parse_bytes(text: str) -> float:
    """Read ``10KB`` (thousands) or ``5MiB`` (1024s). Raises ValueError."""
    match = _BYTES.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"not a size: {text[:_LONGEST]!r}")
    number, unit, binary = match.groups()
    power: int = _POWERS[(unit or "").lower()]
    base = 1024.0 if binary else 1000.0
    return float(number) * math.pow(base, power)
