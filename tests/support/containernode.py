"""Plan and carry out actions on a real container engine, as the actor's jobs do."""

import datetime as dt
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.engines import EngineCalls
from narthex_exporter.actor.execution import Execution
from narthex_exporter.actor.facts import NodeFacts
from narthex_exporter.actor.plans import Plan, make_plan
from narthex_exporter.actor.runner import Runner
from narthex_exporter.actor.systemd import SystemdCaller
from narthex_exporter.contract.firewallfacts import FirewallSettings
from narthex_exporter.contract.wire import Run, RunState, StepRecord, new_run_id
from narthex_exporter.queries import CATALOGUE as QUERIES
from narthex_exporter.sources.containerengines import DOCKER, PODMAN, ContainerEngines
from narthex_exporter.sources.firewallrules import FirewallRules
from narthex_exporter.sources.host import Host
from narthex_exporter.sources.people import People
from narthex_exporter.sources.processes import Processes
from narthex_exporter.sources.smallfiles import SmallFiles
from narthex_exporter.sources.sockets import Sockets
from narthex_exporter.sources.supervisord import Supervisord
from narthex_exporter.sources.systemd import Units
from narthex_exporter.sources.terminals import Terminals

NO_SOCKET = Path("/nonexistent/engine.sock")


@dataclass
class ContainerNode:
    """A node with one engine, or two. ``programs`` is where Compose is looked for."""

    docker: Path = NO_SOCKET
    podman: Path = NO_SOCKET
    programs: tuple[Path, ...] = ()
    facts: NodeFacts = field(init=False)
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        sockets = {DOCKER: self.docker, PODMAN: self.podman}
        processes = Processes()
        self.runner = Runner(
            start_ticks=processes.start_ticks,
            dbus=SystemdCaller(),
            engines=EngineCalls(sockets=sockets),
            directories=self.programs,
        )
        self.facts = NodeFacts(
            processes=processes,
            units=Units(run=self.runner.read, stream=self.runner.stream),
            host=Host(),
            sessions=Terminals(),
            sockets=Sockets(processes=processes),
            files=SmallFiles(),
            firewall=FirewallRules(
                run=self.runner.read, files=SmallFiles(), settings=FirewallSettings
            ),
            accounts=People(),
            supervisor=Supervisord(),
            containers=ContainerEngines(sockets=sockets, directories=self.programs),
        )

    def ask(self, name: str, **params: Any) -> Any:
        """Ask a query, and give its answer as the wire carries it."""
        query = QUERIES[name]
        answer = query.read(query.params.model_validate(params), self.facts)
        return answer.model_dump(mode="json")

    def plan(self, name: str, **params: Any) -> Plan:
        """Plan an action. Raises RefusedError."""
        action = CATALOGUE[name]
        return make_plan(action, action.params.model_validate(params), self.facts)

    def do(self, name: str, /, **params: Any) -> Run:
        """Run an action to its end."""
        return self.begin(name, params).carry_out()

    def done(self, name: str, /, **params: Any) -> Run:
        """Run an action that must succeed."""
        run = self.do(name, **params)
        assert run.state is RunState.SUCCEEDED, (run.error, run.steps)
        return run

    def undo(self, run: Run) -> Run:
        """Run what a run says that undoes it."""
        assert run.undo is not None
        return self.done(run.undo.action, **run.undo.params)

    def begin(self, name: str, params: dict[str, Any], told: list[Run] | None = None) -> Execution:
        """Make ready to run an action; ``told`` gets each newer state of the run."""
        action = CATALOGUE[name]
        checked = action.params.model_validate(params)
        plan = make_plan(action, checked, self.facts)
        run = Run(
            id=new_run_id(),
            action=name,
            resource=checked.resource,
            state=RunState.QUEUED,
            params=checked.model_dump(mode="json"),
            steps=tuple(
                StepRecord(text=one.describe(), state=RunState.QUEUED) for one in plan.steps
            ),
            accepted_at=dt.datetime.now(tz=dt.UTC),
            undo=plan.undo,
        )
        return Execution(
            run=run,
            plan=plan,
            params=checked,
            facts=self.facts,
            runner=self.runner,
            tell=(told if told is not None else []).append,
            cancelled=threading.Event(),
        )
