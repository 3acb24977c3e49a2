"""What the actor and its jobs share: where things are, what reads the node and what changes it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from narthex_exporter import actions, follows, queries
from narthex_exporter.actor.confirm import Confirmations
from narthex_exporter.actor.engines import EngineCalls
from narthex_exporter.actor.facts import NodeFacts
from narthex_exporter.actor.policy import load_policy
from narthex_exporter.actor.runner import Runner
from narthex_exporter.actor.supervisord import SupervisordCaller
from narthex_exporter.actor.systemd import SystemdCaller
from narthex_exporter.actor.transient import PROGRAM, Launcher, launcher_for
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.sources.containerengines import DOCKER, PODMAN, SOCKETS, ContainerEngines
from narthex_exporter.sources.firewallrules import FirewallRules
from narthex_exporter.sources.host import Host
from narthex_exporter.sources.people import People
from narthex_exporter.sources.processes import Processes
from narthex_exporter.sources.smallfiles import SmallFiles
from narthex_exporter.sources.sockets import Sockets
from narthex_exporter.sources.supervisord import Supervisord
from narthex_exporter.sources.systemd import Units
from narthex_exporter.sources.terminals import Terminals

CATALOGUE = Catalogue(
    actions=actions.CATALOGUE, queries=queries.CATALOGUE, follows=follows.CATALOGUE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the command line says. ``program`` is how jobs and timers start ours again."""

    node_dir: Path
    state_dir: Path
    socket: Path
    policy_file: Path
    docker_socket: Path = SOCKETS[DOCKER]
    podman_socket: Path = SOCKETS[PODMAN]
    protected: tuple[int, ...] = ()
    program: tuple[str, ...] = PROGRAM

    @property
    def runs_file(self) -> Path:
        """The journal of runs."""
        return self.state_dir / "runs.sqlite3"

    @property
    def status_file(self) -> Path:
        """What the exporter reads: beside the socket, in a folder that is the actor's."""
        return self.socket.with_suffix(".json")

    @property
    def engine_sockets(self) -> Mapping[str, Path]:
        """Where container engines listen, by name."""
        return {DOCKER: self.docker_socket, PODMAN: self.podman_socket}

    @property
    def jobs_dir(self) -> Path:
        """Where jobs hold their locks."""
        return self.state_dir / "jobs"

    def arguments(self) -> tuple[str, ...]:
        """Give the flags by which ``narthex actor`` finds all this again, for jobs."""
        flags = (
            f"--state.dir={self.node_dir}",
            f"--actor.state-dir={self.state_dir}",
            f"--actor.socket={self.socket}",
            f"--policy.file={self.policy_file}",
            f"--engine.docker-socket={self.docker_socket}",
            f"--engine.podman-socket={self.podman_socket}",
        )
        # A job has another parent than the actor, which it must not touch either.
        protected = sorted({*self.protected, os.getpid()})
        return flags + tuple(f"--protect-pid={pid}" for pid in protected if pid > 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What reads the node, what changes it, and what starts programs that outlive us."""

    facts: NodeFacts
    processes: Processes
    runner: Runner
    launcher: Launcher
    confirmations: Confirmations


def open_node(config: Config) -> Hands:
    """Put together what reads and changes this node."""
    processes = Processes(protected=config.protected)
    supervisor = Supervisord()
    runner = Runner(
        start_ticks=processes.start_ticks,
        dbus=SystemdCaller(),
        engines=EngineCalls(sockets=config.engine_sockets),
        supervisor=SupervisordCaller(supervisord=supervisor),
    )
    launcher = launcher_for(runner, program=config.program)
    files = SmallFiles()
    facts = NodeFacts(
        processes=processes,
        units=Units(run=runner.read, stream=runner.stream),
        host=Host(),
        sessions=Terminals(),
        sockets=Sockets(processes=processes),
        files=files,
        containers=ContainerEngines(sockets=config.engine_sockets),
        accounts=People(),
        supervisor=supervisor,
        firewall=FirewallRules(
            run=runner.read,
            files=files,
            # As a job reads it: what the node's owner has written there holds at once.
            settings=lambda: load_policy(config.policy_file).firewall.settings(),  # noqa: PLW0108
        ),
    )
    confirmations = Confirmations(
        folder=config.state_dir / "confirm",
        runner=runner,
        launcher=launcher,
        arguments=config.arguments(),
    )
    return Hands(
        facts=facts,
        processes=processes,
        runner=runner,
        launcher=launcher,
        confirmations=confirmations,
    )
