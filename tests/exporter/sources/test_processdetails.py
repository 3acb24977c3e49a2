import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from narthex_exporter.actor.exits import describe, how_it_ended
from narthex_exporter.sources.processdetails import parse_limits
from narthex_exporter.sources.processes import Processes, parse_user_unit


def test_a_process_is_looked_into(tmp_path: Path) -> None:
    file = tmp_path / "open\nfile"
    file.write_text("")
    with file.open() as opened:
        process = subprocess.Popen(
            ["sleep", "300"], cwd=tmp_path, env={"API_KEY": "x", "A": "1"}, stdin=opened
        )
    try:
        processes = Processes()
        # Popen returns before the kernel tells of the new program's environment.
        deadline = time.monotonic() + 5
        while not Path(f"/proc/{process.pid}/environ").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ticks = processes.start_ticks(process.pid)
        assert ticks is not None
        found = processes.details(process.pid, ticks)
        assert found is not None
        assert found.executable.endswith("sleep")
        assert found.working_directory == str(tmp_path)
        # What a file is called is text of others.
        assert found.files[0].target == str(tmp_path / "open\ufffdfile")
        assert found.files_total >= 3
        limits = {one.name: one for one in found.limits}
        assert limits["Max open files"].soft.isdecimal()
        assert limits["Max open files"].unit == "files"
        assert found.namespaces["pid"] > 0
        # In some containers nobody may look at process 1.
        first = "namespaces of process 1"
        assert ("pid" in found.shared) is (first not in found.unreadable)
        assert set(found.unreadable) <= {first}
        assert processes.environment(process.pid, ticks) == ("A=1", "API_KEY=x")
        assert processes.parents()[process.pid] == os.getpid()
        # Another process by that number is not told of.
        assert processes.details(process.pid, ticks + 1) is None
        assert processes.environment(process.pid, ticks + 1) is None
    finally:
        process.kill()
        process.wait()
    assert processes.details(process.pid, ticks) is None


@pytest.mark.parametrize("text", ["", "Limit\n", "Limit\nx\n", "Limit\n" + " " * 80])
def test_limits_that_are_none_are_left_out(text: str) -> None:
    assert parse_limits(text) == ()


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.service\n", "x.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", "init.scope"),
        ("1:name=systemd:/user.slice/user-0.slice/user@0.service/a.service\n0::/\n", "a.service"),
        ("0::/system.slice/nginx.service\n", ""),
        ("0::/user@1000.service\n", ""),
        ("", ""),
    ],
)
def test_a_cgroup_tells_the_unit_of_a_users_own_systemd(cgroup: str, unit: str) -> None:
    assert parse_user_unit(cgroup) == unit


@pytest.mark.parametrize(
    ("script", "how"),
    [("kill -TERM $$", "signal 15 (SIGTERM)"), ("exit 3", "status 3"), ("exit 0", "status 0")],
)
def test_how_a_process_ended_is_told_while_nobody_has_reaped_it(script: str, how: str) -> None:
    process = subprocess.Popen(["sh", "-c", script])
    descriptor = os.pidfd_open(process.pid)
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert how_it_ended(descriptor, process.pid) == how
    finally:
        process.wait()
        os.close(descriptor)


def test_how_a_process_ended_is_never_another_ones_end() -> None:
    process = subprocess.Popen(["sleep", "300"])
    descriptor = os.pidfd_open(process.pid)
    process.kill()
    process.wait()
    try:
        # From Linux 6.15 its descriptor tells it; before, nothing does any more.
        assert how_it_ended(descriptor, process.pid) in {"signal 9 (SIGKILL)", ""}
    finally:
        os.close(descriptor)


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert describe(signal.SIGRTMIN + 1) == f"signal {signal.SIGRTMIN + 1}"
