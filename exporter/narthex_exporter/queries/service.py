"""Ask about a node's systemd units."""

import datetime as dt
import enum
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.service import NEEDS, Manager
from narthex_exporter.actions.service_files import FOLDER
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import (
    Facts,
    ProcessFact,
    UnitDetailFact,
    UnitFact,
    UnitFacts,
    UnitFigures,
    UnitFile,
)
from narthex_exporter.contract.spec import QueryParams, Result, query
from narthex_exporter.queries.masking import masked, masked_file, masked_variable
from narthex_exporter.queries.process import Branch, Endpoint, branches_of, endpoints

_JOURNAL_LINES: Final = 20
# Memory is read unit by unit: in a long list only so many.
_MOST_FIGURES: Final = 400


class UnitType(enum.StrEnum):
    """The kinds of units that can be listed; ``all`` is these together."""

    ALL = "all"
    SERVICE = "service"
    SOCKET = "socket"
    TIMER = "timer"
    PATH = "path"
    TARGET = "target"
    MOUNT = "mount"
    AUTOMOUNT = "automount"
    SWAP = "swap"
    SLICE = "slice"
    SCOPE = "scope"


class UnitState(enum.StrEnum):
    """Which units are wanted, by how they are."""

    ALL = "all"
    FAILED = "failed"
    ACTIVE = "active"
    INACTIVE = "inactive"


class Priority(enum.StrEnum):
    """The least severe lines that are wanted; see syslog(3)."""

    ALL = "all"
    ERROR = "err"
    WARNING = "warning"
    NOTICE = "notice"
    INFO = "info"


AnyUnitName = Annotated[
    str,
    Field(
        title="Unit",
        description="A systemd unit of any type, with its suffix.",
        examples=["nginx.service"],
        pattern=r"^[a-zA-Z0-9:_.\\@-][a-zA-Z0-9:_.\\@-]*\.(service|socket|timer|path|target|mount"
        r"|automount|swap|slice|scope)$",
        max_length=255,
    ),
]


class ListParams(QueryParams):
    """Parameters of service.list."""

    type: Annotated[UnitType, Field(title="Type")] = UnitType.SERVICE
    state: Annotated[UnitState, Field(title="State")] = UnitState.ALL
    match: Annotated[
        str,
        Field(
            title="Containing", description="In name or description, case ignored.", max_length=128
        ),
    ] = ""
    user: Manager = ""
    limit: Annotated[int, Field(title="At most", ge=1, le=5000, strict=True)] = 2000


class GetParams(QueryParams):
    """Parameters of service.get."""

    unit: AnyUnitName
    user: Manager = ""


class JournalParams(GetParams):
    """Parameters of service.journal."""

    lines: Annotated[int, Field(title="At most", ge=1, le=1000, strict=True)] = 100
    priority: Annotated[Priority, Field(title="At least")] = Priority.ALL
    since_minutes: Annotated[
        int,
        Field(
            title="Not older, minutes",
            description="0 for however old.",
            ge=0,
            le=525_600,
            strict=True,
        ),
    ] = 0


class Unit(Result):
    """One unit's states, in systemd's own words.

    ``memory_bytes`` and ``next_elapse`` are told in lists for what runs, as far as is known.
    """

    name: str
    description: str
    load_state: str
    active_state: str
    sub_state: str
    unit_file_state: str
    memory_bytes: int | None = None
    next_elapse: AwareDatetime | None = None


class UnitList(Result):
    """Some units, failed ones first, then by name; ``total`` counts all that matched."""

    units: tuple[Unit, ...]
    total: int


class UnitProperties(Unit):
    """One unit in full.

    ``result`` is ``success`` or how it failed; ``restart`` when systemd starts it again by itself.
    """

    fragment_path: str
    can_reload: bool
    main_pid: int
    required_by: tuple[str, ...]
    tasks: int | None
    active_since: AwareDatetime | None
    result: str
    restart: str
    exit_status: int | None
    restarts: int | None


class Condition(Result):
    """A condition of a unit that is not met, in systemd's own words."""

    name: str
    argument: str


class File(Result):
    """A file that makes up a unit, secrets in it masked. ``drop_in`` is its name if it is ours."""

    path: str
    content: str
    drop_in: str = ""


class UnitDetail(Result):
    """One unit with its last journal lines, or ``None`` where there is none by that name.

    ``files`` is its own file first, then drop-ins. ``relations`` are by systemd's name of them,
    ``properties`` in systemd's own units. ``environment`` and ``commands`` are masked.
    """

    unit: UnitProperties | None
    journal: tuple[str, ...] = ()
    relations: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    unmet: tuple[Condition, ...] = ()
    files: tuple[File, ...] = ()
    properties: Mapping[str, str | int | bool] = Field(default_factory=dict)
    environment: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    calendars: tuple[str, ...] = ()
    last_trigger: AwareDatetime | None = None
    processes: tuple[Branch, ...] = ()
    sockets: tuple[Endpoint, ...] = ()


