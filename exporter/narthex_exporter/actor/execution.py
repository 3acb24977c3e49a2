"""Carry one accepted run out, step by step, each change of it told as it happens."""

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from narthex_exporter.actor import aftermath
from narthex_exporter.actor.plans import Plan, Yielded
from narthex_exporter.actor.runner import Done, Runner
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Params
from narthex_exporter.contract.steps import Look, Note, Outcome, Step, as_json
from narthex_exporter.contract.wire import Run, RunState, StepRecord

log = logging.getLogger(__name__)

_LOOK_AFTER_HINT: Final = "look at its state before running it again"
# Ends that need no explanation from a journal.
_QUIET: Final = frozenset({RunState.SUCCEEDED, RunState.CANCELLED})


class ChangedError(NarthexError):
    """A plan wants to do something else than what was shown."""


@dataclass(slots=True, kw_only=True)
class Execution:
    """One run under way. ``tell`` stores each newer state of the run, and shows it."""

    run: Run
    plan: Plan
    params: Params
    facts: Facts
    runner: Runner
    tell: Callable[[Run], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(tz=dt.UTC)

    def carry_out(self) -> Run:
        """Run every step, re-read the state, and return the final run (not yet told)."""
        self._change(state=RunState.RUNNING, started_at=self.now())
        try:
            state, error = self._follow()
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

    def _follow(self) -> tuple[RunState, str]:
        deadline = self.clock() + self.plan.action.timeout_seconds
        generator: Yielded = self.plan.action.plan(self.params, self.facts)
        outcome: Outcome | None = None
        count = 0
        try:
            while True:
                item = generator.send(outcome)
                outcome = None
                if isinstance(item, Note):
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
            done = self.runner.execute(
                step, timeout_seconds=timeout_seconds, cancelled=self.cancelled
            )
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

    def _finish(self, state: RunState, error: str) -> Run:
        if state is RunState.SUCCEEDED and self.plan.steps:
            self.cancelled.wait(aftermath.settle_seconds(self.run.action))
        try:
            after = aftermath.look(self.run.action, self.params, self.facts)
            lines = () if state in _QUIET else aftermath.journal(self.params, self.facts)
        except NarthexError as unread:
            # What was done stays done, whether or not it can be looked at.
            return self._end(state, error, f"its state could not be read again: {unread}")
        if state is RunState.SUCCEEDED and after.contradiction:
            state, error = RunState.FAILED, after.contradiction
            lines = aftermath.journal(self.params, self.facts)
        hint = "" if state in _QUIET else after.hint
        if lines:
            self._explain(lines)
            hint = hint or "the service's last log lines stand in the last step's output"
        return self._end(state, error, hint, after=after.state)

    def _explain(self, lines: tuple[str, ...]) -> None:
        *steps, last = self.run.steps or (
            StepRecord(text="read the journal", state=RunState.SUCCEEDED),
        )
        text = "\n".join((last.output, "Last lines of the journal:", *lines))
        self._change(steps=(*steps, last.model_copy(update={"output": text})))

    def _end(
        self, state: RunState, error: str, hint: str, *, after: dict[str, object] | None = None
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
                "after": after,
                "steps": steps,
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


def _why(step: Step, done: Done) -> str:
    if done.state is RunState.CANCELLED:
        return ""
    if done.state is RunState.TIMED_OUT:
        return f"`{step.describe()}` took too long and was stopped"
    lines = done.outcome.output.strip().splitlines()
    return f"`{step.describe()}` failed: {lines[-1] if lines else f'code {done.outcome.code}'}"
