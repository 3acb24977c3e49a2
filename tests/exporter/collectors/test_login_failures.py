"""Failed logins are counted from the first look on, through every rotation."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import login_failures
from narthex_exporter.collectors.spec import NoData
from narthex_exporter.sources.utmp import FailedLogins, layout

SHAPE = layout()


def fail(path: Path, times: int = 1, at: int = 1_764_000_100) -> None:
    with path.open("ab") as file:
        file.write(SHAPE.pack(6, 9, b"ssh:notty", b"", b"\xff\n", b"", 0, at, 0) * times)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "btmp"


def test_what_was_there_before_is_not_counted(measure: Callable[..., Any]) -> None:
    assert measure(login_failures.collect) == {
        "narthex_login_failures_total": 0,
        "narthex_login_last_failure_timestamp_seconds": 1_764_000_007,
    }


def test_what_is_appended_is_counted_once(path: Path) -> None:
    fail(path, 5, at=1)
    source = FailedLogins(path)
    assert source.look() == (0, 1)
    fail(path, 3, at=2)
    assert source.look() == source.look() == (3, 2)
    fail(path, 6000, at=3)
    for _ in range(4):
        source.look()
    assert source.look() == (6003, 3)


def test_a_record_that_is_half_written_waits_for_its_rest(path: Path) -> None:
    path.touch()
    source = FailedLogins(path)
    assert source.look() == (0, None)
    fail(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert source.look() == (0, None)
    path.write_bytes(whole)
    assert source.look() == (1, 1_764_000_100)


def test_rotation_loses_nothing(path: Path) -> None:
    fail(path, 2)
    source = FailedLogins(path)
    source.look()
    fail(path, 3)
    path.rename(path.with_name("btmp.1"))
    fail(path, 4)
    assert source.look()[0] == 7
    path.rename(path.with_name("btmp.gone"))
    fail(path, 1)
    assert source.look()[0] == 8


def test_a_file_that_was_emptied_is_counted_from_its_beginning(path: Path) -> None:
    fail(path, 9)
    source = FailedLogins(path)
    source.look()
    os.truncate(path, 0)
    fail(path, 2)
    assert source.look()[0] == 2


def test_a_file_that_appears_is_all_new(path: Path) -> None:
    source = FailedLogins(path)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            source.look()
    fail(path, 2)
    assert source.look()[0] == 2
    path.unlink()
    with pytest.raises(FileNotFoundError):
        source.look()
    fail(path, 1)
    assert source.look()[0] == 3


def test_a_machine_without_the_file_says_so(measure: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(NoData, match="no /var/log/btmp"):
        measure(login_failures.collect, tmp_path)


def test_without_the_right_to_read_it_says_what_to_do(
    measure: Callable[..., Any], tree: Path
) -> None:
    (tree / "root/var/log/btmp").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(NoData, match="group utmp"):
            measure(login_failures.collect, tree)
    finally:
        os.seteuid(0)
