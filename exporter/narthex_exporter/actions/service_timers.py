"""Run a program at given times: timers that Narthex makes, changes and removes."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, ValidationError
from typing_extensions import override

from narthex_exporter.actions.programs import Command, UserName, quoted, unprivileged
from narthex_exporter.actions.service import NEEDS, OURS
from narthex_exporter.actions.service_files import FOLDER
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import DBusCall, Note, RemoveFile, Step, Undo, WriteFile

_SECONDS: Final = 60
_ELAPSES: Final = 5
_MARK: Final = "# narthex-timer: "

TimerName = Annotated[
    str,
    Field(
        title="Name",
        description="What the timer is called, without a suffix.",
        examples=["nightly-sync"],
        pattern=r"^[a-z0-9][a-z0-9-]{0,47}$",
    ),
]
Calendar = Annotated[
    str,
    Field(
        title="When",
        description="A calendar expression of systemd: daily, Mon..Fri 02:30, *-*-01 04:00:00.",
        examples=["Mon..Fri 02:30"],
        # No %: systemd would put something else in its place.
        pattern=r"^[A-Za-z0-9*][A-Za-z0-9*:/.,~_+ -]{0,119}$",
    ),
]


class NamedTimer(Params):
    """What names one timer."""

    name: TimerName

    @property
    @override
    def resource(self) -> str:
        return f"service/{self.name}.timer"

    @property
    def unit(self) -> str:
        """The timer's unit, whose state is read after a run."""
        return f"{self.name}.timer"

    @property
    def service_path(self) -> str:
        """Where its service's file stands."""
        return f"{FOLDER}/{self.name}.service"

    @property
    def timer_path(self) -> str:
        """Where its own file stands."""
        return f"{FOLDER}/{self.name}.timer"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("unit", (self.unit,))
        yield Target("unit", (f"{self.name}.service",), f"{self.unit} starts it")


class RootTimerParams(NamedTimer):
    """Parameters of a timer whose program runs as root."""

    ROOT: ClassVar[bool] = True

    command: Command
    calendar: Calendar
    persistent: Annotated[
        bool,
        Field(
            title="Catch up",
            description="Run at once after a boot if a time was missed meanwhile.",
        ),
    ] = False
    randomized_delay_seconds: Annotated[
        int,
        Field(
            title="Delay at random, seconds",
            description="So that not all nodes begin at once.",
            ge=0,
            le=86_400,
            strict=True,
        ),
    ] = 0

    @property
    def account(self) -> str:
        """Who runs it."""
        return "root"


class TimerParams(RootTimerParams):
    """Parameters of a timer whose program runs as a user who cannot become root."""

    ROOT: ClassVar[bool] = False

    user: UserName

    @property
    @override
    def account(self) -> str:
        return self.user

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield from RootTimerParams.targets(self, facts)
        yield Target("user", (self.user,), "the program runs as that user")


