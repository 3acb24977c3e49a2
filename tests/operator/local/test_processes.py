import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from narthex_operator.local.processes import InterruptedStartError, Part, PartError, Supervisor


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    found = Supervisor()
    yield found
    found.stop()


def part(tmp_path: Path, code: str, *, ready: Callable[[], str] = lambda: "") -> Part:
    return Part(
        name="part",
        argv=(sys.executable, "-Ic", code),
        log=tmp_path / "part.log",
        ready=ready,
        stop_seconds=1.0,
    )


def until(condition: Callable[[], bool], supervisor: Supervisor, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        supervisor.tick()
        time.sleep(0.02)


def test_a_killed_part_is_started_anew_under_another_pid(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.add(part(tmp_path, "import time; time.sleep(60)"))
    first = supervisor.pid("part")
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.pid("part") not in {0, first}, supervisor)
    assert supervisor.restarts() == {"part": 1}


def test_a_part_that_keeps_ending_is_told_with_the_end_of_its_log(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.add(
        part(tmp_path, "raise SystemExit('the disk is upside down')", ready=lambda: "-")
    )
    with pytest.raises(PartError, match="the disk is upside down"):
        supervisor.wait_ready(["part"], timeout_seconds=20)


def test_a_part_that_is_never_ready_is_told_with_what_is_amiss(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.add(part(tmp_path, "import time; time.sleep(60)", ready=lambda: "no answer"))
    with pytest.raises(PartError, match="no answer"):
        supervisor.wait_ready(["part"], timeout_seconds=0.3)


def test_a_request_to_stop_ends_the_wait_for_readiness(tmp_path: Path) -> None:
    asked: list[bool] = []
    supervisor = Supervisor(stopped=lambda: bool(asked), sleep=lambda _: asked.append(True))
    supervisor.add(part(tmp_path, "import time; time.sleep(60)", ready=lambda: "not yet"))
    with pytest.raises(InterruptedStartError):
        supervisor.wait_ready(["part"], timeout_seconds=60)
    supervisor.stop()


def test_a_part_that_ignores_the_request_to_end_is_killed(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    code = (
        "import signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    supervisor.add(part(tmp_path, code))
    until(ready.exists, supervisor)
    pid = supervisor.pid("part")
    supervisor.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pid"
    code = f"""
import pathlib, time
from narthex_operator.local.processes import Part, Supervisor
s = Supervisor()
s.add(Part(name="p", argv=({sys.executable!r}, "-Ic", "import time; time.sleep(60)"),
           log=pathlib.Path({str(tmp_path / "log")!r}), ready=lambda: ""))
pathlib.Path({str(pids)!r}).write_text(str(s.pid("p")))
time.sleep(60)
"""
    outer = Supervisor()
    outer.add(part(tmp_path, code))
    try:
        until(lambda: pids.exists() and pids.read_text() != "", outer)
        child = int(pids.read_text())
        os.kill(outer.pid("part"), signal.SIGKILL)
        deadline = time.monotonic() + 5
        while _alive(child):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        outer.stop()


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_log_is_bounded(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("narthex_operator.local.processes.LOG_BYTES", 1000)
    supervisor.add(
        part(tmp_path, "import time\nwhile True: print('x' * 99, flush=True); time.sleep(.001)")
    )
    until((tmp_path / "part.log.1").exists, supervisor)
    until(lambda: (tmp_path / "part.log").stat().st_size < 100_000, supervisor)
