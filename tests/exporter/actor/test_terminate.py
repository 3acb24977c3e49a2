"""How a process is ended: asked first, made to end if it does not, told how it ended."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.exporter.actions.conftest import PretendedFacts, pretended
from tests.exporter.actor.conftest import Rig

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.steps import Look, Outcome, Signal
from narthex_exporter.sources.processes import Processes

ACTION = CATALOGUE["process.terminate"]
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"


@contextlib.contextmanager
def orphan(*argv: str) -> Iterator[dict[str, int]]:
    """Start a process that is no descendant of ours: those are refused to jobs."""
    done = subprocess.run(
        ["sh", "-c", '"$@" > /dev/null 2>&1 & echo $!', "sh", *argv],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    pid = int(done.stdout)
    descriptor = os.pidfd_open(pid)
    ticks = Processes().start_ticks(pid)
    assert ticks is not None
    try:
        yield {"pid": pid, "start_ticks": ticks}
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def test_a_process_ends_when_it_is_asked_to(rig: Rig) -> None:
    with orphan("sleep", "300") as named:
        run = rig.client.run(ACTION.name, **named)
        assert run["state"] == "succeeded", run
        assert [step["state"] for step in run["steps"]] == ["succeeded"]
        assert run["steps"][0]["output"].startswith("exited in ")
        assert run["steps"][0]["output"].endswith(", signal 15 (SIGTERM)")
        assert run["after"] == {"exists": False}


def test_a_process_that_does_not_listen_is_made_to_end(rig: Rig) -> None:
    with orphan(sys.executable, "-c", DEAF) as named:
        wait_until_deaf(named["pid"])
        run = rig.client.run(ACTION.name, **named, grace_seconds=1)
        assert run["state"] == "succeeded", run
        asked, made = (step["output"] for step in run["steps"])
        assert asked == "SIGTERM was sent; still alive after 1 s"
        assert made.endswith(", signal 9 (SIGKILL)")


def wait_until_deaf(pid: int) -> None:
    ignored = "SigIgn:\t"
    while True:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123
            line = next(line for line in file if line.startswith(ignored))
        if int(line.removeprefix(ignored), 16) & 1 << 14:
            return


@pytest.mark.parametrize("left", [[], [{"pid": 7, "start_ticks": 2}],
                                  [{"pid": 7, "start_ticks": 1, "state": "Z"}]])  # fmt: skip
def test_what_ended_by_itself_meanwhile_is_not_killed(left: list[dict[str, object]]) -> None:
    facts = PretendedFacts()
    facts.processes = pretended({"processes": [{"pid": 7, "start_ticks": 1}]}).processes
    plan = ACTION.plan(ACTION.params.model_validate({"pid": 7, "start_ticks": 1}), facts)
    while not isinstance(next(plan), Look):
        pass
    facts.processes = pretended({"processes": left}).processes
    with pytest.raises(StopIteration):
        plan.send(Outcome(code=1))


def test_what_still_lives_is_killed() -> None:
    facts = pretended({"processes": [{"pid": 7, "start_ticks": 1}]})
    plan = ACTION.plan(ACTION.params.model_validate({"pid": 7, "start_ticks": 1}), facts)
    while not isinstance(next(plan), Look):
        pass
    step = plan.send(Outcome(code=1))
    assert step == Signal(pid=7, start_ticks=1, signal="SIGKILL", wait_seconds=9.0)
