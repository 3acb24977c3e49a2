"""Write our programs' own logs: one event name and its fields a line, as logfmt or JSON."""

import datetime as dt
import json
import logging
import sys
from typing import Final, Literal

from narthex_exporter.overriding import override

Format = Literal["logfmt", "json"]
LEVELS: Final = ("debug", "info", "warn", "error")

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


def set_up(*, level: str = "info", form: Format = "logfmt", component: str) -> None:
    """Send every record to stderr. ``level`` is one of LEVELS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(form=form, component=component))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel({"warn": "WARNING"}.get(level, level.upper()))
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)


class Formatter(logging.Formatter):
    """Format a record as ``time=… level=… msg=… field=…`` (or the same as JSON)."""

    def __init__(self, *, form: Format, component: str) -> None:
        super().__init__()
        self.form = form
        self.component = component

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Give one line; no field can break it."""
        when = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
        fields: dict[str, object] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.replace("WARNING", "WARN"),
            "component": self.component,
            "msg": record.getMessage(),
        }
        fields |= {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        if self.form == "json":
            return json.dumps(fields, default=str, ensure_ascii=False)
        return " ".join(f"{key}={_value(value)}" for key, value in fields.items())


def _value(value: object) -> str:
    text = str(value)
    plain = text and all(c.isalnum() or c in "-_./:+@,%[]{}" for c in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
