"""Act on systemd's units."""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions import notices
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts, UnitFact, UnitFacts
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import DBusCall, Note

NEEDS: Final = {"systemd"}
_SHOWN_DEPENDENTS: Final = 10
JOURNAL_LINES: Final = 20
_RESTARTING: Final = frozenset({"auto-restart", "auto-restart-queued"})
_SETTLE_SECONDS: Final = 0.5

# A unit of ours, stopped through ourselves, could not be started again the same way.
OURS: Final = "narthex-*"
# Starting one of these stops, suspends or opens the machine: that is no service's start.
SYSTEM_STATES: Final = (
    "debug-shell.service",
    "emergency.service",
    "initrd-*",
    "rescue.service",
    "systemd-halt.service",
    "systemd-hibernate.service",
    "systemd-hybrid-sleep.service",
    "systemd-kexec.service",
    "systemd-poweroff.service",
    "systemd-reboot.service",
    "systemd-soft-reboot.service",
    "systemd-suspend*.service",
)

UnitName = Annotated[
    str,
    Field(
        title="Unit",
        description="A systemd unit, with its suffix: service, socket, timer or path.",
        examples=["nginx.service"],
        pattern=r"^[a-zA-Z0-9:_.\\@][a-zA-Z0-9:_.\\@-]*\.(service|socket|timer|path)$",
        max_length=255,
    ),
]


Manager = Annotated[
    str,
    Field(
        title="Of the user",
        description="Whose systemd the unit belongs to; empty for the system's own.",
        examples=["alice"],
        pattern=r"^(?:[a-zA-Z_][a-zA-Z0-9._-]{0,31})?$",
    ),
]


class SystemUnitParams(Params):
    """What names one unit of the system's own."""

    unit: UnitName

    @property
    def manager(self) -> str:
        """Whose systemd it belongs to; empty for the system's own."""
        return ""

    @property
    @override
    def resource(self) -> str:
        return f"service/{self.manager}/{self.unit}" if self.manager else f"service/{self.unit}"

    def units(self, facts: Facts) -> UnitFacts:
        """Give the units of the system, or of the user that is named."""
        return facts.units.of(self.manager) if self.manager else facts.units

    @property
    def service(self) -> str:
        """Name the manager as a step does."""
        return f"systemd:{self.manager}" if self.manager else "systemd"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        if self.manager:
            yield Target("user", (self.manager,), f"{self.unit} runs as that user")
        units = self.units(facts)
        unit = None if units.unavailable() else units.get(self.unit)
        # Every name that it goes by; and what a socket or timer would start.
        yield Target("unit", _names(self.unit, unit))
        for name in unit.triggers if unit else ():
            yield Target("unit", _names(name, units.get(name)), f"{self.unit} starts it")


def _names(asked: str, unit: UnitFact | None) -> tuple[str, ...]:
    return (asked,) if unit is None else tuple(dict.fromkeys((asked, unit.name, *unit.aliases)))


class UnitParams(SystemUnitParams):
    """Parameters of every action on a unit of the system or of a user."""

    user: Manager = ""

    @property
    @override
    def manager(self) -> str:
        return self.user


class StopParams(UnitParams):
    """Parameters of what stops a unit."""

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield from UnitParams.targets(self, facts)
        units = self.units(facts)
        unit = None if units.unavailable() else units.get(self.unit)
        for name in notices.stops_too(unit, units) if unit else ():
            yield Target("unit", (name,), f"it stops with {self.unit}", by_the_way=True)


