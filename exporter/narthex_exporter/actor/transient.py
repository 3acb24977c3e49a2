"""Start programs of ours that outlive the actor: in a unit of their own, or beside it.

Where systemd runs, PID 1 keeps them: neither the actor's restart nor its upgrade ends them, and a
job's end empties its control group. Elsewhere (containers, tests) they are processes in sessions
of their own.
"""

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from narthex_exporter.actor.runner import Runner, RunnerError, detached
from narthex_exporter.contract.steps import RunProgram

log = logging.getLogger(__name__)

SLICE: Final = "narthex-jobs.slice"
PROGRAM: Final = (sys.executable, "-Im", "narthex_exporter", "actor")
# Beyond its own limit, which it keeps itself, a job is ended by systemd.
_OVERTIME_SECONDS: Final = 60
_ASK_SECONDS: Final = 10.0


class Launcher(Protocol):
    """Start our own programs so that they outlive us. Each method raises RunnerError."""

    def start(self, name: str, arguments: tuple[str, ...], *, limit_seconds: float) -> None:
        """Start ``narthex actor`` with these arguments now."""
        ...

    def start_later(self, name: str, arguments: tuple[str, ...], *, after_seconds: float) -> None:
        """Start it after a while, unless ``forget`` comes first."""
        ...

    def forget(self, name: str) -> None:
        """Take a timer back; no error where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemdLauncher:
    """Transient units; see systemd-run(1)."""

    runner: Runner
    program: tuple[str, ...] = PROGRAM

    def start(self, name: str, arguments: tuple[str, ...], *, limit_seconds: float) -> None:
        """Start a service, and wait until it is executed."""
        self._run(
            (
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={name}",
                f"--slice={SLICE}",
                "--service-type=exec",
                f"--property=RuntimeMaxSec={limit_seconds + _OVERTIME_SECONDS:.0f}",
                "--property=KillMode=control-group",
                "--property=TimeoutStopSec=5",
                "--property=UMask=0077",
                "--",
                *self.program,
                *arguments,
            )
        )

    def start_later(self, name: str, arguments: tuple[str, ...], *, after_seconds: float) -> None:
        """Start a timer with its service."""
        self._run(
            (
                "systemd-run",
                "--quiet",
                "--collect",
                f"--unit={name}",
                f"--slice={SLICE}",
                f"--on-active={after_seconds:.0f}",
                "--timer-property=AccuracySec=1s",
                "--service-type=exec",
                "--",
                *self.program,
                *arguments,
            )
        )

    def forget(self, name: str) -> None:
        """Stop the timer. What it started already decides by itself that it is not wanted."""
        done = self.runner.read(
            RunProgram(argv=("systemctl", "stop", "--", f"{name}.timer"), timeout_seconds=10.0)
        )
        if done.code != 0:
            log.info("timer.gone", extra={"unit": name})

    def _run(self, argv: tuple[str, ...]) -> None:
        done = self.runner.read(RunProgram(argv=argv, timeout_seconds=_ASK_SECONDS))
        if done.code != 0:
            raise RunnerError(
                f"systemd did not start a unit for the run: {done.output.strip()[:300]}",
                hint="see: systemctl status narthex-jobs.slice",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedLauncher:
    """Processes in sessions of their own, for machines without systemd."""

    program: tuple[str, ...] = PROGRAM

    def start(
        self,
        name: str,  # noqa: ARG002 - there is nothing to name
        arguments: tuple[str, ...],
        *,
        limit_seconds: float,  # noqa: ARG002 - the job keeps its limit itself
    ) -> None:
        """Start a process."""
        detached((*self.program, *arguments))

    def start_later(
        self,
        name: str,  # noqa: ARG002
        arguments: tuple[str, ...],
        *,
        after_seconds: float,
    ) -> None:
        """Start a process that waits first."""
        detached((*self.program, *arguments, "--after", f"{after_seconds:.0f}"))

    def forget(self, name: str) -> None:
        """Do nothing: the process decides by itself that it is not wanted."""


def launcher_for(
    runner: Runner,
    *,
    program: tuple[str, ...] = PROGRAM,
    booted: Callable[[], bool] = Path("/run/systemd/system").is_dir,
) -> Launcher:
    """Choose the launcher for this machine; see sd_booted(3)."""
    if booted():
        return SystemdLauncher(runner=runner, program=program)
    return DetachedLauncher(program=program)


def wait(seconds: float) -> None:
    """Sleep, for a program that was started to act later."""
    threading.Event().wait(seconds)
