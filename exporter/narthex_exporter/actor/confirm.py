"""Bring back what could cut a node off, unless the operator confirms that it can still reach it.

One mechanism for every backend: a plan's ``Guard`` says what brings everything back; that is
written down here and a timer started that no longer needs us. Who decides is the file: whoever
renames it first, to ``disarmed`` or to ``reverting``, has decided.
"""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from narthex_exporter.actor.runner import Runner, RunnerError, sync_directory, write_file
from narthex_exporter.actor.transient import Launcher
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.steps import Guard, RemoveFile, RunProgram, WriteFile, as_json
from narthex_exporter.contract.steps import from_json as step_from_json
from narthex_exporter.contract.wire import RunState

log = logging.getLogger(__name__)

_ARMED: Final = "armed"
_DISARMED: Final = "disarmed"
_REVERTING: Final = "reverting"
_REVERTED: Final = "reverted"
_STEP_SECONDS: Final = 60.0
_WAIT_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """What bringing back did. ``problems`` is empty where each step succeeded."""

    steps: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmations:
    """The guards of a node, in a folder that only root may enter.

    ``arguments`` are what ``narthex actor`` must be told to find this folder again.
    """

    folder: Path
    runner: Runner
    launcher: Launcher
    arguments: tuple[str, ...]
    clock: Callable[[], float] = time.monotonic

    def arm(self, run_id: str, guard: Guard) -> None:
        """Write down how to bring everything back, and start the timer. Raises NarthexError."""
        document = {"run": run_id, "revert": [as_json(step) for step in guard.revert]}
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            write_file(self._path(run_id, _ARMED), json.dumps(document).encode(), mode=0o600)
        except OSError as error:
            raise RunnerError(
                f"cannot write down how to bring it back: {error.strerror}",
                hint="nothing was changed: free some space, or repair the actor's folder",
            ) from error
        try:
            self.launcher.start_later(
                _unit(run_id),
                (*self.arguments, "revert", run_id),
                after_seconds=guard.seconds,
            )
        except NarthexError:
            self._claim(run_id, _DISARMED)
            raise

    def is_armed(self, run_id: str) -> bool:
        """Tell whether a guard still waits for its confirmation."""
        return self._path(run_id, _ARMED).exists()

    def is_decided_against(self, run_id: str) -> bool:
        """Tell whether it is being, or was, brought back."""
        return any(self._path(run_id, one).exists() for one in (_REVERTING, _REVERTED))

    def disarm(self, run_id: str) -> bool:
        """Keep the change; False where it is being brought back already."""
        if not self._claim(run_id, _DISARMED):
            return False
        self.launcher.forget(_unit(run_id))
        self._path(run_id, _DISARMED).unlink(missing_ok=True)
        return True

    def revert(self, run_id: str) -> Reverted | None:
        """Bring everything back now; ``None`` where somebody else has decided already."""
        if not self._claim(run_id, _REVERTING):
            return None
        path = self._path(run_id, _REVERTING)
        document = json.loads(path.read_bytes())
        told, problems = [], []
        for raw in document["revert"]:
            step = step_from_json(raw)
            told.append(step.describe())
            problem = self._bring_back(step)
            if problem:
                problems.append(problem)
        log.warning("run.reverted", extra={"run_id": run_id, "problems": len(problems)})
        result = {"steps": told, "problems": problems}
        write_file(self._path(run_id, _REVERTED), json.dumps(result).encode(), mode=0o600)
        path.unlink()
        return Reverted(steps=tuple(told), problems=tuple(problems))

    def result(self, run_id: str, *, wait_seconds: float) -> Reverted | None:
        """Wait for the end of bringing back, and tell it; ``None`` where it does not end."""
        path = self._path(run_id, _REVERTED)
        deadline = self.clock() + wait_seconds
        while not path.exists():
            if self.clock() > deadline:
                return None
            threading.Event().wait(_WAIT_SECONDS)
        found: dict[str, Any] = json.loads(path.read_bytes())
        return Reverted(steps=tuple(found["steps"]), problems=tuple(found["problems"]))

    def forget(self, run_id: str) -> None:
        """Remove what is left of a guard that has been told of."""
        for one in (_DISARMED, _REVERTED):
            with contextlib.suppress(OSError):
                self._path(run_id, one).unlink(missing_ok=True)

    def _bring_back(self, step: object) -> str:
        """Carry one step out whatever the files are like by now; say what went wrong."""
        try:
            match step:
                case WriteFile():
                    step = replace(step, before=_content(step.path))
                case RemoveFile():
                    content = _content(step.path)
                    if content is None:
                        return ""
                    step = replace(step, before=content)
                case RunProgram():
                    pass
                case _:
                    return "what was written down is no step that brings anything back"
            done = self.runner.execute(
                step, timeout_seconds=_STEP_SECONDS, cancelled=threading.Event()
            )
        except (NarthexError, OSError) as error:
            return str(error)
        if done.state is RunState.SUCCEEDED:
            return ""
        return f"`{step.describe().partition(chr(10))[0]}`: {done.outcome.output.strip()[:500]}"

    def _claim(self, run_id: str, name: str) -> bool:
        """Decide, once: a rename succeeds for one only."""
        try:
            os.rename(self._path(run_id, _ARMED), self._path(run_id, name))  # noqa: PTH104
        except FileNotFoundError:
            return False
        sync_directory(self.folder)
        return True

    def _path(self, run_id: str, name: str) -> Path:
        return self.folder / f"{run_id}.{name}"


def _unit(run_id: str) -> str:
    return f"narthex-revert-{run_id}"


def _content(path: str) -> str | None:
    try:
        return Path(path).read_bytes().decode()
    except FileNotFoundError:
        return None
