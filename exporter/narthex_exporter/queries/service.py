"""Ask about a node's systemd units."""

import datetime as dt
import enum
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.service import NEEDS, UnitName
from narthex_exporter.contract.facts import Facts, UnitFact
from narthex_exporter.contract.spec import QueryParams, Result, query

_JOURNAL_LINES: Final = 20


class UnitType(enum.StrEnum):
    """The kinds of units that can be listed; ``all`` is these four together."""

    ALL = "all"
    SERVICE = "service"
    SOCKET = "socket"
    TIMER = "timer"
    PATH = "path"


class ListParams(QueryParams):
    """Parameters of service.list."""

    type: Annotated[UnitType, Field(title="Type")] = UnitType.SERVICE
    limit: Annotated[int, Field(title="At most", ge=1, le=5000, strict=True)] = 2000


class GetParams(QueryParams):
    """Parameters of service.get."""

    unit: UnitName


class Unit(Result):
    """One unit's states, in systemd's own words."""

    name: str
    description: str
    load_state: str
    active_state: str
    sub_state: str
    unit_file_state: str


class UnitList(Result):
    """Some units, by name; ``total`` counts all that matched."""

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
    memory_bytes: int | None
    tasks: int | None
    active_since: AwareDatetime | None
    result: str
    restart: str
    exit_status: int | None
    restarts: int | None


class UnitDetail(Result):
    """One unit with its last journal lines, or ``None`` where there is none by that name."""

    unit: UnitProperties | None
    journal: tuple[str, ...] = ()


@query(name="service.list", title="Services", needs=NEEDS)
def list_units(params: ListParams, facts: Facts) -> UnitList:
    """List the systemd units of the node, with their states."""
    types = set(UnitType) if params.type is UnitType.ALL else {params.type}
    found = sorted(
        (unit for unit in facts.units.list() if unit.name.rpartition(".")[2] in types),
        key=lambda unit: unit.name,
    )
    shown = tuple(
        Unit(
            name=unit.name,
            description=unit.description,
            load_state=unit.load_state,
            active_state=unit.active_state,
            sub_state=unit.sub_state,
            unit_file_state=unit.unit_file_state,
        )
        for unit in found[: params.limit]
    )
    return UnitList(units=shown, total=len(found))


@query(name="service.get", title="One service", needs=NEEDS)
def get_unit(params: GetParams, facts: Facts) -> UnitDetail:
    """Tell about one systemd unit, with the last 20 lines that it logged."""
    unit = facts.units.get(params.unit)
    if unit is None:
        return UnitDetail(unit=None)
    journal = tuple(facts.units.journal(unit.name, lines=_JOURNAL_LINES))
    return UnitDetail(unit=_properties(unit), journal=journal)


def _properties(unit: UnitFact) -> UnitProperties:
    since = unit.active_since_seconds
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
        active_since=None if since is None else dt.datetime.fromtimestamp(since, tz=dt.UTC),
        result=unit.result,
        restart=unit.restart,
        exit_status=unit.exit_status,
        restarts=unit.restarts,
    )
