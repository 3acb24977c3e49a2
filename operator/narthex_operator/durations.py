"""Read times such as ``30m`` from a command line."""

from datetime import timedelta
from typing import Any, Final

import click
from typing_extensions import override

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[timedelta]):
    """A time such as ``30m``, ``24h`` or ``90d``."""

    name = "duration"

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        """Read a number with its unit."""
        if isinstance(value, timedelta):
            return value
        number, unit = str(value)[:-1], str(value)[-1:]
        if not number.isascii() or not number.isdigit() or len(number) > 6 or unit not in _UNITS:  # noqa: PLR2004
            self.fail(f"{value!r} is not a time such as 30m, 24h or 90d", param, ctx)
        return timedelta(seconds=int(number) * _UNITS[unit])
