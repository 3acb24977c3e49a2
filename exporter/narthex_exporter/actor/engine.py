"""Accept runs once each, carry them out, and tell what became of them."""

import collections
import contextlib
import datetime as dt
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from narthex_exporter.actor.audit import Audit, AuditError
from narthex_exporter.actor.confirm import Confirmations
from narthex_exporter.actor.execution import Execution, look_after
from narthex_exporter.actor.jobs import Jobs
from narthex_exporter.actor.plans import Plan, make_plan
from narthex_exporter.actor.policy import Policy
from narthex_exporter.actor.runner import Runner
from narthex_exporter.actor.store import RunStore, StoreError
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Action, Catalogue, Danger, Params
from narthex_exporter.contract.tickets import Claims
from narthex_exporter.contract.wire import Run, RunState, StepRecord

log = logging.getLogger(__name__)

_KEPT_SECONDS: Final = 7 * 86_400.0
_MOST_RUNS: Final = 32
# So long a job may take to begin, and so often it is looked at.
_BEGIN_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.1
_REVERT_SECONDS: Final = 120.0
# A run that is not a job is over before that: the actor's restart waits for it.
_DRAIN_SECONDS: Final = 20.0


class ConflictError(NarthexError):
    """A run id belongs to another request."""


class PlanChangedError(NarthexError):
    """The plan is not the one that was shown."""


