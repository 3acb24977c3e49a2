"""Descriptors stay open, and never lead to another thing than the one that was named."""

import os
import subprocess
from pathlib import Path

import pytest

from narthex_exporter.sources.files import Files


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_what_is_read_is_the_file_as_it_is_now(tmp_path: Path) -> None:
    files, path = Files(), tmp_path / "a"
    for text in ("one", "", "a much longer text" * 9000):
        path.write_text(text)
        assert files.read(str(path)).decode() == text
    files.close()


def test_a_file_is_opened_once() -> None:
    files, before = Files(), descriptors()
    for _ in range(10):
        assert files.read("/proc/loadavg")
    assert (descriptors(), len(files)) == (before + 1, 1)
    files.close()
    assert descriptors() == before


def test_no_more_than_allowed_stay_open(tmp_path: Path) -> None:
    files, before = Files(most=2), descriptors()
    for name in "abcd":
        (tmp_path / name).write_text(name)
        assert files.read(str(tmp_path / name)).decode() == name
    assert descriptors() == before + 2
    files.close()


def test_what_is_not_read_any_more_is_closed() -> None:
    files, before = Files(), descriptors()
    files.read("/proc/loadavg")
    files.read("/proc/uptime")
    for _ in range(5):
        files.sweep()
        files.read("/proc/uptime")
    assert descriptors() == before + 1
    files.close()


def test_a_process_that_ended_is_not_taken_for_its_successor() -> None:
    files = Files()
    with subprocess.Popen(["sleep", "60"]) as process:
        path = f"/proc/{process.pid}/stat"
        assert files.read(path)
        process.kill()
    with pytest.raises(OSError, match=r"No such (process|file)"):
        files.read(path)
    assert len(files) == 0


def test_an_absent_file_is_told_and_costs_no_descriptor(tmp_path: Path) -> None:
    files, before = Files(), descriptors()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            files.read(str(tmp_path / "absent"))
    assert descriptors() == before
