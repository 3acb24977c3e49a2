"""Units that outlive the actor, on a real systemd."""

import json
import sys
import time

import pytest
from tests.lab.conftest import Machine

pytestmark = pytest.mark.systemd

# Run inside the machine, with its systemd: start one of our programs as the actor would.
START = """\
import json, sys
from narthex_exporter.actor.runner import Runner
from narthex_exporter.actor.systemd import SystemdCaller
from narthex_exporter.actor.transient import SystemdLauncher
call = json.loads(sys.argv[1])
runner = Runner(start_ticks=lambda pid: None, dbus=SystemdCaller())
launcher = SystemdLauncher(runner=runner, program=tuple(call["program"]))
getattr(launcher, call["method"])(call["name"], *call["arguments"], **call["more"])
"""
DAEMONS = "setsid sleep 301 & setsid sh -c 'trap \"\" TERM; sleep 302' & wait"


def ask(machine: Machine, method: str, name: str, script: str = "", **more: float) -> None:
    arguments = [] if method == "forget" else [[script]]
    call = {
        "method": method, "name": name, "program": ["/bin/sh", "-c"], "arguments": arguments,
        "more": more,
    }  # fmt: skip
    machine.run(sys.executable, "-Ic", START, json.dumps(call))


def until_gone(machine: Machine, unit: str, *, seconds: float) -> float:
    began = time.monotonic()
    while machine.show(unit, "ActiveState") in {"active", "activating", "deactivating"}:
        assert time.monotonic() - began < seconds
        time.sleep(0.1)
    return time.monotonic() - began


def test_78_a_job_past_its_limit_leaves_no_process(machine: Machine) -> None:
    """SECURITY #78: the control group is empty within 10 s, daemons that left it included."""
    ask(machine, "start", "narthex-job-lab", DAEMONS, limit_seconds=-58)
    assert machine.show("narthex-job-lab.service", "Slice") == "narthex-jobs.slice"
    assert machine.run("pgrep", "-c", "-f", "sleep 30[12]") != "0"
    until_gone(machine, "narthex-job-lab.service", seconds=12)
    assert machine.run("pgrep", "-c", "-f", "^sleep 30[12]", check=False) == "0"


def test_a_job_that_ends_takes_its_daemons_along(machine: Machine) -> None:
    ask(machine, "start", "narthex-job-short", "setsid sleep 303 & sleep 0.5", limit_seconds=60)
    until_gone(machine, "narthex-job-short.service", seconds=8)
    assert machine.run("pgrep", "-c", "-f", "^sleep 303", check=False) == "0"


def test_a_timer_starts_what_it_was_told_to_and_not_before(machine: Machine) -> None:
    script = "date +%s > /run/narthex-lab-fired"
    ask(machine, "start_later", "narthex-revert-lab", script, after_seconds=2)
    assert not (machine.root / "run/narthex-lab-fired").exists()
    began = time.monotonic()
    while not (machine.root / "run/narthex-lab-fired").exists():
        assert time.monotonic() - began < 8
        time.sleep(0.1)


def test_a_timer_that_is_taken_back_starts_nothing(machine: Machine) -> None:
    script = "touch /run/narthex-lab-forgotten"
    ask(machine, "start_later", "narthex-revert-lab2", script, after_seconds=2)
    ask(machine, "forget", "narthex-revert-lab2")
    ask(machine, "forget", "narthex-revert-lab2")  # again is no error
    time.sleep(3.5)
    assert not (machine.root / "run/narthex-lab-forgotten").exists()


def test_a_unit_that_cannot_start_is_told(machine: Machine) -> None:
    ask(machine, "start", "narthex-job-twice", "sleep 304", limit_seconds=60)
    with pytest.raises(AssertionError, match="already loaded"):
        ask(machine, "start", "narthex-job-twice", "sleep 304", limit_seconds=60)
    machine.run("systemctl", "stop", "narthex-job-twice.service")
