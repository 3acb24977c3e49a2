"""Fleet runs and schedules in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.panel.fake_runs import ASKS
from tests.panel.world import World

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import PlannedStep
from narthex_operator.errors import ConflictError, InvalidError, NotFoundError
from narthex_operator.services.access import Actor
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.views import (
    FleetMemberView,
    FleetNote,
    FleetPlanGroup,
    FleetPlanView,
    FleetRefusal,
    FleetRunView,
    OutputGroup,
    ScheduleSpec,
    ScheduleView,
    SlotView,
)
from narthex_operator.services.waves import FleetRunState, MemberState

ACTION = "service.restart"
NAMES = tuple(f"web-{number}" for number in range(1, 13))


@dataclass
class FakeFleetRuns:
    world: World

    def targets(self, actor: Actor, on: str) -> Sequence[str]:
        return NAMES

    def plan(
        self,
        actor: Actor,
        name: str,
        params: Mapping[str, Any],
        *,
        on: str = "",
        nodes: Sequence[str] = (),
    ) -> FleetPlanView:
        action = CATALOGUE[name]
        actor.require(action.permission, danger=action.danger)
        if not nodes:
            raise InvalidError("the selector matches no node", hint="select some")
        names = [self.world.find(ref).name for ref in nodes]
        text = self.world.text or "systemd: RestartUnit(nginx.service, replace)"
        step = PlannedStep(text=text, exact={"kind": "dbus"})
        going = tuple(names[1:]) or tuple(names)
        return FleetPlanView(
            digest="d" * 64,
            action=name,
            title=action.title,
            summary=action.summary,
            description=action.description,
            danger=action.danger,
            confirm=ASKS[action.danger],
            phrase="",
            params=dict(params),
            selector=",".join(names),
            members=len(going),
            groups=(
                FleetPlanGroup(
                    nodes=going,
                    digest="a" * 64,
                    resource="service/nginx.service",
                    steps=(step,),
                    notes=(FleetNote(text=text, nodes=going[:1]),),
                ),
            ),
            refusals=()
            if len(names) == 1
            else (FleetRefusal(nodes=(names[0],), error=text, hint="look at its policy"),),
            expires_at=self.world.time + timedelta(minutes=30),
        )

    def submit(
        self,
        actor: Actor,
        *,
        plan: str,
        strategy: Strategy,
        reason: str = "",
        confirmation: str = "",
        leave_out_refused: bool = False,
        fleet_run_id: str | None = None,
    ) -> FleetRunView:
        if not reason:
            raise InvalidError("reason must say why")
        self.world.submitted.append(
            {"plan": plan, "strategy": strategy, "left_out": leave_out_refused, "reason": reason}
        )
        return self._run("0190-f", FleetRunState.RUNNING)

    def get(self, actor: Actor, fleet_run_id: str) -> FleetRunView:
        actor.require("run:read")
        for one in self.list(actor):
            if one.id == fleet_run_id:
                return one
        raise NotFoundError(f"there is no fleet run {fleet_run_id}")

    def list(self, actor: Actor, *, limit: int = 50) -> Sequence[FleetRunView]:
        actor.require("run:read")
        if self.world.mode == "empty":
            return []
        return [
            self._run("0190-f", FleetRunState.RUNNING),
            self._run("0190-g", FleetRunState.HALTED),
            self._run("0190-h", FleetRunState.FAILED),
        ]

    def cancel(self, actor: Actor, fleet_run_id: str) -> FleetRunView:
        self.world.submitted.append({"cancel": fleet_run_id})
        return self.get(actor, fleet_run_id)

    def resume(self, actor: Actor, fleet_run_id: str, *, skip_gate: bool = False) -> FleetRunView:
        self.world.submitted.append({"resume": fleet_run_id, "skip_gate": skip_gate})
        return self.get(actor, fleet_run_id)

    def plan_retry(self, actor: Actor, fleet_run_id: str) -> FleetPlanView:
        found = self.get(actor, fleet_run_id)
        if not found.state.final:
            raise ConflictError("the fleet run is not over yet", hint="wait")
        return self.plan(actor, found.action, found.params, nodes=["web-2"])

    def _run(self, key: str, state: FleetRunState) -> FleetRunView:
        declared, text = CATALOGUE[ACTION], self.world.text
        states = [MemberState.SUCCEEDED] * 5 + [MemberState.FAILED, MemberState.RUNNING]
        states += [MemberState.WAITING] * 4 + [MemberState.LEFT_OUT]
        if state.final:
            states = [MemberState.SUCCEEDED] * 11 + [MemberState.FAILED]
        members = tuple(
            FleetMemberView(
                node=f"{number:016x}",
                node_name=name,
                wave=-1 if one is MemberState.LEFT_OUT else number // 4,
                state=one,
                run="0190-a" if one in {MemberState.SUCCEEDED, MemberState.FAILED} else None,
                error=(text or "it has failed") if one is MemberState.FAILED else "",
                codes=(0,) if one is MemberState.SUCCEEDED else (),
                duration_seconds=0.84 if one is MemberState.SUCCEEDED else None,
            )
            for number, (name, one) in enumerate(zip(NAMES, states, strict=True))
        )
        counts = {str(one): states.count(one) for one in states}
        return FleetRunView(
            id=key,
            action=ACTION,
            title=declared.title,
            resource="service/nginx.service",
            danger=declared.danger,
            params={"unit": "nginx.service"},
            selector="@web",
            strategy=Strategy(canary=1, batch="4", gate="min(up) == bool 1"),
            state=state,
            error="1 of 12 nodes failed" if state is FleetRunState.HALTED else "",
            hint="look at the nodes" if state is FleetRunState.HALTED else "",
            actor="anna",
            reason=text or "the certificate was renewed",
            wave=1,
            waves=3,
            counts=counts,
            created_at=self.world.time - timedelta(minutes=2),
            finished_at=self.world.time if state.final else None,
            members=members,
            outputs=(
                OutputGroup(nodes=NAMES[:5], state=MemberState.SUCCEEDED, codes=(0,),
                            output=text or "job 4711 done"),
                OutputGroup(nodes=NAMES[5:6], state=MemberState.FAILED, codes=(1,),
                            output=text or "Job failed: see journal", truncated=True),
            ),
        )  # fmt: skip


@dataclass
class FakeSchedules:
    world: World

    def list(self, actor: Actor) -> Sequence[ScheduleView]:
        actor.require("schedule:read")
        if self.world.mode == "empty":
            return []
        return [self._view("nightly"), self._view("paused", paused="anna may not act any more")]

    def get(self, actor: Actor, ref: str) -> ScheduleView:
        for one in self.list(actor):
            if one.spec.name == ref:
                return one
        raise NotFoundError(f"there is no schedule {ref}")

    def add(self, actor: Actor, spec: ScheduleSpec) -> ScheduleView:
        self.world.submitted.append({"schedule": spec})
        return self._view(spec.name)

    def change(self, actor: Actor, ref: str, spec: ScheduleSpec) -> ScheduleView:
        self.world.submitted.append({"change": ref, "enabled": spec.enabled})
        return self._view(ref)

    def remove(self, actor: Actor, ref: str) -> None:
        self.world.submitted.append({"remove": ref})

    def run_now(self, actor: Actor, ref: str) -> ScheduleView:
        self.world.submitted.append({"run_now": ref})
        return self.get(actor, ref)

    def _view(self, name: str, *, paused: str = "") -> ScheduleView:
        at = self.world.time
        return ScheduleView(
            id="s1" + name,
            spec=ScheduleSpec(
                name=name, cron="0 3 * * 1-5", timezone="Europe/Berlin", action=ACTION,
                params={"unit": "nginx.service"}, on='env="prod",role=~"web.*"',
                reason=self.world.text or "fresh certificates", enabled=not paused,
            ),
            title=CATALOGUE[ACTION].title,
            danger=Danger.DISRUPTIVE,
            owner="anna",
            paused_reason=paused,
            created_at=at - timedelta(days=9),
            next_at=None if paused else at + timedelta(hours=5),
            upcoming=() if paused else tuple(at + timedelta(days=n) for n in range(1, 6)),
            slots=(
                SlotView(slot=at - timedelta(days=1), outcome="started", fleet_run="0190-h"),
                SlotView(slot=at - timedelta(days=2), outcome="missed",
                         error=self.world.text or "no operator looked until 90 s later"),
            ),
        )  # fmt: skip
