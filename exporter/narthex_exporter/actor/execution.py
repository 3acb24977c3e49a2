"""Carry one accepted run out, step by step, each change of it told as it happens."""

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from narthex_exporter.actor.confirm import Confirmations, Reverted
from narthex_exporter.actor.plans import Plan
from narthex_exporter.actor.runner import Done, Runner, RunnerError
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Action, Aftermath, Params, Planned
from narthex_exporter.contract.steps import (
    Confirm,
    Guard,
    Look,
    Note,
    Outcome,
    Step,
    Undo,
    as_json,
    for_run,
)
from narthex_exporter.contract.wire import Run, RunState, StepRecord

log = logging.getLogger(__name__)

_LOOK_AFTER_HINT: Final = "look at its state before running it again"
# The timer must not be what ends the wait for a confirmation: that is ours to tell.
_CONFIRM_MARGIN_SECONDS: Final = 5.0
_REVERT_SECONDS: Final = 120.0
_TICK_SECONDS: Final = 0.1
# Ends that need no explanation from a journal.
_QUIET: Final = frozenset({RunState.SUCCEEDED, RunState.CANCELLED, RunState.REVERTED})


class ChangedError(NarthexError):
    """A plan wants to do something else than what was shown."""


@dataclass(slots=True, kw_only=True)
class Execution:
    """One run under way. ``tell`` stores each newer state of the run, and shows it.

    ``confirmed`` says whether the operator has confirmed a run that waits for it.
    """

    run: Run
    plan: Plan
    params: Params
    facts: Facts
    runner: Runner
    tell: Callable[[Run], None]
    confirmations: Confirmations | None = None
    confirmed: Callable[[], bool] = lambda: False
    cancelled: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(tz=dt.UTC)
    # When the guard's timer brings everything back, by `clock`; None without a guard.
    guard_until: float | None = None

    def carry_out(self) -> Run:
        """Run every step, re-read the state, and return the final run (not yet told)."""
        self._change(state=RunState.RUNNING, started_at=self.now())
        try:
            state, error = self._guarded()
            return self._finish(state, error)
        except NarthexError as failure:
            return self._end(RunState.FAILED, str(failure), failure.hint)
        except Exception:
            # The one boundary of a run: a fault of ours must end it, not leave it running.
            fault = secrets.token_hex(4)
            log.exception("run.fault", extra={"run_id": self.run.id, "fault": fault})
            return self._end(
                RunState.FAILED,
                f"a fault of the actor ended the run (logged as {fault})",
                _LOOK_AFTER_HINT,
            )

    def _guarded(self) -> tuple[RunState, str]:
        """Follow the plan; what stands under a guard is kept once confirmed, or not at all."""
        try:
            state, error = self._follow()
        except NarthexError as failure:
            if self.guard_until is None:
                raise
            return _as_reverted(self._bring_back(), str(failure))
        except Exception:
            self._bring_back()
            raise
        if self.guard_until is None or self.confirmations is None:
            return state, error
        if state is RunState.SUCCEEDED and self.confirmations.disarm(self.run.id):
            return state, error
        reverted = self._bring_back()
        return _as_reverted(reverted, error or "it was not confirmed in time")

    def _bring_back(self) -> Reverted | None:
        """Bring back what stands under the guard, if there is one, or wait for who does."""
        if self.guard_until is None or self.confirmations is None:
            return None
        done = self.confirmations.revert(self.run.id)
        return done or self.confirmations.result(self.run.id, wait_seconds=_REVERT_SECONDS)

    def _follow(self) -> tuple[RunState, str]:
        deadline = self.clock() + self.plan.action.timeout_seconds
        generator: Planned = self.plan.action.plan(self.params, self.facts)
        outcome: Outcome | None = None
        count = 0
        try:
            while True:
                item = generator.send(outcome)
                outcome = None
                if isinstance(item, Note | Undo):
                    continue
                step = item.step if isinstance(item, Look) else item
                self._check(step, count)
                if self.cancelled.is_set():
                    return RunState.CANCELLED, ""
                done = self._step(step, count, deadline - self.clock())
                count += 1
                judged = isinstance(item, Look) and done.state is RunState.FAILED
                if done.state is not RunState.SUCCEEDED and not judged:
                    return done.state, _why(step, done)
                outcome = done.outcome
        except StopIteration:
            if count < len(self.plan.steps):
                raise ChangedError(
                    "the node changed while the run began: fewer steps are due than were shown",
                    hint="plan again",
                ) from None
            return RunState.SUCCEEDED, ""
        finally:
            generator.close()

    def _check(self, step: Step, index: int) -> None:
        """Let only what was shown be done; what follows a look could not be shown."""
        if index < len(self.plan.steps):
            same = as_json(step) == as_json(self.plan.steps[index])
        else:
            same = not self.plan.complete
        if not same:
            raise ChangedError(
                f"the node changed while the run began: it would now do {step.describe()!r}",
                hint="plan again",
            )

    def _step(self, step: Step, index: int, timeout_seconds: float) -> Done:
        record = StepRecord(text=step.describe(), state=RunState.RUNNING, started_at=self.now())
        self._record(record, index)
        if timeout_seconds <= 0:
            done = Done(state=RunState.TIMED_OUT, outcome=Outcome(code=1, output="not begun"))
        else:
            done = self._carried_out(step, record, index, timeout_seconds)
        self._record(
            record.model_copy(
                update={
                    "state": done.state,
                    "code": done.outcome.code,
                    "output": done.outcome.output,
                    "truncated": done.truncated,
                    "duration_seconds": round(done.outcome.duration_seconds, 3),
                }
            ),
            index,
        )
        return done

    def _carried_out(
        self, step: Step, record: StepRecord, index: int, timeout_seconds: float
    ) -> Done:
        if isinstance(step, Guard):
            return self._arm(step)
        if isinstance(step, Confirm):
            return self._wait_for_confirmation()
        return self.runner.execute(
            for_run(step, self.run.id),
            timeout_seconds=timeout_seconds,
            cancelled=self.cancelled,
            progress=lambda text: self._record(record.model_copy(update={"output": text}), index),
        )

    def _arm(self, guard: Guard) -> Done:
        if self.confirmations is None:
            raise RunnerError("nothing on this node could bring it back: it is not done")
        self.confirmations.arm(self.run.id, guard)
        self.guard_until = self.clock() + guard.seconds
        return _done(RunState.SUCCEEDED, f"a timer of {guard.seconds:g} s runs")

    def _wait_for_confirmation(self) -> Done:
        if self.guard_until is None or self.confirmations is None:
            raise RunnerError("there is nothing to confirm")
        began = self.clock()
        left = self.guard_until - began
        self._change(
            state=RunState.CONFIRMING,
            confirm_until=self.now() + dt.timedelta(seconds=max(0.0, left)),
        )
        end = self.guard_until - min(_CONFIRM_MARGIN_SECONDS, left / 2)
        while not self.confirmed():
            if self.cancelled.is_set():
                return _done(RunState.CANCELLED, "cancelled while it waited", self.clock() - began)
            if self.clock() > end or not self.confirmations.is_armed(self.run.id):
                text = "the operator did not confirm over a new connection"
                return _done(RunState.FAILED, text, self.clock() - began)
            self.cancelled.wait(_TICK_SECONDS)
        self._change(state=RunState.RUNNING, confirm_until=None)
        return _done(RunState.SUCCEEDED, "confirmed", self.clock() - began)

    def _finish(self, state: RunState, error: str) -> Run:
        if state is RunState.SUCCEEDED and self.plan.steps:
            self.cancelled.wait(self.plan.action.settle_seconds)
        failed = state not in _QUIET
        try:
            after = look_after(self.plan.action, self.params, self.facts, failed=failed)
        except NarthexError as unread:
            # What was done stays done, whether or not it can be looked at.
            return self._end(state, error, f"its state could not be read again: {unread}")
        if state is RunState.SUCCEEDED and after.contradiction:
            state, error, failed = RunState.FAILED, after.contradiction, True
        if failed and after.evidence:
            self._explain(after.evidence)
        hint = after.hint if failed else ""
        if failed and after.evidence and not hint:
            hint = "what it logged last stands in the last step's output"
        return self._end(state, error, hint, after=after.state)

    def _explain(self, lines: tuple[str, ...]) -> None:
        *steps, last = self.run.steps or (
            StepRecord(text="read the journal", state=RunState.SUCCEEDED),
        )
        text = "\n".join((last.output, "What it logged last:", *lines))
        self._change(steps=(*steps, last.model_copy(update={"output": text})))

    def _end(
        self, state: RunState, error: str, hint: str, *, after: Mapping[str, object] | None = None
    ) -> Run:
        steps = tuple(
            step
            if step.state.final
            else step.model_copy(
                update={"state": RunState.FAILED if step.started_at else RunState.CANCELLED}
            )
            for step in self.run.steps
        )
        self.run = self.run.model_copy(
            update={
                "state": state,
                "error": error,
                "hint": hint,
                "after": None if after is None else dict(after),
                "steps": steps,
                "undo": self.plan.undo if state is RunState.SUCCEEDED and steps else None,
                "confirm_until": None,
                "finished_at": self.now(),
            }
        )
        return self.run

    def _record(self, record: StepRecord, index: int) -> None:
        steps = list(self.run.steps)
        steps[index : index + 1] = [record]
        self._change(steps=tuple(steps))

    def _change(self, **fields: object) -> None:
        self.run = self.run.model_copy(update=fields)
        self.tell(self.run)


