"""Act on single processes, each named by pid and start time."""

import enum
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field, ValidationError
from typing_extensions import override

from narthex_exporter.actions import notices, service
from narthex_exporter.actions.programs import (
    DEFAULT_DIRECTORY,
    Command,
    Directory,
    Environment,
    UserName,
    unprivileged,
)
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts, ProcessFact
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import (
    EngineCall,
    Look,
    Note,
    RunProgram,
    SetPriority,
    Signal,
    Undo,
)

# Within the time of a run that needs no process of its own.
_WAIT_SECONDS: Final = 9.0
_MOST_GRACE_SECONDS: Final = 300
_MARGIN_SECONDS: Final = 15.0
_SETTLE_SECONDS: Final = 0.5

Pid = Annotated[
    int,
    Field(
        title="PID",
        description="The process's number.",
        examples=[4242],
        ge=1,
        le=4_194_304,  # PID_MAX_LIMIT, see proc(5)
        strict=True,
    ),
]
StartTicks = Annotated[
    int,
    Field(
        title="Start time",
        description="Field 22 of /proc/PID/stat, so that a reused PID is never hit.",
        examples=[184467],
        ge=0,
        le=2**63 - 1,
        strict=True,
    ),
]


class SignalName(enum.StrEnum):
    """The signals that may be sent, most used first."""

    TERM = "TERM"
    KILL = "KILL"
    INT = "INT"
    QUIT = "QUIT"
    HUP = "HUP"
    USR1 = "USR1"
    USR2 = "USR2"
    STOP = "STOP"
    CONT = "CONT"


ENDING: Final = frozenset({SignalName.TERM, SignalName.KILL, SignalName.INT, SignalName.QUIT})


class ProcessParams(Params):
    """What names one process."""

    pid: Pid
    start_ticks: StartTicks

    @property
    @override
    def resource(self) -> str:
        return f"process/{self.pid}"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        found = facts.processes.get(self.pid)
        if found is None:
            return  # the plan refuses that
        yield Target("user", (found.user,), f"process {self.pid} belongs to it")
        yield Target("process", (found.comm,))
        # Else a service that may not be stopped could be killed.
        if found.owner_unit:
            why = f"process {self.pid} belongs to it"
            yield Target("unit", (found.owner_unit,), why, by_the_way=True)
        if found.owner_container:
            why = f"process {self.pid} runs in it"
            names = _container_names(found.owner_container, facts)
            yield Target("container", names, why, by_the_way=True)


def _container_names(id_: str, facts: Facts) -> tuple[str, ...]:
    """Give a container's id with the names that its engine knows it by, which policies name."""
    if facts.containers.unavailable():
        return (id_,)
    found = (one.name for one in facts.containers.list() if one.id.startswith(id_))
    return (id_, *found)


class SignalParams(ProcessParams):
    """Parameters of process.signal."""

    signal: Annotated[
        SignalName,
        Field(title="Signal", description="TERM asks the process to end; KILL makes it end."),
    ] = SignalName.TERM


class TerminateParams(ProcessParams):
    """Parameters of process.terminate."""

    grace_seconds: Annotated[
        int,
        Field(
            title="Grace, seconds",
            description="So long it may take to end by itself.",
            ge=1,
            le=_MOST_GRACE_SECONDS,
            strict=True,
        ),
    ] = 10


class RestartParams(ProcessParams):
    """Parameters of process.restart: what owns the process is acted on itself."""

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        found = facts.processes.get(self.pid)
        if found is None:
            return  # the plan refuses that
        yield from (
            replace(one, by_the_way=False) if one.kind in {"unit", "container"} else one
            for one in ProcessParams.targets(self, facts)
        )
        owner = None if found.owner_container else _restartable(found)
        if owner is not None:
            yield from owner.targets(facts)


