"""SECURITY.md 55, 56, 58, 77, 78: how steps are carried out."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from tests.exporter.actor.conftest import Sleeper, started

from narthex_exporter.actor.runner import Done, HeadAndTail, Runner, RunnerError
from narthex_exporter.actor.systemd import SystemdCaller
from narthex_exporter.contract.steps import (
    DBusCall,
    RunProgram,
    SetPriority,
    Signal,
    Step,
    WriteFile,
)
from narthex_exporter.contract.wire import RunState
from narthex_exporter.sources.processes import Processes


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def runner(tools: Path) -> Runner:
    return Runner(
        start_ticks=Processes().start_ticks,
        dbus=SystemdCaller(bus_socket=tools / "no-bus"),
        directories=(tools,),
        owner_uid=os.geteuid(),
        kept_bytes=1000,
    )


def tool(tools: Path, name: str, script: str, mode: int = 0o755) -> RunProgram:
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(mode)
    return RunProgram(argv=(name, "--", "a b", "$(id)", ";id", "*"))


def execute(runner: Runner, step: Step, *, seconds: float = 10.0) -> Done:
    return runner.execute(step, timeout_seconds=seconds, cancelled=threading.Event())


def test_arguments_reach_a_program_as_they_are(runner: Runner, tools: Path) -> None:
    done = execute(runner, tool(tools, "show", 'for a; do echo "[$a]"; done'))
    assert done.outcome.output == "[--]\n[a b]\n[$(id)]\n[;id]\n[*]\n"
    assert done.state is RunState.SUCCEEDED


def test_a_program_gets_nothing_of_ours(
    runner: Runner, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PATH", "LD_PRELOAD", "IFS", "TZ", "SECRET"):
        monkeypatch.setenv(name, "/poison")
    script = "/usr/bin/env | /usr/bin/sort; pwd; cat; ls /proc/self/fd | wc -l"
    lines = execute(runner, tool(tools, "show", script)).outcome.output.split()
    assert "LC_ALL=C.UTF-8" in lines
    assert "PATH=/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert not [line for line in lines if "poison" in line]
    assert lines[-2:] == ["/", "4"]


@pytest.mark.parametrize("name", ["", "/bin/sh", "../bin/sh", "a/b"])
def test_a_program_is_named_by_its_bare_name(runner: Runner, name: str) -> None:
    with pytest.raises(RunnerError, match="bare name"):
        execute(runner, RunProgram(argv=(name,)))


def test_a_program_that_is_not_installed_is_told(runner: Runner) -> None:
    with pytest.raises(RunnerError, match="no program nowhere"):
        execute(runner, RunProgram(argv=("nowhere",)))
    assert runner.read(RunProgram(argv=("nowhere",))).code == 127


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_program_that_others_may_write_is_not_run(
    runner: Runner, tools: Path, mode: int
) -> None:
    with pytest.raises(RunnerError, match="may be written by others"):
        execute(runner, tool(tools, "show", "true", mode))


def test_a_program_in_a_folder_that_others_may_write_is_not_run(
    runner: Runner, tools: Path
) -> None:
    step = tool(tools, "show", "true")
    tools.chmod(0o777)
    with pytest.raises(RunnerError, match="may be written by others"):
        execute(runner, step)


def test_the_head_and_the_tail_of_a_long_output_are_kept(runner: Runner, tools: Path) -> None:
    done = execute(runner, tool(tools, "show", "seq 100000"))
    assert done.truncated
    assert done.outcome.output.startswith("1\n2\n")
    assert done.outcome.output.endswith("99999\n100000\n")
    assert len(done.outcome.output) < 1100


@pytest.mark.parametrize("sizes", [[10], [1000], [1001], [400, 400, 400], [1] * 1500, [5000]])
def test_nothing_is_lost_below_the_limit_and_no_more_kept_above_it(sizes: list[int]) -> None:
    kept = HeadAndTail(1000)
    whole = bytes(range(256)) * 40
    for index, size in enumerate(sizes):
        kept.add(whole[sum(sizes[:index]) :][:size])
    total = whole[: sum(sizes)]
    assert kept.truncated is (sum(sizes) > 1000)
    if kept.truncated:
        assert kept.value().startswith(total[:500])
        assert kept.value().endswith(total[-500:])
    else:
        assert kept.value() == total


def test_hostile_output_is_made_safe(runner: Runner, tools: Path) -> None:
    script = r"printf 'a\033[2Jb\r\n\377\n'"
    assert execute(runner, tool(tools, "show", script)).outcome.output == "a�[2Jb�\n�\n"


def test_a_program_that_takes_too_long_is_ended_with_all_its_children(
    runner: Runner, tools: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 300 & echo $! >> {pids}; echo begun; sleep 300"
    done = execute(runner, tool(tools, "slow", script), seconds=0.5)
    assert done.state is RunState.TIMED_OUT
    assert done.outcome.output == "begun\n"
    assert gone(int(pids.read_text()))


def test_a_program_is_not_waited_for_by_what_it_left_behind(
    runner: Runner, tools: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    done = execute(runner, tool(tools, "quick", f"sleep 300 & echo $! > {pids}; echo done"))
    try:
        assert (done.state, done.outcome.output) == (RunState.SUCCEEDED, "done\n")
        assert done.outcome.duration_seconds < 5
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)


def test_a_failed_program_tells_its_code(runner: Runner, tools: Path) -> None:
    done = execute(runner, tool(tools, "bad", "echo why >&2; exit 3"))
    assert (done.state, done.outcome.code) == (RunState.FAILED, 3)
    assert done.outcome.output == "why\n"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if ") Z" in Path(f"/proc/{pid}/stat").read_text():
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_signal_ends_exactly_the_process_that_was_meant(
    runner: Runner, sleeper: Sleeper
) -> None:
    wrong = Signal(pid=sleeper.pid, start_ticks=sleeper.start_ticks + 1, signal="SIGKILL")
    assert execute(runner, wrong).state is RunState.FAILED
    assert sleeper.process.poll() is None
    right = Signal(**sleeper.named, signal="SIGKILL", wait_seconds=5)
    assert execute(runner, right).outcome.output.startswith("exited in ")
    assert sleeper.process.wait(5) == -9


def test_a_process_that_does_not_end_is_told(runner: Runner) -> None:
    with started("sh", "-c", "trap '' TERM; while :; do sleep 1; done") as stubborn:
        time.sleep(0.1)  # until the trap is set
        step = Signal(**stubborn.named, signal="SIGTERM", wait_seconds=0.3)
        done = execute(runner, step)
        assert done.state is RunState.FAILED
        assert done.outcome.output == "SIGTERM was sent; still alive after 0.3 s"
        subprocess.run(["pkill", "-9", "-P", str(stubborn.pid)], check=False)


def test_a_process_that_is_gone_is_told(runner: Runner) -> None:
    with started("true") as gone_soon:
        named = gone_soon.named
    for step in (Signal(**named, signal="SIGTERM"), SetPriority(**named, nice=1)):
        done = execute(runner, step)
        assert (done.state, "gone before" in done.outcome.output) == (RunState.FAILED, True)


@pytest.mark.parametrize(("method", "service"), [("Reboot", "systemd"), ("Reload", "logind")])
def test_only_listed_calls_are_made(runner: Runner, method: str, service: str) -> None:
    with pytest.raises(RunnerError, match="not a call that may be made"):
        execute(runner, DBusCall(service=service, method=method))


def test_a_bus_that_is_not_there_fails_the_step(runner: Runner) -> None:
    done = execute(runner, DBusCall(service="systemd", method="Reload"))
    assert done.state is RunState.FAILED
    assert "cannot reach the system bus" in done.outcome.output


def test_a_file_is_replaced_at_once_keeping_owner_and_mode(runner: Runner, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o640)
    inode = file.stat().st_ino
    stale = execute(runner, WriteFile(path=str(file), content="new", before="other"))
    assert (stale.state, file.read_text()) == (RunState.FAILED, "old")
    done = execute(runner, WriteFile(path=str(file), content="new", before="old"))
    assert done.state is RunState.SUCCEEDED
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o640)
    assert file.stat().st_ino != inode
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["file"]


def test_a_new_file_gets_the_mode_that_was_asked_for(runner: Runner, tmp_path: Path) -> None:
    execute(runner, WriteFile(path=str(tmp_path / "new"), content="x", mode=0o600))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_a_link_or_a_folder_is_not_replaced(runner: Runner, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    (tmp_path / "link").symlink_to(target)
    for name in ("link", "bin"):
        step = WriteFile(path=str(tmp_path / name), content="new", before="old")
        done = execute(runner, step)
        assert done.state is RunState.FAILED
    assert target.read_text() == "old"