class Journal(Result):
    """Lines that a unit logged, oldest first."""

    lines: tuple[str, ...]


@query(name="service.list", title="Services", needs=NEEDS)
def list_units(params: ListParams, facts: Facts) -> UnitList:
    """List the systemd units of the node, with their states."""
    units = _units(params.user, facts)
    found = sorted(
        (unit for unit in units.list() if _wanted(unit, params)),
        key=lambda unit: (unit.active_state != "failed", unit.name),
    )
    chosen = found[: params.limit]
    running = [one.name for one in chosen if one.active_state == "active"][:_MOST_FIGURES]
    figures = units.figures(running)
    shown = tuple(_row(unit, figures.get(unit.name, UnitFigures())) for unit in chosen)
    return UnitList(units=shown, total=len(found))


def _wanted(unit: UnitFact, params: ListParams) -> bool:
    kind = unit.name.rpartition(".")[2]
    if kind not in set(UnitType) or params.type not in {UnitType.ALL, kind}:
        return False
    if params.state not in {UnitState.ALL, unit.active_state}:
        return False
    return params.match.casefold() in f"{unit.name} {unit.description}".casefold()


def _row(unit: UnitFact, figures: UnitFigures) -> Unit:
    return Unit(
        name=unit.name,
        description=unit.description,
        load_state=unit.load_state,
        active_state=unit.active_state,
        sub_state=unit.sub_state,
        unit_file_state=unit.unit_file_state,
        memory_bytes=figures.memory_bytes,
        next_elapse=_instant(figures.next_elapse_seconds),
    )


def _units(user: str, facts: Facts) -> UnitFacts:
    """Give the units of the system or of a user. Raises RefusedError."""
    if not user:
        return facts.units
    units = facts.units.of(user)
    why = units.unavailable()
    if why:
        raise RefusedError(
            why,
            hint="a user's systemd runs while they are signed in, or with loginctl enable-linger",
        )
    return units


@query(name="service.get", title="One service", needs=NEEDS)
def get_unit(params: GetParams, facts: Facts) -> UnitDetail:
    """Tell about one systemd unit, with the last 20 lines that it logged."""
    units = _units(params.user, facts)
    unit, found = units.get(params.unit), units.details(params.unit)
    if unit is None or found is None:
        return UnitDetail(unit=None)
    return UnitDetail(
        unit=_properties(unit, found),
        journal=tuple(units.journal(unit.name, lines=_JOURNAL_LINES)),
        relations=dict(found.relations),
        unmet=tuple(
            Condition(name=one.name, argument=one.argument)
            for one in found.conditions
            if one.met is False
        ),
        files=tuple(_file(one, unit.name) for one in found.files),
        properties=dict(found.properties),
        environment=tuple(map(masked_variable, found.environment)),
        commands=tuple(f"{name}: {masked(argv)}" for name, *argv in found.commands),
        calendars=found.calendars,
        last_trigger=_instant(found.last_trigger_seconds),
        processes=branches_of(facts, lambda one: unit.name == _owner(one, params.user)),
        # The system's sockets are known by their system unit.
        sockets=() if params.user else endpoints(facts, lambda one: one.unit == unit.name),
    )


@query(name="service.journal", title="Journal of a service", needs=NEEDS)
def journal(params: JournalParams, facts: Facts) -> Journal:
    """Tell the lines that one systemd unit logged last."""
    lines = _units(params.user, facts).journal(
        params.unit,
        lines=params.lines,
        priority="" if params.priority is Priority.ALL else str(params.priority),
        since_minutes=params.since_minutes,
    )
    return Journal(lines=tuple(lines))


def _owner(process: ProcessFact, user: str) -> str:
    if not user:
        return process.owner_unit
    return process.owner_user_unit if process.user == user else ""


def _file(file: UnitFile, unit: str) -> File:
    prefix = f"{FOLDER}/{unit}.d/"
    own = file.path.startswith(prefix) and file.path.endswith(".conf")
    name = file.path.removeprefix(prefix).removesuffix(".conf") if own else ""
    return File(path=file.path, content=masked_file(file.content), drop_in=name)


def _instant(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def _properties(unit: UnitFact, detail: UnitDetailFact) -> UnitProperties:
    return UnitProperties(
        name=unit.name,
        description=unit.description,
        load_state=unit.load_state,
        active_state=unit.active_state,
        sub_state=unit.sub_state,
        unit_file_state=unit.unit_file_state,
        fragment_path=unit.fragment_path,
        can_reload=unit.can_reload,
        main_pid=unit.main_pid,
        required_by=unit.required_by,
        memory_bytes=unit.memory_bytes,
        tasks=unit.tasks,
        active_since=_instant(unit.active_since_seconds),
        next_elapse=_instant(detail.next_elapse_seconds),
        result=unit.result,
        restart=unit.restart,
        exit_status=unit.exit_status,
        restarts=unit.restarts,
    )
