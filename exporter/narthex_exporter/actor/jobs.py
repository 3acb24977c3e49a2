"""Carry a run out in a process of its own, and know from the actor how it does.

The job writes the run into the journal itself, so that its result stands there whether or not the
actor lives. It holds a lock while it lives: the kernel lets go of it however the job ends, so that
whoever can take it knows that there is no job any more.
"""

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from narthex_exporter.actor.execution import ChangedError, Execution
from narthex_exporter.actor.node import CATALOGUE, Config, Hands, open_node
from narthex_exporter.actor.plans import make_plan
from narthex_exporter.actor.policy import load_policy
from narthex_exporter.actor.store import RunStore, Stored
from narthex_exporter.actor.transient import Launcher, wait
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.spec import Action, Catalogue
from narthex_exporter.contract.wire import Run, RunState
from narthex_exporter.errors import ConfigError

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """The jobs of a node, as its actor sees them."""

    folder: Path
    launcher: Launcher
    arguments: tuple[str, ...]

    def start(self, run: Run, action: Action[Any]) -> None:
        """Start the job of an accepted run. Raises NarthexError: then nothing was done."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.launcher.start(
            f"narthex-job-{run.id}",
            (*self.arguments, "carry-out", run.id),
            limit_seconds=action.timeout_seconds,
        )

    def is_alive(self, run_id: str) -> bool:
        """Tell whether the job of a run is at work."""
        path = self.folder / run_id
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def has_begun(self, run_id: str) -> bool:
        """Tell whether the job of a run ever was at work."""
        return (self.folder / run_id).exists()

    def forget(self, run_id: str) -> None:
        """Remove what is left of a job that has ended."""
        with contextlib.suppress(OSError):
            (self.folder / run_id).unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path, run_id: str) -> Iterator[IO[bytes]]:
    """Hold a run's lock for the life of its job. Raises ConfigError where another has it.

    The file stands there only once it is locked: an actor that looked in between would take the
    job for dead, or hold the lock itself for the moment in which the job wants it.
    """
    fresh = folder / f".{run_id}.{os.getpid()}"
    with fresh.open("w+b") as file:
        os.fchmod(file.fileno(), 0o600)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            (folder / run_id).hardlink_to(fresh)
        except FileExistsError as error:
            raise ConfigError(f"run {run_id} is being carried out already") from error
        finally:
            fresh.unlink()
        yield file


@dataclass(slots=True)
class _Asked:
    """What the operator asked of a job meanwhile, read from the journal now and then."""

    store: RunStore
    run_id: str
    cancelled: threading.Event
    confirmed: bool = False
    over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.over.wait(_LOOK_SECONDS):
            with contextlib.suppress(NarthexError):
                stored = self.store.get(self.run_id)
                if stored is not None:
                    self.confirmed = stored.confirmed
                    if stored.cancelled:
                        self.cancelled.set()


def carry_out(config: Config, run_id: str, *, catalogue: Catalogue | None = None) -> Run:
    """Be the job of one accepted run, to its end. Raises NarthexError."""
    hands = open_node(config)
    with (
        contextlib.closing(RunStore(config.runs_file)) as store,
        held(config.jobs_dir, run_id),
    ):
        stored = store.get(run_id)
        if stored is None or stored.run.state is not RunState.QUEUED:
            raise ConfigError(f"there is no run {run_id} that waits to be carried out")
        run = _carry_out(config, hands, store, stored, catalogue or CATALOGUE)
        store.save(run)
        return run


def _carry_out(
    config: Config, hands: Hands, store: RunStore, stored: Stored, catalogue: Catalogue
) -> Run:
    run = stored.run
    action = catalogue.actions[run.action]
    params = action.params.model_validate(run.params)
    try:
        # Whoever could start us could name a run; the node's policy still has the last word.
        load_policy(config.policy_file).judge(action, params, hands.facts)
        plan = make_plan(action, params, hands.facts)
        if plan.digest != stored.plan:
            raise ChangedError(
                "the node changed while the run began: something else would be done now",
                hint="plan again",
            )
    except NarthexError as error:
        return run.model_copy(
            update={"state": RunState.FAILED, "error": str(error), "hint": error.hint}
        )
    cancelled = threading.Event()
    asked = _Asked(store, run.id, cancelled)
    execution = Execution(
        run=run,
        plan=plan,
        params=params,
        facts=hands.facts,
        runner=hands.runner,
        tell=store.save,
        confirmations=hands.confirmations,
        confirmed=lambda: asked.confirmed,
        cancelled=cancelled,
    )
    thread = threading.Thread(target=asked.watch, name="asked", daemon=True)
    thread.start()
    try:
        return execution.carry_out()
    finally:
        asked.over.set()
        thread.join()


def bring_back(config: Config, run_id: str, *, after_seconds: float = 0.0) -> None:
    """Be the timer of a guard: bring everything back unless somebody has decided by now."""
    wait(after_seconds)
    reverted = open_node(config).confirmations.revert(run_id)
    if reverted is not None and reverted.problems:
        raise ConfigError(f"run {run_id}: to bring it back failed: {'; '.join(reverted.problems)}")
