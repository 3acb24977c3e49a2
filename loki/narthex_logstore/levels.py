"""Tell the level of a line, as Loki does with ``discover_log_levels``."""

import re
from typing import Final

from narthex_logstore.model import Entry, Labels

LABEL: Final = "detected_level"
_KEYS: Final = ("level", "LEVEL", "Level", "severity", "SEVERITY", "Severity", "lvl", "LVL")
_NAMES: Final = {
    "trace": "trace",
    "trc": "trace",
    "debug": "debug",
    "dbg": "debug",
    "info": "info",
    "inf": "info",
    "information": "info",
    "notice": "info",
    "warn": "warn",
    "wrn": "warn",
    "warning": "warn",
    "error": "error",
    "err": "error",
    "critical": "critical",
    "crit": "critical",
    "alert": "critical",
    "fatal": "fatal",
    "emerg": "fatal",
    "panic": "fatal",
}
_UNKNOWN: Final = "unknown"
# A level's name near the beginning, as a word of its own or as a field's value.
_WORD: Final = re.compile(
    rb"\b(trace|debug|info|warn|warning|error|err|crit|critical|fatal|panic)\b", re.IGNORECASE
)
_LOOK_AT: Final = 256


def detect(entry: Entry, labels: Labels) -> Entry:
    """Add the level to an entry's metadata, unless it says one."""
    given = dict(labels) | dict(entry.meta)
    if LABEL in given:
        return entry
    named = next((given[key] for key in _KEYS if key in given), None)
    if named is not None:
        level = _NAMES.get(named.lower(), _UNKNOWN)
    else:
        match = _WORD.search(entry.line, 0, _LOOK_AT)
        level = _NAMES[match[1].decode().lower()] if match else _UNKNOWN
    return entry._replace(meta=tuple(sorted([*entry.meta, (LABEL, level)])))
