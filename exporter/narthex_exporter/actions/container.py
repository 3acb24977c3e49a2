"""Act on containers: start, stop and their like. Making them is in ``containercreate``."""

import enum
import re
from collections.abc import Generator, Iterable
from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions.containerparams import (
    NEEDS,
    ContainerName,
    Engine,
    EngineName,
    container_targets,
    find_container,
    noticed,
    resource,
    size,
    unprotected,
)
from narthex_exporter.contract.containerfacts import ContainerFact
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import EngineCall, Note, Undo

_EVIDENCE_LINES: Final = 20
_SETTLE_SECONDS: Final = 0.5
_JOB_SECONDS: Final = 100
_STEP_SECONDS: Final = 90.0
_ANONYMOUS: Final = re.compile(r"[0-9a-f]{64}")


class StopSignal(enum.StrEnum):
    """The signals that may be sent to a container's first process, most used first."""

    KILL = "KILL"
    TERM = "TERM"
    INT = "INT"
    QUIT = "QUIT"
    HUP = "HUP"
    USR1 = "USR1"
    USR2 = "USR2"


class ContainerParams(Params):
    """What names one container."""

    engine: Engine = EngineName.DOCKER
    container: ContainerName

    @property
    @override
    def resource(self) -> str:
        return resource("container", self.engine, self.container)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        return container_targets(facts, self.engine, self.container)


class StopParams(ContainerParams):
    """Parameters of container.stop and container.restart."""

    grace_seconds: Annotated[
        int,
        Field(
            title="Grace",
            description="So many seconds it has to end by itself before it is killed.",
            ge=0,
            le=60,
            strict=True,
        ),
    ] = 10


class KillParams(ContainerParams):
    """Parameters of container.kill."""

    signal: Annotated[
        StopSignal, Field(title="Signal", description="KILL cannot be refused by it.")
    ] = StopSignal.KILL


class RemoveParams(ContainerParams):
    """Parameters of container.remove."""

    force: Annotated[
        bool, Field(title="Even if it runs", description="It is killed first.", strict=True)
    ] = False
    anonymous_volumes: Annotated[
        bool,
        Field(
            title="With its nameless volumes",
            description="What they hold is lost; volumes with a name always stay.",
            strict=True,
        ),
    ] = False


class RenameParams(ContainerParams):
    """Parameters of container.rename."""

    name: Annotated[ContainerName, Field(title="New name", description="What it is called then.")]

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield from container_targets(facts, self.engine, self.container)
        # Else a name that policies deny or allow could be given away, or taken.
        yield Target("container", (self.name,), f"{self.container} would be called so")


