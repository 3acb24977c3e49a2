"""What waits for a second person, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tests.panel.fake_runs import run
from tests.panel.world import World

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import PlannedStep, PlanReply, RunState
from narthex_operator.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from narthex_operator.services.access import Actor
from narthex_operator.services.views import ApprovalRequestView, ApprovalView, RunView

DIGEST = "d" * 64


@dataclass
class FakeApprovals:
    world: World

    def waiting(self, actor: Actor) -> int:
        if not actor.may("run:read") or self.world.mode == "empty":
            return 0
        return sum(not one.why_not for one in self.list(actor))

    def list(self, actor: Actor) -> Sequence[ApprovalRequestView]:
        actor.require("run:read")
        if self.world.mode == "empty":
            return []
        return [self.get(actor, "0190-p"), self.get(actor, "0190-q"), self.get(actor, "0190-r")]

    def get(self, actor: Actor, run_id: str) -> ApprovalRequestView:
        actor.require("run:read")
        if run_id not in {"0190-p", "0190-q", "0190-r"}:
            raise NotFoundError(f"there is no run {run_id}")
        one = self._run(run_id)
        if one.state is not RunState.UNAPPROVED:
            why = "it does not wait for approval"
        elif not actor.may(f"action:{one.action}", danger=one.danger):
            why = f"to approve it needs what to run it needs: action:{one.action}"
        elif run_id == "0190-q":
            why = "whoever asked for a run cannot approve it"
        elif any(x.user == actor.id for x in one.approvals):
            why = "you have approved it already"
        else:
            why = ""
        return ApprovalRequestView(run=one, why_not=why)

    def approve(self, actor: Actor, run_id: str, *, plan: str) -> RunView:
        found = self.get(actor, run_id)
        if found.why_not:
            raise DeniedError(found.why_not)
        if plan != DIGEST:
            raise ConflictError("what you approve is not the plan that the run was asked for with")
        self.world.approvals.setdefault(run_id, []).append(
            ApprovalView(user=actor.id, name=actor.name, at=self.world.time)
        )
        return self._run(run_id)

    def withdraw(self, actor: Actor, run_id: str) -> RunView:
        kept = [one for one in self.world.approvals.get(run_id, []) if one.user != actor.id]
        self.world.approvals[run_id] = kept
        return self._run(run_id)

    def reject(self, actor: Actor, run_id: str, *, reason: str) -> RunView:
        if not reason:
            raise InvalidError("reason must say why")
        self.world.rejected[run_id] = reason
        return self._run(run_id)

    def _run(self, run_id: str) -> RunView:
        at, text = self.world.time, self.world.text
        state = RunState.SUCCEEDED if run_id == "0190-r" else RunState.UNAPPROVED
        if run_id in self.world.rejected:
            state = RunState.CANCELLED
        boris = ApprovalView(user="user:2", name="boris", at=at - timedelta(minutes=3))
        made = run(run_id, state, created_at=at - timedelta(minutes=4))
        plan = PlanReply(
            action=made.action,
            resource=made.resource,
            danger=Danger.DISRUPTIVE,
            steps=(
                PlannedStep(text=text or "systemd: RestartUnit(nginx.service, replace)", exact={}),
            ),
            notes=(text or "23 connections are open: they will be dropped",),
            diff=text or "--- /etc/nginx/nginx.conf\n+++ new\n-worker 1;\n+worker 4;\n",
            digest=DIGEST,
        )
        extra = [boris] if run_id == "0190-r" else []
        return made.model_copy(
            update={
                "steps": () if state is RunState.UNAPPROVED else made.steps,
                "actor": "anna" if run_id == "0190-q" else "dmitri",
                "reason": text or made.reason,
                "plan": plan,
                "approvals_wanted": 2 if run_id == "0190-p" else 1,
                "approvals": (*extra, *self.world.approvals.get(run_id, [])),
                "approve_until": at + timedelta(minutes=11),
            }
        )
