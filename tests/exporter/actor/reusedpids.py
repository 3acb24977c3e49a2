"""Have numbers of processes reused in a PID namespace, and act on who had them before."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.plans import make_plan
from narthex_exporter.actor.runner import Runner
from narthex_exporter.actor.systemd import SystemdCaller
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.steps import SetPriority, Signal
from narthex_exporter.sources.processes import Processes

LAST = Path("/proc/sys/kernel/ns_last_pid")


class OnlyProcesses:
    """As much of a node's facts as a refusal needs."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes


def sleeper(pid: int | None = None) -> subprocess.Popen[bytes]:
    """Start a process, by a certain number if that is asked for."""
    if pid is not None:
        LAST.write_text(str(pid - 1))
    return subprocess.Popen(["sleep", "300"])


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def attempt(told: Counter[str], processes: Processes, runner: Runner) -> None:
    """Let a process end, have its number reused, and aim at the one that is gone."""
    first = sleeper()
    seen = processes.get(first.pid)
    assert seen is not None
    end(first)
    time.sleep(0.011)  # Start times are told in hundredths of a second.
    second = sleeper(seen.pid)
    told["reused"] += second.pid == seen.pid
    params = {"pid": seen.pid, "start_ticks": seen.start_ticks}
    action = CATALOGUE["process.terminate"]
    try:
        make_plan(action, action.params.model_validate(params), OnlyProcesses(processes))  # type: ignore[arg-type]
    except RefusedError as error:
        told["refused by plan"] += "was reused" in str(error)
    # What was planned before the number was reused must not hit either.
    wrong = Signal(pid=seen.pid, start_ticks=seen.start_ticks, signal="SIGKILL", wait_seconds=0.0)
    told["refused by step"] += "was gone before" in execute(runner, wrong)
    execute(runner, SetPriority(pid=seen.pid, start_ticks=seen.start_ticks, nice=7))
    told["reniced"] += os.getpriority(os.PRIO_PROCESS, second.pid) == 7
    told["survived"] += second.poll() is None
    now = processes.get(second.pid)
    assert now is not None
    right = Signal(pid=now.pid, start_ticks=now.start_ticks, signal="SIGKILL", wait_seconds=5.0)
    told["right one ended"] += execute(runner, right).startswith("exited in ")
    second.wait()


def execute(runner: Runner, step: Signal | SetPriority) -> str:
    done = runner.execute(step, timeout_seconds=10.0, cancelled=threading.Event())
    return done.outcome.output


def main() -> None:
    processes = Processes()
    runner = Runner(start_ticks=processes.start_ticks, dbus=SystemdCaller())
    names = ("reused", "refused by plan", "refused by step", "survived", "reniced",
             "right one ended")  # fmt: skip
    told: Counter[str] = Counter(dict.fromkeys(names, 0))
    for _ in range(int(sys.argv[1])):
        attempt(told, processes, runner)
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
