"""Act on the programs that supervisord keeps running."""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions import notices
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts, ProgramFact
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import Note, SupervisorCall

NEEDS: Final = {"supervisor"}
_SECONDS: Final = 100
_RUNNING: Final = frozenset({"RUNNING", "STARTING"})
_EVIDENCE_BYTES: Final = 4096
_SETTLE_SECONDS: Final = 0.5

ProgramName = Annotated[
    str,
    Field(
        title="Program",
        description="As supervisord names it, with its group.",
        examples=["web:web_0"],
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$",
    ),
]


class ProgramParams(Params):
    """Parameters of every supervisor action."""

    program: ProgramName

    @property
    @override
    def resource(self) -> str:
        return f"supervisor/{self.program}"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("program", (self.program, self.program.partition(":")[2]))


def as_it_is(params: ProgramParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell the program's state, and what it printed last where the run failed."""
    if facts.supervisor.unavailable():
        return Aftermath()
    found = _find(params.program, facts)
    if found is None:
        return Aftermath(state={"exists": False})
    evidence: tuple[str, ...] = ()
    if failed:
        printed = facts.supervisor.tail(params.program, size_bytes=_EVIDENCE_BYTES, errors=True)
        evidence = tuple(printed.splitlines())
    state = {"exists": True, "state": found.state, "pid": found.pid}
    return Aftermath(state=state, hint=found.problem, evidence=evidence)


@action(
    name="supervisor.start",
    title="Start a program of supervisord",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="supervisor.stop",
    timeout_seconds=_SECONDS,
    after=as_it_is,
    settle_seconds=_SETTLE_SECONDS,
)
def start(params: ProgramParams, facts: Facts) -> Planned:
    """Start one program that supervisord keeps running."""
    found = _known(params, facts)
    if found.state in _RUNNING:
        yield Note(text=f"{found.name} is running already: there is nothing to do")
        return
    yield SupervisorCall(operation="start", program=found.name)


@action(
    name="supervisor.stop",
    title="Stop a program of supervisord",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    inverse="supervisor.start",
    timeout_seconds=_SECONDS,
    after=as_it_is,
)
def stop(params: ProgramParams, facts: Facts) -> Planned:
    """Stop one program that supervisord keeps running.

    It stays stopped until somebody starts it, or supervisord starts again.
    """
    found = _known(params, facts)
    if found.state not in _RUNNING | {"BACKOFF"}:
        yield Note(text=f"{found.name} is not running: there is nothing to do")
        return
    process = facts.processes.get(found.pid) if found.pid else None
    if process is not None:
        yield from notices.of_process(process, facts)
    yield SupervisorCall(operation="stop", program=found.name)


@action(
    name="supervisor.restart",
    title="Restart a program of supervisord",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    after=as_it_is,
    settle_seconds=_SETTLE_SECONDS,
)
def restart(params: ProgramParams, facts: Facts) -> Planned:
    """Stop and start one program that supervisord keeps running.

    One that is not running is started.
    """
    found = _known(params, facts)
    process = facts.processes.get(found.pid) if found.pid else None
    if process is not None:
        yield from notices.of_process(process, facts)
    yield SupervisorCall(operation="restart", program=found.name)


def _find(name: str, facts: Facts) -> ProgramFact | None:
    return next((one for one in facts.supervisor.list() if one.name == name), None)


def _known(params: ProgramParams, facts: Facts) -> ProgramFact:
    why = facts.supervisor.unavailable()
    if why:
        raise RefusedError(f"programs cannot be managed on this node: {why}")
    found = _find(params.program, facts)
    if found is None:
        raise RefusedError(
            f"supervisord has no program {params.program}", hint="see the list of its programs"
        )
    process = facts.processes.get(found.pid) if found.pid else None
    if process is not None and process.is_ours:
        raise RefusedError(f"{found.name} is part of Narthex", hint="use supervisorctl for it")
    return found
