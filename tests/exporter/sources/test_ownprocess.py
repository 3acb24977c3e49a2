"""What the exporter tells of itself is what the kernel tells of it."""

import os
import resource
import time
from pathlib import Path

import psutil
import pytest

from narthex_exporter.sources.ownprocess import OwnProcess


def test_it_agrees_with_psutil() -> None:
    own, theirs = OwnProcess(), psutil.Process()
    virtual, resident = own.memory_bytes()
    assert virtual == pytest.approx(theirs.memory_info().vms, rel=0.05)
    assert resident == pytest.approx(theirs.memory_info().rss, rel=0.05)
    assert own.started_seconds == pytest.approx(
        theirs.create_time(), abs=1.1
    )  # whole seconds of boot
    times = theirs.cpu_times()
    assert own.cpu_seconds() == pytest.approx(times.user + times.system, abs=0.1)
    assert own.descriptors()[0] == pytest.approx(theirs.num_fds(), abs=1)
    assert own.descriptors()[1] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_opened_files_are_counted(tmp_path: Path) -> None:
    own = OwnProcess()
    own.memory_bytes()
    before = own.descriptors()[0]
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(7)]
    assert own.descriptors()[0] == before + 7
    for fd in opened:
        os.close(fd)


def test_cpu_time_of_ended_threads_counts() -> None:
    own = OwnProcess()
    before = own.cpu_seconds()
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    assert own.cpu_seconds() - before >= 0.05
