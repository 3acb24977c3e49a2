"""Which logs are read."""

import socket
from pathlib import Path

import pytest

from narthex_exporter.errors import ConfigError
from narthex_exporter.logs.config import DEFAULT_FILES, journal_runs, load_logs_config


def test_without_a_file_the_journal_is_read_where_there_is_one() -> None:
    config = load_logs_config(None, has_journal=lambda: True)
    assert (config.journal, config.files) == (True, ())


def test_without_a_journal_the_files_below_var_log_are_read() -> None:
    config = load_logs_config(None, has_journal=lambda: False)
    assert (config.journal, config.files) == (False, DEFAULT_FILES)


def test_files_of_the_configuration_come_on_top(tmp_path: Path) -> None:
    file = tmp_path / "logs.yml"
    file.write_text("files: [/srv/app/*.log]\n")
    assert load_logs_config(file, has_journal=lambda: True).files == ("/srv/app/*.log",)
    found = load_logs_config(file, has_journal=lambda: False).files
    assert found == ("/srv/app/*.log", *DEFAULT_FILES)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file: [/a]", "file: there is no such setting"),
        ("1: 2", "1: there is no such setting"),
        ("journal: maybe", "journal: 'maybe' is not true or false"),
        ("files: [7]", "files: 7 is no text"),
        ("max_files: true", "max_files"),
        ("max_files: 10001", "max_files: 10001 is not 1 to 10000"),
        ("queue: {max_percent_of_filesystem: .nan}", "max_percent_of_filesystem"),
        ("queue: {max: 5}", r"queue\.max: there is no such setting"),
        ("queue: 5", "queue: 5 is not names and values"),
        ("redact: [5]", r"redact\.0: names and values are due"),
        ("redact: [{name: x}]", r"redact\.0\.pattern: this setting is missing"),
        ("redact: [{name: X, pattern: a}]", r"redact\.0\.name"),
        ("redact: [{name: x, pattern: ''}]", r"redact\.0\.pattern"),
        ("files: [relative.log]", "must be an absolute path"),
        ("files: /a", "files"),
        ("queue: {max_bytes: 5}", r"queue\.max_bytes"),
        ("redact: [{name: x, pattern: '('}]", "not a regular expression"),
        ("[1]", "the file"),
        ("a: [", "cannot read"),
        ("", None),
    ],
)
def test_a_wrong_configuration_names_the_setting(
    tmp_path: Path, text: str, told: str | None
) -> None:
    file = tmp_path / "logs.yml"
    file.write_text(text)
    if told is None:
        load_logs_config(file, has_journal=lambda: True)
        return
    with pytest.raises(ConfigError, match=told):
        load_logs_config(file, has_journal=lambda: True)


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_logs_config(tmp_path / "absent.yml")


def test_a_journal_without_a_daemon_is_none(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert not journal_runs(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(path))
        assert journal_runs(path)
    assert not journal_runs(path)
