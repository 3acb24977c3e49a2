"""Read which logs to ship, from YAML or from what this machine has."""

import os
import re
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from narthex_exporter.errors import ConfigError

JOURNAL_SOCKET: Final = Path("/run/systemd/journal/socket")
DEFAULT_FILES: Final = (
    "/var/log/*.log",
    "/var/log/*/*.log",
    "/var/log/*/*/*.log",
    "/var/log/syslog",
    "/var/log/messages",
)
_MIB: Final = 1 << 20


class RedactRule(BaseModel):
    """Replace what a regular expression matches; ``pattern`` is Python's."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    pattern: Annotated[str, Field(min_length=1, max_length=500)]

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value


class Queue(BaseModel):
    """The queue on disk; the smaller of the two bounds holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_bytes: Annotated[int, Field(ge=_MIB)] = 1024 * _MIB
    max_percent_of_filesystem: Annotated[float, Field(gt=0, le=90)] = 5.0


class LogsConfig(BaseModel):
    """Which logs to ship; ``journal`` None means: where there is one."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    journal: bool | None = None
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    default_files: bool | None = None
    max_files: Annotated[int, Field(ge=1, le=10_000)] = 500
    first_read_bytes: Annotated[int, Field(ge=0)] = _MIB
    queue: Queue = Queue()
    redact: tuple[RedactRule, ...] = ()

    @field_validator("files", "exclude")
    @classmethod
    def _absolute(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not pattern.startswith("/"):
                raise ValueError(f"{pattern!r} must be an absolute path or glob")
        return value


def load_logs_config(
    path: Path | None, *, has_journal: Callable[[], bool] | None = None
) -> LogsConfig:
    """Read a configuration, or choose one: the journal, or else the files below /var/log.

    Raises ConfigError.
    """
    config = LogsConfig() if path is None else _read(path)
    journal = config.journal
    if journal is None:
        journal = (has_journal or journal_runs)()
    defaults = config.default_files
    if defaults is None:
        defaults = not journal
    files = tuple(dict.fromkeys(config.files + (DEFAULT_FILES if defaults else ())))
    return config.model_copy(
        update={"journal": journal, "default_files": defaults, "files": files}
    )


def journal_runs(path: Path = JOURNAL_SOCKET) -> bool:
    """Tell whether a journal daemon takes messages and journalctl can read them."""
    if shutil.which("journalctl") is None or not path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def _read(path: Path) -> LogsConfig:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the logs configuration {path}: {error}") from error
    try:
        return LogsConfig.model_validate({} if data is None else data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path}: {where}: {first['msg']}",
            hint=f"known settings: {', '.join(sorted(LogsConfig.model_fields))}",
        ) from error
