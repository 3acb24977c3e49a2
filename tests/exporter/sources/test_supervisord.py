"""A real supervisord, on a socket of the test's own."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from narthex_exporter.actor.supervisord import SupervisordCaller
from narthex_exporter.contract.steps import SupervisorCall
from narthex_exporter.contract.wire import RunState
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.supervisord import Supervisord

CONFIG = """\
[supervisord]
nodaemon=true
logfile={home}/log
pidfile={home}/pid
childlogdir={home}
[unix_http_server]
file={home}/sock
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:sleeper]
command=/bin/sh -c "echo begins; echo trouble >&2; exec sleep 300"
process_name=%(program_name)s_%(process_num)d
startsecs=0
[program:dies]
command=/bin/false
autostart=false
startretries=0
"""


@pytest.fixture
def supervisord(tmp_path: Path) -> Iterator[Supervisord]:
    program = shutil.which("supervisord")
    if program is None:
        pytest.skip("needs supervisord: apt-get install supervisor")
    tmp_path.chmod(0o700)
    config = tmp_path / "supervisord.conf"
    config.write_text(CONFIG.format(home=tmp_path))
    process = subprocess.Popen(
        [program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found = Supervisord(sockets=(tmp_path / "nowhere", tmp_path / "sock"), owner=os.geteuid())
    try:
        wait_for(lambda: not found.unavailable() and states(found)["sleeper:sleeper_0"] != "")
        yield found
    finally:
        process.terminate()
        process.wait()


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            if what():
                return
        except UnavailableError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


def states(found: Supervisord) -> dict[str, str]:
    return {one.name: one.state for one in found.list()}


def call(found: Supervisord, operation: str, program: str) -> tuple[RunState, str]:
    step = SupervisorCall(operation=operation, program=program)
    caller = SupervisordCaller(supervisord=found)
    state, _, text = caller.call(step, timeout_seconds=10.0, cancelled=threading.Event())
    return state, text


def test_a_program_is_stopped_started_and_restarted(supervisord: Supervisord) -> None:
    wait_for(lambda: states(supervisord)["sleeper:sleeper_0"] == "RUNNING")
    first = next(one for one in supervisord.list() if one.name == "sleeper:sleeper_0")
    assert first.pid > 1
    assert first.since_seconds is not None
    told = call(supervisord, "restart", first.name)
    assert told == (RunState.SUCCEEDED, f"{first.name} is RUNNING now")
    second = next(one for one in supervisord.list() if one.name == first.name)
    assert second.pid not in {0, first.pid}
    assert call(supervisord, "stop", first.name)[0] is RunState.SUCCEEDED
    assert call(supervisord, "stop", first.name)[0] is RunState.SUCCEEDED
    assert states(supervisord)[first.name] == "STOPPED"
    assert call(supervisord, "start", first.name)[0] is RunState.SUCCEEDED
    assert call(supervisord, "start", first.name)[0] is RunState.SUCCEEDED


def test_a_program_that_does_not_stay_up_is_a_failure(supervisord: Supervisord) -> None:
    state, text = call(supervisord, "start", "dies:dies")
    assert (state, text) == (RunState.FAILED, "dies:dies is FATAL now")


def test_a_program_that_is_not_there_is_a_failure(supervisord: Supervisord) -> None:
    state, text = call(supervisord, "start", "no:such")
    assert state is RunState.FAILED
    assert "BAD_NAME" in text


def test_what_a_program_printed_is_told(supervisord: Supervisord) -> None:
    name = "sleeper:sleeper_0"
    wait_for(lambda: supervisord.tail(name, size_bytes=100, errors=False) == "begins\n")
    assert supervisord.tail(name, size_bytes=100, errors=True) == "trouble\n"


def test_a_socket_where_others_could_put_theirs_is_not_asked(supervisord: Supervisord) -> None:
    folder = supervisord.sockets[1].parent
    folder.chmod(0o777)
    assert supervisord.unavailable() == "supervisord is not running"
    with pytest.raises(UnavailableError, match="is not running"):
        supervisord.list()