def look_after(action: Action[Any], params: Params, facts: Facts, *, failed: bool) -> Aftermath:
    """Re-read what an action acted on. Raises NarthexError."""
    if action.after is None:
        return Aftermath()
    found: Aftermath = action.after(params, facts, failed)
    return found


def _done(state: RunState, text: str, seconds: float = 0.0) -> Done:
    code = 0 if state is RunState.SUCCEEDED else 1
    return Done(state=state, outcome=Outcome(code=code, output=text, duration_seconds=seconds))


def _as_reverted(reverted: Reverted | None, error: str) -> tuple[RunState, str]:
    if reverted is None:
        return RunState.FAILED, f"{error}; it was not brought back in time: look at the node now"
    if reverted.problems:
        return RunState.FAILED, f"{error}; to bring it back failed: {'; '.join(reverted.problems)}"
    return RunState.REVERTED, f"{error}: it was brought back"


def _why(step: Step, done: Done) -> str:
    if done.state is RunState.CANCELLED:
        return ""
    if done.state is RunState.TIMED_OUT:
        return f"`{_first_line(step)}` took too long and was stopped"
    lines = done.outcome.output.strip().splitlines()
    why = lines[-1] if lines else f"code {done.outcome.code}"
    if isinstance(step, Confirm):
        return why
    return f"`{_first_line(step)}` failed: {why}"


def _first_line(step: Step) -> str:
    return step.describe().partition("\n")[0]