class RootStartParams(Params):
    """Parameters of process.start-as-root."""

    name: Annotated[
        str,
        Field(
            title="Name",
            description="What to call it: its unit is run-NAME.service.",
            examples=["sync"],
            pattern=r"^[a-z0-9][a-z0-9-]{0,47}$",
        ),
    ]
    command: Command
    working_directory: Directory = DEFAULT_DIRECTORY
    environment: Environment = ()
    memory_max_mib: Annotated[
        int,
        Field(
            title="Memory, MiB",
            description="At most; 0 for no limit.",
            ge=0,
            le=1 << 24,
            strict=True,
        ),
    ] = 0
    cpu_quota_percent: Annotated[
        int,
        Field(
            title="CPU, percent",
            description="Of one processor, at most; 0 for no limit.",
            ge=0,
            le=100_000,
            strict=True,
        ),
    ] = 0
    runtime_max_minutes: Annotated[
        int,
        Field(
            title="Time, minutes",
            description="It is ended after that; 0 for no limit.",
            ge=0,
            le=525_600,
            strict=True,
        ),
    ] = 0

    @property
    def unit(self) -> str:
        """The unit that it runs in."""
        return f"run-{self.name}.service"

    @property
    @override
    def resource(self) -> str:
        return f"service/{self.unit}"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("unit", (self.unit,))


class StartParams(RootStartParams):
    """Parameters of process.start."""

    user: UserName

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield from RootStartParams.targets(self, facts)
        yield Target("user", (self.user,), "the program runs as that user")


class ReniceParams(ProcessParams):
    """Parameters of process.renice."""

    nice: Annotated[
        int,
        Field(
            title="Nice value",
            description="From -20 (gets the most CPU time) to 19 (gets the least).",
            examples=[10],
            ge=-20,
            le=19,
            strict=True,
        ),
    ]