def as_it_is(params: ContainerParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell the container's state, and what it wrote last where the run failed."""
    found = facts.containers.get(params.engine, params.container)
    if found is None:
        return Aftermath(state={"exists": False})
    evidence = (
        tuple(
            line.text
            for line in facts.containers.logs(found.engine, found.name, lines=_EVIDENCE_LINES)
        )
        if failed
        else ()
    )
    state = {
        "exists": True,
        "state": found.state,
        "health": found.health,
        "restarts": found.restarts,
        "exit_code": found.exit_code,
        "oom_killed": found.is_oom_killed,
    }
    return Aftermath(state=state, evidence=evidence)


def as_started(params: ContainerParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell the container's state, and contradict the start of what did not stay up."""
    found = as_it_is(params, facts, failed)
    state = found.state or {}
    if failed or state.get("state") == "running":
        return found
    why = f"it is {state.get('state', 'gone')}, exit code {state.get('exit_code', 'unknown')}"
    again = as_it_is(params, facts, True)
    return replace(again, contradiction=f"{params.container} was started, and {why}")


def as_gone(params: ContainerParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell whether the container still is there."""
    found = as_it_is(params, facts, False)
    if not failed and (found.state or {}).get("exists"):
        return replace(found, contradiction=f"{params.container} was removed, and is there still")
    return found


def as_renamed(params: RenameParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell the container's state by the name that it has now."""
    name = params.container if failed else params.name
    return as_it_is(params.model_copy(update={"container": name}), facts, failed)


@action(
    name="container.start",
    title="Start a container",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="container.stop",
    timeout_seconds=_JOB_SECONDS,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def start(params: ContainerParams, facts: Facts) -> Planned:
    """Start one container that does not run."""
    found = find_container(facts, params.engine, params.container)
    if found.state == "paused":
        raise RefusedError(f"{found.name} is paused", hint="let it go on instead")
    if found.is_up:
        yield Note(text=f"{found.name} runs already: there is nothing to do")
        return
    yield _call("container.start", found)


@action(
    name="container.stop",
    title="Stop a container",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    inverse="container.start",
    timeout_seconds=_JOB_SECONDS,
    after=as_it_is,
)
def stop(params: StopParams, facts: Facts) -> Planned:
    """Ask one container to end, and kill it where it does not in time.

    Connections that it holds are dropped.
    """
    found = find_container(facts, params.engine, params.container)
    unprotected(found)
    if not found.is_up:
        yield Note(text=f"{found.name} does not run: there is nothing to do")
        return
    yield from _ended(found, facts)
    yield from _again(found)
    if not found.is_removed_at_end:
        yield Undo(
            action="container.start",
            params={"engine": params.engine, "container": params.container},
        )
    yield _call("container.stop", found, grace_seconds=params.grace_seconds)


@action(
    name="container.restart",
    title="Restart a container",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_JOB_SECONDS,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def restart(params: StopParams, facts: Facts) -> Planned:
    """Stop and start one container.

    Connections that it holds are dropped; one that does not run is started.
    """
    found = find_container(facts, params.engine, params.container)
    unprotected(found)
    yield from _ended(found, facts)
    yield _call("container.restart", found, grace_seconds=params.grace_seconds)


@action(
    name="container.pause",
    title="Pause a container",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    inverse="container.unpause",
    after=as_it_is,
)
def pause(params: ContainerParams, facts: Facts) -> Planned:
    """Freeze every process of one container, as it is.

    Its connections stay open and are not answered.
    """
    found = find_container(facts, params.engine, params.container)
    unprotected(found)
    if found.state == "paused":
        yield Note(text=f"{found.name} is paused already: there is nothing to do")
        return
    if found.state != "running":
        raise RefusedError(f"{found.name} does not run: it is {found.state}")
    yield from noticed(found, facts)
    yield _call("container.pause", found)


@action(
    name="container.unpause",
    title="Let a paused container go on",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="container.pause",
    after=as_it_is,
)
def unpause(params: ContainerParams, facts: Facts) -> Planned:
    """Let the processes of one paused container go on."""
    found = find_container(facts, params.engine, params.container)
    if found.state != "paused":
        yield Note(text=f"{found.name} is not paused: there is nothing to do")
        return
    yield _call("container.unpause", found)


@action(
    name="container.kill",
    title="Signal a container",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    after=as_it_is,
    settle_seconds=_SETTLE_SECONDS,
)
def kill(params: KillParams, facts: Facts) -> Planned:
    """Send a signal to the first process of one container.

    What it had not written is lost. To stop it in order, stop it instead.
    """
    found = find_container(facts, params.engine, params.container)
    unprotected(found)
    if found.state not in {"running", "paused"}:
        raise RefusedError(f"{found.name} does not run: it is {found.state}")
    yield from _ended(found, facts)
    if found.limits.restart != "no":
        yield Note(
            text=f"its restart policy is {found.limits.restart}: the engine may start it again"
        )
    yield _call("container.kill", found, signal=f"SIG{params.signal}")


@action(
    name="container.remove",
    title="Remove a container",
    danger=Danger.DESTRUCTIVE,
    needs=NEEDS,
    timeout_seconds=_JOB_SECONDS,
    after=as_gone,
)
def remove(params: RemoveParams, facts: Facts) -> Planned:
    """Remove one container with its logs and all that it wrote outside of volumes."""
    found = find_container(facts, params.engine, params.container)
    unprotected(found)
    if found.is_up and not params.force:
        raise RefusedError(
            f"{found.name} runs", hint="stop it first, or choose to remove it even if it runs"
        )
    if found.is_up:
        yield from noticed(found, facts)
    yield from _orphaned(found, facts, with_nameless=params.anonymous_volumes)
    yield _call(
        "container.remove",
        found,
        force=params.force,
        anonymous_volumes=params.anonymous_volumes,
    )


@action(
    name="container.rename",
    title="Rename a container",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    after=as_renamed,
)
def rename(params: RenameParams, facts: Facts) -> Planned:
    """Give one container another name.

    Others that reach it by its old name on a network no longer do.
    """
    found = find_container(facts, params.engine, params.container)
    unprotected(found)
    if params.name == params.container:
        yield Note(text=f"it is called {params.name} already: there is nothing to do")
        return
    if facts.containers.get(params.engine, params.name) is not None:
        raise RefusedError(
            f"there is a container {params.name} already", hint="choose another name"
        )
    if found.project:
        yield Note(
            text=f"it belongs to the Compose project {found.project}, which expects its old name"
        )
    yield from noticed(found, facts)
    yield Undo(
        action="container.rename",
        params={"engine": params.engine, "container": params.name, "name": params.container},
    )
    yield _call("container.rename", found, name=params.name)


def _ended(found: ContainerFact, facts: Facts) -> Generator[Note, None, None]:
    yield from noticed(found, facts)
    if found.is_removed_at_end and found.is_up:
        yield Note(text="it was started with --rm: once it ends, the engine removes it")


def _again(found: ContainerFact) -> Generator[Note, None, None]:
    told = {
        "always": "it stays stopped until the engine itself is restarted, then it starts again",
        "unless-stopped": "it stays stopped, also when the engine is restarted",
        "on-failure": "it stays stopped: to be stopped is no failure",
    }.get(found.limits.restart)
    if told:
        yield Note(text=f"its restart policy is {found.limits.restart}: {told}")


def _orphaned(
    found: ContainerFact, facts: Facts, *, with_nameless: bool
) -> Generator[Note, None, None]:
    for volume in facts.containers.volumes(with_sizes=bool(found.volumes)):
        if volume.engine != found.engine or volume.name not in found.volumes:
            continue
        if set(volume.used_by) - {found.name}:
            continue
        told = "" if volume.size_bytes is None else f" ({size(volume.size_bytes)})"
        nameless = _ANONYMOUS.fullmatch(volume.name) is not None
        if nameless and with_nameless:
            yield Note(text=f"lost with it: the nameless volume {volume.name[:12]}{told}")
        else:
            yield Note(text=f"no container uses the volume {volume.name[:64]}{told} then")


def _call(operation: str, found: ContainerFact, **options: object) -> EngineCall:
    return EngineCall(
        engine=found.engine,
        operation=operation,
        target=found.name,
        options=tuple(options.items()),
        timeout_seconds=_STEP_SECONDS,
    )