def as_it_is(params: SystemUnitParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell the unit's states, and what it logged last where the run failed."""
    units = params.units(facts)
    if units.unavailable():
        return Aftermath()
    unit = units.get(params.unit)
    evidence = tuple(units.journal(params.unit, lines=JOURNAL_LINES)) if failed else ()
    if unit is None:
        return Aftermath(state={"exists": False}, evidence=evidence)
    state = {
        "exists": True,
        "load_state": unit.load_state,
        "active_state": unit.active_state,
        "sub_state": unit.sub_state,
        "unit_file_state": unit.unit_file_state,
        "result": unit.result,
    }
    return Aftermath(state=state, evidence=evidence)


def as_started(params: UnitParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell the unit's states, and contradict a start of what did not stay up."""
    found = as_it_is(params, facts, failed)
    state = found.state or {}
    down = state.get("active_state") == "failed"
    if not failed and (down or state.get("sub_state") in _RESTARTING):
        why = state.get("result") or "no reason"
        again = as_it_is(params, facts, True)
        return replace(again, contradiction=f"{params.unit} was started, and failed ({why})")
    return found


@action(
    name="service.start",
    title="Start a service",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="service.stop",
    timeout_seconds=100,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def start(params: UnitParams, facts: Facts) -> Planned:
    """Start one systemd unit.

    Units that it conflicts with are stopped.
    """
    unit = loaded(params, facts)
    if unit.active_state in {"active", "reloading"}:
        yield Note(text=f"{unit.name} is running already: there is nothing to do")
        return
    yield _job(params, "StartUnit", unit)


@action(
    name="service.stop",
    title="Stop a service",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    inverse="service.start",
    timeout_seconds=100,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def stop(params: StopParams, facts: Facts) -> Planned:
    """Stop one systemd unit.

    Connections that it holds are dropped, and units that require it are stopped too. It starts
    again at boot if it is enabled.
    """
    unit = known(params, facts)
    if unit.active_state in {"inactive", "failed"}:
        yield Note(text=f"{unit.name} is not running: there is nothing to do")
        return
    yield from _noticed(params, unit, facts)
    yield from notices.started_again(unit, params.units(facts), params.user)
    yield _job(params, "StopUnit", unit)


@action(
    name="service.restart",
    title="Restart a service",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=100,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def restart(params: StopParams, facts: Facts) -> Planned:
    """Stop and start one systemd unit.

    Connections that it holds are dropped; one that is not running is started.
    """
    unit = loaded(params, facts)
    yield from _noticed(params, unit, facts)
    yield _job(params, "RestartUnit", unit)


@action(
    name="service.reload",
    title="Reload a service's configuration",
    danger=Danger.SAFE,
    needs=NEEDS,
    timeout_seconds=100,
    after=as_it_is,
)
def reload(params: UnitParams, facts: Facts) -> Planned:
    """Ask one systemd unit to read its configuration again.

    Connections are kept. The service itself decides what it can change without a restart.
    """
    unit = loaded(params, facts)
    if unit.active_state != "active":
        raise RefusedError(
            f"{unit.name} is not running, so it cannot reload", hint="start it instead"
        )
    if not unit.can_reload:
        raise RefusedError(f"{unit.name} cannot reload", hint="restart it instead")
    yield _job(params, "ReloadUnit", unit)


@action(
    name="service.enable",
    title="Enable a service at boot",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="service.disable",
    after=as_it_is,
)
def enable(params: UnitParams, facts: Facts) -> Planned:
    """Have one systemd unit started at boot.

    It is not started now.
    """
    unit = loaded(params, facts)
    if unit.unit_file_state == "enabled":
        yield Note(text=f"{unit.name} is enabled already: there is nothing to do")
        return
    _installable(unit)
    yield DBusCall(
        service=params.service, method="EnableUnitFiles", args=((unit.name,), False, False)
    )
    yield DBusCall(service=params.service, method="Reload")


@action(
    name="service.disable",
    title="Disable a service at boot",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="service.enable",
    after=as_it_is,
)
def disable(params: UnitParams, facts: Facts) -> Planned:
    """Have one systemd unit no longer started at boot.

    It is not stopped now, and other units may still start it.
    """
    unit = known(params, facts)
    if unit.unit_file_state == "disabled":
        yield Note(text=f"{unit.name} is disabled already: there is nothing to do")
        return
    _installable(unit)
    runtime = unit.unit_file_state.endswith("-runtime")
    yield DBusCall(service=params.service, method="DisableUnitFiles", args=((unit.name,), runtime))
    yield DBusCall(service=params.service, method="Reload")


@action(
    name="service.mask",
    title="Mask a service",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="service.unmask",
    after=as_it_is,
)
def mask(params: UnitParams, facts: Facts) -> Planned:
    """Make it impossible to start one systemd unit, by hand or by others.

    It is not stopped now.
    """
    unit = known(params, facts)
    if unit.unit_file_state in {"masked", "masked-runtime"}:
        yield Note(text=f"{unit.name} is masked already: there is nothing to do")
        return
    if unit.fragment_path.startswith("/etc/systemd/system/"):
        raise RefusedError(
            f"{unit.name} cannot be masked: its own file stands at {unit.fragment_path},"
            " where the mask would go",
            hint="disable and stop it instead",
        )
    yield from _dependents(unit)
    yield DBusCall(
        service=params.service, method="MaskUnitFiles", args=((unit.name,), False, False)
    )
    yield DBusCall(service=params.service, method="Reload")


@action(
    name="service.unmask",
    title="Unmask a service",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="service.mask",
    after=as_it_is,
)
def unmask(params: UnitParams, facts: Facts) -> Planned:
    """Make it possible to start one systemd unit again."""
    unit = known(params, facts)
    if unit.unit_file_state not in {"masked", "masked-runtime"}:
        yield Note(text=f"{unit.name} is not masked: there is nothing to do")
        return
    runtime = unit.unit_file_state == "masked-runtime"
    yield DBusCall(service=params.service, method="UnmaskUnitFiles", args=((unit.name,), runtime))
    yield DBusCall(service=params.service, method="Reload")


class ReloadParams(Params):
    """Parameters of service.daemon-reload."""

    user: Manager = ""

    @property
    @override
    def resource(self) -> str:
        return f"systemd/{self.user or 'system'}"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        if self.user:
            yield Target("user", (self.user,), "its systemd reads its unit files again")


@action(
    name="service.daemon-reload",
    title="Read unit files again",
    danger=Danger.SAFE,
    needs=NEEDS,
    timeout_seconds=60,
)
def daemon_reload(params: ReloadParams, facts: Facts) -> Planned:
    """Have systemd read its unit files again.

    Units that run go on as they are; what changed holds when they are started anew.
    """
    why = (facts.units.of(params.user) if params.user else facts.units).unavailable()
    if why:
        raise RefusedError(f"services cannot be managed on this node: {why}")
    service = f"systemd:{params.user}" if params.user else "systemd"
    yield DBusCall(service=service, method="Reload")


@action(
    name="service.reset-failed",
    title="Forget a service's failure",
    danger=Danger.SAFE,
    needs=NEEDS,
    after=as_it_is,
)
def reset_failed(params: UnitParams, facts: Facts) -> Planned:
    """Clear the failed state of one systemd unit, and its count of restarts."""
    unit = known(params, facts)
    if unit.active_state != "failed":
        yield Note(text=f"{unit.name} has not failed: there is nothing to do")
        return
    yield DBusCall(service=params.service, method="ResetFailedUnit", args=(unit.name,))


def known(params: SystemUnitParams, facts: Facts) -> UnitFact:
    """Look up a unit that may be acted on. Raises RefusedError."""
    units = params.units(facts)
    why = units.unavailable()
    if why:
        raise RefusedError(f"services cannot be managed on this node: {why}")
    unit = units.get(params.unit)
    if unit is None:
        raise RefusedError(
            f"there is no unit {params.unit} on this node", hint="check the name in Services"
        )
    if unit.name != params.unit:
        # One thing has one name: locks, audits and policies would miss the other.
        raise RefusedError(
            f"{params.unit} is another name of {unit.name}", hint=f"act on {unit.name}"
        )
    if fnmatchcase(unit.name, OURS):
        raise RefusedError(
            f"{unit.name} is part of Narthex", hint="use the node's own systemctl for it"
        )
    if any(fnmatchcase(unit.name, pattern) for pattern in SYSTEM_STATES):
        raise RefusedError(
            f"{unit.name} changes the state of the whole system",
            hint="to stop or restart the node use a host action",
        )
    return unit


def loaded(params: UnitParams, facts: Facts) -> UnitFact:
    """Look up a unit that may be acted on, and that systemd could load. Raises RefusedError."""
    unit = known(params, facts)
    if unit.load_state == "masked":
        raise RefusedError(f"{unit.name} is masked", hint="unmask it first")
    if unit.load_state != "loaded":
        raise RefusedError(
            f"systemd could not load {unit.name} (its load state is {unit.load_state})",
            hint=f"see: systemctl status {unit.name}",
        )
    return unit


def _installable(unit: UnitFact) -> None:
    if unit.unit_file_state in {"static", "generated", "transient", "alias", "indirect", "bad"}:
        raise RefusedError(
            f"{unit.name} cannot be enabled or disabled: its unit file is {unit.unit_file_state}",
            hint="other units start it; mask it to keep it from starting",
        )


def _dependents(unit: UnitFact) -> Generator[Note, None, None]:
    if unit.required_by:
        names = ", ".join(unit.required_by[:_SHOWN_DEPENDENTS])
        more = len(unit.required_by) - _SHOWN_DEPENDENTS
        yield Note(text=f"required by {names}" + (f" and {more} more" if more > 0 else ""))


def _noticed(params: UnitParams, unit: UnitFact, facts: Facts) -> Iterator[Note]:
    also = notices.stops_too(unit, params.units(facts))
    yield from _dependents(unit)
    further = [name for name in also if name not in unit.required_by]
    if further:
        yield Note(text=f"stops with it: {', '.join(further[:_SHOWN_DEPENDENTS])}")
    if not params.user:
        yield from notices.of_unit(unit, facts)


def _job(params: UnitParams, method: str, unit: UnitFact) -> DBusCall:
    return DBusCall(service=params.service, method=method, args=(unit.name, "replace"))
