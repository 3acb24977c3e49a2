"""Read which logs to ship, from YAML or from what this machine has."""

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from narthex_exporter.errors import ConfigError
from narthex_exporter.settings import Section, SettingError

JOURNAL_SOCKET: Final = Path("/run/systemd/journal/socket")
DEFAULT_FILES: Final = (
    "/var/log/*.log",
    "/var/log/*/*.log",
    "/var/log/*/*/*.log",
    "/var/log/syslog",
    "/var/log/messages",
)
_MIB: Final = 1 << 20
_RULE_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,40}")
_PATTERN_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactRule:
    """Replace what a regular expression matches; ``pattern`` is Python's."""

    name: str
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The queue on disk; the smaller of the two bounds holds."""

    max_bytes: int = 1024 * _MIB
    max_percent_of_filesystem: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsConfig:
    """Which logs to ship; ``journal`` None means: where there is one."""

    journal: bool | None = None
    files: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    default_files: bool | None = None
    max_files: int = 500
    first_read_bytes: int = _MIB
    queue: Queue = field(default_factory=Queue)
    redact: tuple[RedactRule, ...] = ()


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
    return replace(config, journal=journal, default_files=defaults, files=files)


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
        data = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the logs configuration {path}: {error}") from error
    try:
        return _logs_config(Section({} if data is None else data))
    except SettingError as error:
        known = ", ".join(sorted(each.name for each in fields(LogsConfig)))
        raise ConfigError(f"{path}: {error}", hint=f"known settings: {known}") from error


def _parsed(text: str) -> Any:
    """Read YAML, which JSON is too; the latter without loading what reads the former."""
    try:
        return json.loads(text)
    except ValueError:
        import yaml  # noqa: PLC0415 - a MiB on each node

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _logs_config(given: Section) -> LogsConfig:
    queue = given.section("queue")
    config = LogsConfig(
        journal=given.boolean("journal", None),
        files=_absolute(given, "files"),
        exclude=_absolute(given, "exclude"),
        default_files=given.boolean("default_files", None),
        max_files=given.integer("max_files", 500, least=1, most=10_000),
        first_read_bytes=given.integer("first_read_bytes", _MIB, least=0),
        queue=Queue(
            max_bytes=queue.integer("max_bytes", 1024 * _MIB, least=_MIB),
            max_percent_of_filesystem=queue.number(
                "max_percent_of_filesystem", 5.0, above=0.0, most=90.0
            ),
        ),
        redact=tuple(map(_redact_rule, given.sections("redact"))),
    )
    queue.end()
    given.end()
    return config


def _absolute(given: Section, name: str) -> tuple[str, ...]:
    found = given.strings(name)
    for pattern in found:
        if not pattern.startswith("/"):
            raise SettingError(given.at(name), f"{pattern!r} must be an absolute path or glob")
    return found


def _redact_rule(given: Section) -> RedactRule:
    name, pattern = given.string("name"), given.string("pattern")
    given.end()
    if not _RULE_NAME.fullmatch(name):
        raise SettingError(given.at("name"), f"{name!r} must be like `credit-card`")
    if not 1 <= len(pattern) <= _PATTERN_CHARACTERS:
        raise SettingError(given.at("pattern"), f"1 to {_PATTERN_CHARACTERS} characters are due")
    try:
        re.compile(pattern)
    except re.error as error:
        raise SettingError(given.at("pattern"), f"not a regular expression: {error}") from error
    return RedactRule(name=name, pattern=pattern)