class BusyError(NarthexError):
    """Another run acts on the resource; ``run`` is its id."""

    def __init__(self, message: str, *, run: str | None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.run = run


class RateError(NarthexError):
    """The policy's rate, or the actor's own bound, is reached."""


class NotConfirmableError(NarthexError):
    """A run does not wait for a confirmation."""


class UnknownRunError(NarthexError):
    """No run has that id."""


class NotAvailableError(NarthexError):
    """Something that an action or query needs is not on this node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request for a run, its ticket and parameters checked. ``request`` hashes its body."""

    action: Action[Any]
    params: Params
    plan: str
    reason: str
    request: str
    claims: Claims


@dataclass(slots=True, kw_only=True)
class Engine:
    """Accept, carry out, cancel and tell runs. ``policy`` may be replaced while it works.

    ``needs`` says of each need (``systemd``) why this node does not meet it; empty when it does.
    """

    catalogue: Catalogue
    facts: Facts
    policy: Policy
    store: RunStore
    audit: Audit
    runner: Runner
    jobs: Jobs
    confirmations: Confirmations
    needs: Mapping[str, Callable[[], str]]
    clock: Callable[[], float] = time.time
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)
    _accepting: set[str] = field(default_factory=set, init=False)
    _live: dict[str, Execution] = field(default_factory=dict, init=False)
    _threads: dict[str, threading.Thread] = field(default_factory=dict, init=False)
    _unstored: dict[str, Run] = field(default_factory=dict, init=False)
    _locks: dict[str, str] = field(default_factory=dict, init=False)
    _recent: dict[Danger, collections.deque[float]] = field(default_factory=dict, init=False)
    _stopping: bool = field(default=False, init=False)

    @property
    def under_way(self) -> int:
        """How many runs are being carried out now."""
        with self._changed:
            return len(self._live)

    def unavailable(self, needs: frozenset[str]) -> str:
        """Say which need this node does not meet; empty when it meets all."""
        return next(filter(None, (self.needs[need]() for need in sorted(needs))), "")

    def plan(self, action: Action[Any], params: Params) -> Plan:
        """Work out what an action would do. Raises RefusedError, NotAvailableError."""
        why = self.unavailable(action.needs)
        if why:
            raise NotAvailableError(
                f"{action.name} is not available on this node: {why}",
                hint="the node's manifest lists what is",
            )
        self.policy.judge(action, params, self.facts)
        return make_plan(action, params, self.facts)

    def submit(self, order: Order) -> tuple[Run, bool]:
        """Accept a run and begin it; the second value tells whether it is new.

        The same id with the same request gives what is known of it, and begins nothing.
        """
        run_id = order.claims.op
        with self._changed:
            while run_id in self._accepting:
                self._changed.wait()
            stored = self.store.get(run_id)
            if stored is not None:
                if stored.request != order.request:
                    raise ConflictError(
                        f"run {run_id} was asked for with another request",
                        hint="a new run needs a new id",
                    )
                return self.get(run_id), False
            self._accepting.add(run_id)
        try:
            return self._accept(order), True
        finally:
            with self._changed:
                self._accepting.discard(run_id)
                self._changed.notify_all()

    def get(self, run_id: str) -> Run:
        """Tell a run as it is now. Raises UnknownRunError."""
        unstored = self._unstored.get(run_id)
        if unstored is not None:
            self._store_late(unstored)
            return unstored
        stored = self.store.get(run_id)
        if stored is None:
            raise UnknownRunError(f"this node knows no run {run_id}")
        return stored.run

    def events(self, run_id: str, *, pulse_seconds: float = 15.0) -> Iterator[Run | None]:
        """Tell a run at each change until it is final; ``None`` now and then.

        Its end is told once it stands in the audit too.
        """
        told: Run | None = None
        while True:
            with self._changed:
                run = self.get(run_id)
                if run == told or (run.state.final and run_id in self._threads):
                    self._changed.wait(pulse_seconds)
                    run = self.get(run_id)
                ending = run.state.final and run_id in self._threads
                stopping = self._stopping
            if ending and not stopping:
                continue
            yield None if run == told else run
            told = run
            if run.state.final or stopping:
                return

    def cancel(self, run_id: str, *, claims: Claims) -> Run:
        """Ask a run to stop; no error when it has ended. Raises UnknownRunError."""
        run = self.get(run_id)
        with self._changed:
            execution = self._live.get(run_id)
        if not run.state.final:
            self.audit.append("run.cancel-requested", op=run_id, jti=claims.jti, sub=claims.sub)
            if execution is not None:
                execution.cancelled.set()
            else:
                self.store.ask_cancel(run_id)
        return run

    def confirm(self, run_id: str, *, claims: Claims) -> Run:
        """Keep what a run did: the operator has reached us over a new connection.

        The same again is no error. Raises UnknownRunError, NotConfirmableError.
        """
        run = self.get(run_id)
        if run.state is RunState.CONFIRMING:
            self.audit.append("run.confirmed", op=run_id, jti=claims.jti, sub=claims.sub)
            self.store.confirm(run_id)
            return run
        stored = self.store.get(run_id)
        if stored is not None and stored.confirmed:
            return run
        raise NotConfirmableError(
            f"run {run_id} does not wait for a confirmation: it is {run.state}",
            hint="look at its result",
        )

    def recover(self) -> None:
        """Tell the truth about runs that an earlier actor left: none of them is begun again.

        Those whose job lives go on as if nothing had been.
        """
        for stored in self.store.unfinished():
            run = stored.run
            if self.jobs.is_alive(run.id):
                self._attach(run, functools.partial(self._follow_job, run))
            elif self._is_guarded(run):
                # To bring it back may take a while, in which we can answer already.
                self._attach(run, functools.partial(self._lost, run))
            else:
                self._tell_end(self._lost(run))
        for stored in self.store.untold():
            self._tell_end(stored.run)
        self.store.prune(before=self.clock() - _KEPT_SECONDS)

    def _attach(self, run: Run, work: Callable[[], Run | None]) -> None:
        """See a run through that an earlier actor began."""
        with self._changed:
            self._locks[run.resource] = run.id
        self._in_thread(run, work)
        log.info("run.attached", extra={"run_id": run.id, "action": run.action})

    def _lost(self, run: Run) -> Run:
        """Give the end of a run whose process has gone without one."""
        if self._is_guarded(run):
            return self._brought_back(run)
        begun = run.state is not RunState.QUEUED
        error = (
            "what carried the run out stopped while it was under way: its outcome is not known"
            if begun
            else "what should carry the run out stopped before the first step: nothing was done"
        )
        hint = "look at its state before running it again" if begun else "run it again"
        return self._ended(run, RunState.LOST, error, hint)

    def _is_guarded(self, run: Run) -> bool:
        return self.confirmations.is_armed(run.id) or self.confirmations.is_decided_against(run.id)

    def _brought_back(self, run: Run) -> Run:
        done = self.confirmations.revert(run.id) or self.confirmations.result(
            run.id, wait_seconds=_REVERT_SECONDS
        )
        why = "what carried the run out stopped before it was confirmed"
        if done is None or done.problems:
            problems = "it did not end" if done is None else "; ".join(done.problems)
            return self._ended(
                run, RunState.FAILED, f"{why}; to bring it back failed: {problems}", ""
            )
        return self._ended(run, RunState.REVERTED, f"{why}: it was brought back", "")

    def _ended(self, run: Run, state: RunState, error: str, hint: str) -> Run:
        steps = tuple(
            step
            if step.state.final
            else step.model_copy(
                update={"state": RunState.LOST if step.started_at else RunState.CANCELLED}
            )
            for step in run.steps
        )
        return run.model_copy(
            update={
                "state": state,
                "error": error,
                "hint": hint,
                "steps": steps,
                "after": self._after(run),
                "confirm_until": None,
                "finished_at": self._now(),
            }
        )

    def _tell_end(self, run: Run) -> None:
        """Store a run's end, and write it into the audit once."""
        self.store.save(run)
        self.audit.append(
            "run.lost" if run.state is RunState.LOST else "run.finished",
            op=run.id,
            act=run.action,
            resource=run.resource,
            state=run.state,
            codes=[step.code for step in run.steps],
            error=run.error[:1000],
        )
        self.store.tell(run.id)
        self.jobs.forget(run.id)
        self.confirmations.forget(run.id)
        log.info("run.finished", extra={"run_id": run.id, "state": str(run.state)})

    def stop(self, *, drain_seconds: float = _DRAIN_SECONDS) -> None:
        """Let runs under way finish for a while, begin no other."""
        with self._changed:
            self._stopping = True
            threads = list(self._threads.values())
            self._changed.notify_all()
        deadline = time.monotonic() + drain_seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self, order: Order) -> Run:
        plan = self.plan(order.action, order.params)
        self.policy.judge_approvals(order.action, order.claims, now=self.clock())
        if plan.digest != order.plan:
            raise PlanChangedError(
                "the node is not as it was when the plan was shown", hint="plan again"
            )
        run = self._new_run(order, plan)
        self._take(run, order.action.danger)
        try:
            self._write_down(run, order, plan)
            self._begin(run, order.params, plan)
        except BaseException:
            self._release(run)
            raise
        return run

    def _new_run(self, order: Order, plan: Plan) -> Run:
        return Run(
            id=order.claims.op,
            action=order.action.name,
            resource=plan.resource,
            state=RunState.QUEUED,
            params=order.params.model_dump(mode="json"),
            steps=tuple(
                StepRecord(text=step.describe(), state=RunState.QUEUED) for step in plan.steps
            ),
            accepted_at=self._now(),
        )

    def _take(self, run: Run, danger: Danger) -> None:
        """Lock the resource, within the rate."""
        with self._changed:
            if self._stopping or len(self._locks) >= _MOST_RUNS:
                raise RateError("the actor takes no more runs now", hint="try again in a minute")
            holder = self._locks.get(run.resource)
            if holder is not None:
                raise BusyError(
                    f"run {holder} is acting on {run.resource}",
                    run=holder,
                    hint="wait for its end",
                )
            self._spend_rate(danger)
            self._locks[run.resource] = run.id

    def _spend_rate(self, danger: Danger) -> None:
        rate = self.policy.rate.get(danger)
        if rate is None:
            return
        recent = self._recent.setdefault(danger, collections.deque())
        now = time.monotonic()
        while recent and recent[0] <= now - rate.seconds:
            recent.popleft()
        if len(recent) >= rate.count:
            raise RateError(
                f"the node's policy allows {rate} runs that are {danger}", hint="try again later"
            )
        recent.append(now)

    def _write_down(self, run: Run, order: Order, plan: Plan) -> None:
        """Put run and audit row on disk: without both nothing is executed."""
        claims = order.claims
        self.store.accept(run, request=order.request, plan=plan.digest)
        try:
            self.audit.append(
                "run.accepted",
                op=run.id,
                jti=claims.jti,
                sub=claims.sub,
                sid=claims.sid,
                act=run.action,
                resource=run.resource,
                params=run.params,
                plan=plan.digest,
                ph=claims.ph,
                # Whose order it was, should this machine become another operator's.
                iss=claims.iss,
                aud=claims.aud,
                reason=order.reason[:1000],
                approvals=[one.model_dump() for one in claims.apr],
                operator_head=claims.ah.model_dump() if claims.ah else None,
            )
        except AuditError:
            self.store.withdraw(run.id)
            raise

    def _begin(self, run: Run, params: Params, plan: Plan) -> None:
        log.info("run.accepted", extra={"run_id": run.id, "action": run.action})
        if plan.action.is_job:
            self._in_thread(run, lambda: self._carry_out_as_job(run, plan.action))
            return
        execution = Execution(
            run=run,
            plan=plan,
            params=params,
            facts=self.facts,
            runner=self.runner,
            tell=self._tell,
        )
        with self._changed:
            self._live[run.id] = execution
        self._in_thread(run, execution.carry_out)

    def _in_thread(self, run: Run, work: Callable[[], Run | None]) -> None:
        thread = threading.Thread(
            target=self._to_its_end, args=(run, work), name=f"run-{run.id}", daemon=True
        )
        with self._changed:
            self._threads[run.id] = thread
        thread.start()

    def _to_its_end(self, run: Run, work: Callable[[], Run | None]) -> None:
        """See a run through; ``None`` from ``work`` leaves its end to a later actor."""
        ended: Run | None = None
        try:
            ended = work()
            if ended is not None:
                self._tell_end(ended)
                self.store.prune(before=self.clock() - _KEPT_SECONDS)
        except (AuditError, StoreError) as error:
            # It is told from memory until it can be stored; a restart before makes it `lost`.
            if ended is not None:
                with self._changed:
                    self._unstored[run.id] = ended
            log.warning("run.unrecorded", extra={"run_id": run.id, "error": str(error)})
        finally:
            self._release(run)

    def _carry_out_as_job(self, run: Run, action: Action[Any]) -> Run | None:
        try:
            self.jobs.start(run, action)
        except NarthexError as error:
            return self._ended(run, RunState.FAILED, f"nothing was done: {error}", error.hint)
        return self._follow_job(run)

    def _follow_job(self, run: Run) -> Run | None:
        """Watch a job until its run has ended, or it is gone, or we are to stop."""
        told, begin_until = run, time.monotonic() + _BEGIN_SECONDS
        while True:
            # First whether it lives: what it wrote last is then surely read.
            alive = self.jobs.is_alive(run.id)
            stored = self.store.get(run.id)
            if stored is None:
                return None
            if stored.run != told:
                told = stored.run
                with self._changed:
                    self._changed.notify_all()
            if told.state.final:
                return told
            waiting = not self.jobs.has_begun(run.id) and time.monotonic() < begin_until
            if not alive and not waiting:
                return self._lost(told)
            with self._changed:
                if self._stopping:
                    return None
                self._changed.wait(_LOOK_SECONDS)

    def _tell(self, run: Run) -> None:
        self.store.save(run)
        with self._changed:
            self._changed.notify_all()

    def _store_late(self, run: Run) -> None:
        with contextlib.suppress(StoreError):
            self.store.save(run)
            self._unstored.pop(run.id, None)

    def _release(self, run: Run) -> None:
        with self._changed:
            if self._locks.get(run.resource) == run.id:
                del self._locks[run.resource]
            self._live.pop(run.id, None)
            self._threads.pop(run.id, None)
            self._changed.notify_all()

    def _after(self, run: Run) -> dict[str, Any] | None:
        action = self.catalogue.actions.get(run.action)
        if action is None:
            return None
        try:
            params = action.params.model_validate(run.params)
            state = look_after(action, params, self.facts, failed=False).state
            return None if state is None else dict(state)
        except (NarthexError, ValueError) as error:
            log.warning("run.unread", extra={"run_id": run.id, "error": str(error)})
            return None

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.clock(), tz=dt.UTC)