def left_over(params: ProcessParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell whether the process still is there, and how."""
    found = facts.processes.get(params.pid)
    if found is None or found.start_ticks != params.start_ticks or found.state == "Z":
        return Aftermath(state={"exists": False})
    state = {"exists": True, "state": found.state, "nice": found.nice}
    if failed and isinstance(params, SignalParams) and params.signal in ENDING - {SignalName.KILL}:
        return Aftermath(state=state, hint="if it must end now, send KILL: it cannot refuse that")
    return Aftermath(state=state)


def as_started(params: RootStartParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell whether the program runs, and what it logged where it could not be started."""
    if facts.units.unavailable():
        return Aftermath()
    evidence = tuple(facts.units.journal(params.unit, lines=service.JOURNAL_LINES))
    unit = facts.units.get(params.unit)
    if unit is None:
        # Ended already: a unit of its own is gone with its program.
        return Aftermath(state={"exists": False}, evidence=evidence if failed else ())
    state = {"exists": True, "active_state": unit.active_state, "main_pid": unit.main_pid}
    return Aftermath(state=state, evidence=evidence if failed else ())


@action(
    name="process.signal",
    title="Signal a process",
    danger=Danger.DISRUPTIVE,
    after=left_over,
)
def signal(params: SignalParams, facts: Facts) -> Planned:
    """Send a signal to one process.

    After TERM, KILL, INT and QUIT the node waits up to 9 s for the process to end, and the run
    fails if it still lives. What the process had not written is lost.
    """
    found = _target(params, facts)
    if params.signal in ENDING | {SignalName.STOP}:
        _keeps_no_session(found, facts)
    yield Note(text=f"the process is {found.comm!r} of the user {found.user!r}")
    yield from _owner(found, facts)
    if params.signal in ENDING | {SignalName.STOP}:
        yield from notices.of_process(found, facts)
    yield _signal(params, params.signal, _WAIT_SECONDS if params.signal in ENDING else 0.0)


def _signal(params: ProcessParams, name: SignalName, wait_seconds: float) -> Signal:
    return Signal(
        pid=params.pid,
        start_ticks=params.start_ticks,
        signal=f"SIG{name}",
        wait_seconds=wait_seconds,
    )


@action(
    name="process.terminate",
    title="End a process",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=_MOST_GRACE_SECONDS + _WAIT_SECONDS + _MARGIN_SECONDS,
    after=left_over,
)
def terminate(params: TerminateParams, facts: Facts) -> Planned:
    """Ask one process to end, and make it end if it does not in time.

    TERM first, so that it can write what it holds; KILL if it still lives after the grace time.
    """
    found = _target(params, facts)
    _keeps_no_session(found, facts)
    yield Note(text=f"the process is {found.comm!r} of the user {found.user!r}")
    yield from _owner(found, facts)
    yield from notices.of_process(found, facts)
    yield Note(text=f"KILL follows if it still lives after {params.grace_seconds} s")
    outcome = yield Look(step=_signal(params, SignalName.TERM, float(params.grace_seconds)))
    if outcome is None or outcome.code == 0:
        return
    left = facts.processes.get(params.pid)
    if left is None or left.start_ticks != params.start_ticks or left.state == "Z":
        return  # It ended by itself just now.
    yield _signal(params, SignalName.KILL, _WAIT_SECONDS)


@action(
    name="process.restart",
    title="Restart what owns a process",
    danger=Danger.DISRUPTIVE,
    timeout_seconds=100,
    after=left_over,
)
def restart(params: RestartParams, facts: Facts) -> Planned:
    """Restart the service or container that one process belongs to.

    All processes in it end, not this one alone.
    """
    found = _target(params, facts)
    if found.owner_container:
        engine = "podman" if "libpod" in found.owner_unit else "docker"
        yield Note(text=f"it runs in the container {found.owner_container}")
        yield from notices.of_process(found, facts)
        yield EngineCall(
            engine=engine, operation="container.restart", target=found.owner_container
        )
        return
    owner = _restartable(found)
    if owner is None:
        raise RefusedError(
            f"no service and no container owns process {found.pid}: who started it must start it"
            " again",
            hint="end it with process.terminate, then start it the way it was started",
        )
    yield Note(text=f"it belongs to {owner.unit}")
    yield from service.restart.plan(owner, facts)


def _restartable(found: ProcessFact) -> service.StopParams | None:
    """Name the service to restart; the manager of a user is none: it holds all their sessions."""
    unit, user = found.owner_unit, ""
    if unit.startswith("user@"):
        unit, user = found.owner_user_unit, found.user
    if not unit.endswith(".service"):
        return None
    try:
        return service.StopParams(unit=unit, user=user)
    except ValidationError:
        return None


@action(
    name="process.start",
    title="Start a program",
    danger=Danger.DISRUPTIVE,
    needs=service.NEEDS,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def start(params: StartParams, facts: Facts) -> Planned:
    """Start a program as a user of the node, in a unit of its own.

    It runs without the right to become anybody else, and ends when it ends: nothing starts it
    again. What it prints stands in the journal.
    """
    unprivileged(params.user, facts, instead="process.start-as-root")
    yield from _started(params, facts, (f"--uid={params.user}", "--property=NoNewPrivileges=yes"))


@action(
    name="process.start-as-root",
    title="Start a program as root",
    danger=Danger.DISRUPTIVE,
    needs=service.NEEDS,
    root_equivalent=True,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def start_as_root(params: RootStartParams, facts: Facts) -> Planned:
    """Start a program as root, in a unit of its own."""
    yield from _started(params, facts, ())


def _started(params: RootStartParams, facts: Facts, who: tuple[str, ...]) -> Planned:
    why = facts.units.unavailable()
    if why:
        raise RefusedError(f"services cannot be managed on this node: {why}")
    if facts.units.get(params.unit) is not None:
        raise RefusedError(
            f"there is a {params.unit} already", hint="choose another name, or stop it"
        )
    limits = {
        "MemoryMax": f"{params.memory_max_mib}M" if params.memory_max_mib else "",
        "CPUQuota": f"{params.cpu_quota_percent}%" if params.cpu_quota_percent else "",
        "RuntimeMaxSec": f"{params.runtime_max_minutes}min" if params.runtime_max_minutes else "",
    }
    yield Undo(action="service.stop", params={"unit": params.unit})
    yield RunProgram(
        argv=(
            "systemd-run",
            "--quiet",
            "--collect",
            f"--unit={params.unit}",
            "--service-type=exec",
            "--description=Started by Narthex",
            *who,
            f"--working-directory={params.working_directory}",
            *(f"--property={name}={value}" for name, value in limits.items() if value),
            *(f"--setenv={variable}" for variable in params.environment),
            "--",
            params.command[0],
            # systemd would put variables in their place; see systemd.service(5).
            *(word.replace("$", "$$") for word in params.command[1:]),
        ),
        timeout_seconds=_WAIT_SECONDS,
    )


@action(
    name="process.renice",
    title="Change a process's priority",
    danger=Danger.REVERSIBLE,
    after=left_over,
)
def renice(params: ReniceParams, facts: Facts) -> Planned:
    """Change the nice value of one process.

    Its threads and children keep theirs; the same action with the old value undoes it.
    """
    found = _target(params, facts)
    if found.nice == params.nice:
        yield Note(text=f"its nice value is {params.nice} already: there is nothing to do")
        return
    yield Note(text=f"its nice value is {found.nice} now")
    yield Undo(
        action="process.renice",
        params={**params.model_dump(mode="json"), "nice": found.nice},
    )
    yield SetPriority(pid=params.pid, start_ticks=params.start_ticks, nice=params.nice)


def _target(params: ProcessParams, facts: Facts) -> ProcessFact:
    if params.pid == 1:
        raise RefusedError(
            "process 1 is the system itself", hint="to stop the node use a host action"
        )
    found = facts.processes.get(params.pid)
    if found is None:
        raise RefusedError(
            f"there is no process {params.pid} on this node",
            hint="it may have ended: refresh the list of processes",
        )
    if found.start_ticks != params.start_ticks:
        raise RefusedError(
            f"PID {params.pid} was reused: it is another process now",
            hint="refresh the list of processes and choose again",
        )
    if found.is_kernel_thread:
        raise RefusedError(
            f"process {params.pid} is a thread of the kernel",
            hint="kernel threads take no signals and keep their priority",
        )
    if found.state == "Z":
        raise RefusedError(
            f"process {params.pid} has ended already; its parent {found.ppid} has not noticed",
            hint="nothing can be done to a zombie: restart its parent",
        )
    if found.is_ours:
        raise RefusedError(
            f"process {params.pid} is part of Narthex",
            hint="use the node's own systemctl, or script/down",
        )
    return found


def _keeps_no_session(found: ProcessFact, facts: Facts) -> None:
    session = notices.kept_session(found, facts)
    if session is not None:
        raise RefusedError(
            f"process {found.pid} is the sshd of a session that is open: {session.user} at"
            f" {session.terminal} from {session.address or 'here'}",
            hint="ask them to sign out; to restart sshd use its service",
        )


def _owner(found: ProcessFact, facts: Facts) -> Generator[Note, None, None]:
    if found.owner_container:
        yield Note(
            text=f"it runs in the container {found.owner_container}: restart that instead?",
            action="process.restart",
            params={"pid": found.pid, "start_ticks": found.start_ticks},
        )
        return
    if not found.owner_unit.endswith(".service"):
        return
    unit = None if facts.units.unavailable() else facts.units.get(found.owner_unit)
    again = {"": "may start it again", "no": "does not start it again"}.get(
        unit.restart if unit else "", "starts it again when it ends"
    )
    if unit is not None and unit.restart not in {"", "no"}:
        again += f" (Restart={unit.restart})"
    yield Note(
        text=f"it belongs to {found.owner_unit}, and systemd {again}:"
        " service.restart or service.stop do it in order",
        action="service.restart",
        params={"unit": found.owner_unit},
    )
