"""Act on single processes, each named by pid and start time."""

import enum
from collections.abc import Generator, Iterable
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts, ProcessFact
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import Note, SetPriority, Signal, Undo

# Within the time of a run that needs no process of its own.
_WAIT_SECONDS: Final = 9.0

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
            yield Target("container", (found.owner_container,), why, by_the_way=True)


class SignalParams(ProcessParams):
    """Parameters of process.signal."""

    signal: Annotated[
        SignalName,
        Field(title="Signal", description="TERM asks the process to end; KILL makes it end."),
    ] = SignalName.TERM


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
    yield Note(text=f"the process is {found.comm!r} of the user {found.user!r}")
    yield from _owner(found, facts)
    yield Signal(
        pid=params.pid,
        start_ticks=params.start_ticks,
        signal=f"SIG{params.signal}",
        wait_seconds=_WAIT_SECONDS if params.signal in ENDING else 0.0,
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


def _owner(found: ProcessFact, facts: Facts) -> Generator[Note, None, None]:
    if found.owner_container:
        yield Note(text=f"it runs in the container {found.owner_container}: restart that instead?")
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
        " service.restart or service.stop do it in order"
    )