def _after(params: NamedTimer, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    if facts.units.unavailable():
        return Aftermath()
    unit = facts.units.get(params.unit)
    if unit is None:
        return Aftermath(state={"exists": False})
    evidence = tuple(facts.units.journal(params.unit, lines=20)) if failed else ()
    state = {"exists": True, "active_state": unit.active_state, "result": unit.result}
    return Aftermath(state=state, evidence=evidence)


@action(
    name="service.create-timer",
    title="Create a timer",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    after=_after,
)
def create_timer(params: TimerParams, facts: Facts) -> Planned:
    """Run a program at given times as a user of the node.

    It runs without the right to become anybody else, and not at all once the timer is removed.
    """
    unprivileged(params.user, facts, instead="service.create-timer-as-root")
    yield from _create(params, facts)


@action(
    name="service.create-timer-as-root",
    title="Create a timer that runs as root",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    root_equivalent=True,
    after=_after,
)
def create_root_timer(params: RootTimerParams, facts: Facts) -> Planned:
    """Run a program at given times as root."""
    yield from _create(params, facts)


@action(
    name="service.edit-timer",
    title="Change a timer",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    after=_after,
)
def edit_timer(params: TimerParams, facts: Facts) -> Planned:
    """Change a timer that Narthex made, for a program that runs as a user of the node."""
    unprivileged(params.user, facts, instead="service.edit-timer-as-root")
    yield from _edit(params, facts)


@action(
    name="service.edit-timer-as-root",
    title="Change a timer that runs as root",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    root_equivalent=True,
    after=_after,
)
def edit_root_timer(params: RootTimerParams, facts: Facts) -> Planned:
    """Change a timer that Narthex made, for a program that runs as root."""
    yield from _edit(params, facts)


@action(
    name="service.remove-timer",
    title="Remove a timer",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    after=_after,
)
def remove_timer(params: NamedTimer, facts: Facts) -> Planned:
    """Remove a timer that Narthex made, with the service that it starts.

    A program that it has started already goes on.
    """
    _possible(params, facts)
    old = made(params.name, facts)
    timer = facts.files.read(params.timer_path)
    service = facts.files.read(params.service_path)
    root = isinstance(old, RootTimerParams) and old.ROOT
    yield Undo(
        action="service.create-timer-as-root" if root else "service.create-timer",
        params=old.model_dump(mode="json"),
    )
    if facts.units.get(params.unit) is not None:
        yield DBusCall(service="systemd", method="StopUnit", args=(params.unit, "replace"))
        yield DBusCall(service="systemd", method="DisableUnitFiles", args=((params.unit,), False))
    if timer is not None:
        yield RemoveFile(path=params.timer_path, before=timer)
    if service is not None:
        yield RemoveFile(path=params.service_path, before=service)
    yield DBusCall(service="systemd", method="Reload")


def made(name: str, facts: Facts) -> RootTimerParams:
    """Read the parameters that a timer of ours was made with. Raises RefusedError."""
    text = facts.files.read(f"{FOLDER}/{name}.service")
    first = (text or "").partition("\n")[0]
    if not first.startswith(_MARK):
        raise RefusedError(
            f"{name}.timer was not made by Narthex",
            hint="only what it made can be changed here: see the unit's drop-ins",
        )
    try:
        found: dict[str, Any] = json.loads(first.removeprefix(_MARK))
        kind = TimerParams if "user" in found else RootTimerParams
        return kind.model_validate({**found, "name": name})
    except (ValueError, TypeError, ValidationError) as error:
        raise RefusedError(
            f"the first line of {FOLDER}/{name}.service was changed by somebody",
            hint="remove both files by hand, and create the timer anew",
        ) from error


def _create(params: RootTimerParams, facts: Facts) -> Planned:
    _possible(params, facts)
    for unit in (params.unit, f"{params.name}.service"):
        path = f"{FOLDER}/{unit}"
        if facts.units.get(unit) is not None or facts.files.read(path) is not None:
            raise RefusedError(f"there is a {unit} already", hint="choose another name")
    yield from _elapses(params, facts)
    yield Undo(action="service.remove-timer", params={"name": params.name})
    yield WriteFile(path=params.service_path, content=_service(params))
    yield WriteFile(path=params.timer_path, content=_timer(params))
    yield DBusCall(
        service="systemd", method="EnableUnitFiles", args=((params.unit,), False, False)
    )
    yield DBusCall(service="systemd", method="Reload")
    yield DBusCall(service="systemd", method="StartUnit", args=(params.unit, "replace"))


def _edit(params: RootTimerParams, facts: Facts) -> Planned:
    _possible(params, facts)
    old = made(params.name, facts)
    if old.ROOT and not params.ROOT:
        raise RefusedError(
            f"{params.unit} runs its program as root", hint="service.edit-timer-as-root is for it"
        )
    changed = list(_changed(params, facts))
    if not changed:
        yield Note(text=f"{params.unit} is so already: there is nothing to do")
        return
    yield from _elapses(params, facts)
    yield Undo(
        action="service.edit-timer-as-root" if old.ROOT else "service.edit-timer",
        params=old.model_dump(mode="json"),
    )
    for step in changed:  # noqa: UP028 - a list takes no outcomes of its steps
        yield step
    yield DBusCall(service="systemd", method="Reload")
    yield DBusCall(service="systemd", method="RestartUnit", args=(params.unit, "replace"))


def _changed(params: RootTimerParams, facts: Facts) -> Iterator[Step]:
    wanted = {params.service_path: _service(params), params.timer_path: _timer(params)}
    for path, content in wanted.items():
        before = facts.files.read(path)
        if before != content:
            yield WriteFile(path=path, content=content, before=before)


def _possible(params: NamedTimer, facts: Facts) -> None:
    why = facts.units.unavailable()
    if why:
        raise RefusedError(f"services cannot be managed on this node: {why}")
    if params.name.startswith(OURS.rstrip("*")):
        raise RefusedError(f"{params.unit} would be part of Narthex", hint="choose another name")


def _elapses(params: RootTimerParams, facts: Facts) -> Iterator[Note]:
    found = facts.units.calendar(params.calendar, times=_ELAPSES)
    if found.problem:
        raise RefusedError(
            f"systemd does not understand {params.calendar!r}: {found.problem}",
            hint="examples: daily · Mon..Fri 02:30 · *-*-01 04:00:00; see systemd.time(7)",
        )
    if not found.elapses:
        raise RefusedError(f"{params.calendar!r} never comes", hint="choose a time to come")
    yield Note(text=f"it runs as {params.account}")
    later = params.randomized_delay_seconds
    delay = f", up to {later} s later" if later else ""
    for number, elapse in enumerate(found.elapses, 1):
        yield Note(text=f"run {number}: {elapse}{delay}")


def _service(params: RootTimerParams) -> str:
    kept = params.model_dump(mode="json", exclude={"name"})
    confined = "" if params.ROOT else f"User={params.account}\nNoNewPrivileges=yes\n"
    return (
        f"{_MARK}{json.dumps(kept, sort_keys=True)}\n"
        f"[Unit]\nDescription=Started by {params.unit}\n\n"
        f"[Service]\nType=oneshot\n{confined}ExecStart={quoted(params.command)}\n"
    )


def _timer(params: RootTimerParams) -> str:
    # At the times that were shown: systemd's own accuracy is a minute.
    lines = [f"OnCalendar={params.calendar}", "AccuracySec=1s"]
    if params.persistent:
        lines.append("Persistent=true")
    if params.randomized_delay_seconds:
        lines.append(f"RandomizedDelaySec={params.randomized_delay_seconds}s")
    settings = "\n".join(lines)
    return (
        f"# Made by Narthex, which changes and removes it.\n"
        f"[Unit]\nDescription=Starts {params.name}.service\n\n"
        f"[Timer]\n{settings}\n\n[Install]\nWantedBy=timers.target\n"
    )
