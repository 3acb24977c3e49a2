"""The ``narthex logstore`` command."""

from pathlib import Path
from typing import Any, Final

import click

from narthex_exporter import logfmt
from narthex_exporter.errors import ConfigError
from narthex_logstore.logql.units import parse_bytes, parse_duration

_MAX_PORT: Final = 65535


@click.command()
@click.option(
    "--web.listen-address", "address", default="127.0.0.1:19102", show_default=True,
    help="Where to listen.",
)  # fmt: skip
@click.option(
    "--web.allow-exposure", "exposed", is_flag=True,
    help="Listen beyond this machine although nobody is asked who they are.",
)  # fmt: skip
@click.option(
    "--storage.path", "path", type=click.Path(path_type=Path),
    default=Path("/var/lib/narthex/logstore"), show_default=True, help="Where lines are kept.",
)  # fmt: skip
@click.option(
    "--retention.time", "retention_time", default="31d", show_default=True,
    help="How long lines are kept; 0 is forever.",
)  # fmt: skip
@click.option(
    "--retention.size", "retention_size", default="0", show_default=True,
    help="How much disk they may take (10GB); 0 is without limit.",
)  # fmt: skip
@click.option(
    "--log.level", "level", type=click.Choice(logfmt.LEVELS), default="info", show_default=True
)
@click.option(
    "--log.format", "form", type=click.Choice(["logfmt", "json"]), default="logfmt",
    show_default=True,
)  # fmt: skip
def logstore(**given: Any) -> None:
    """Keep logs and answer Loki's API."""
    from narthex_logstore.app import Config, run  # noqa: PLC0415 - `--help` needs none of it
    from narthex_logstore.maintenance import Retention  # noqa: PLC0415

    logfmt.set_up(level=given["level"], form=given["form"], component="logstore")
    host, port = _address(given["address"])
    run(
        Config(
            address=host,
            port=port,
            path=given["path"],
            exposed=given["exposed"],
            retention=Retention(
                age_ns=_age(given["retention_time"]), size_bytes=_size(given["retention_size"])
            ),
        )
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdigit() or int(port) > _MAX_PORT:
        raise ConfigError(f"--web.listen-address {text!r} is not host:port")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - refused unless exposed


def _age(text: str) -> int | None:
    if text == "0":
        return None
    try:
        age = parse_duration(text)
    except ValueError as error:
        raise ConfigError(f"--retention.time: {error}", hint="write it as 31d or 12h") from error
    if age <= 0:
        raise ConfigError("--retention.time must be more than nothing; 0 alone is forever")
    return age


def _size(text: str) -> int | None:
    try:
        return round(parse_bytes(text)) or None
    except ValueError as error:
        raise ConfigError(f"--retention.size: {error}", hint="write it as 10GB") from error
