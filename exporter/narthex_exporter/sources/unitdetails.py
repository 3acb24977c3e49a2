"""Read one unit's properties, relations and files from what systemd tells of it."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from narthex_exporter.contract.facts import ConditionFact, UnitDetailFact, UnitFile
from narthex_exporter.sources.text import clean, small_file

_UNSET: Final = 2**64 - 1
_MOST_FILES: Final = 50
_MOST_NAMES: Final = 200
_MOST_PROPERTIES: Final = 400
_FILE_BYTES: Final = 256 * 1024
_TEXT_CHARACTERS: Final = 512
RELATIONS: Final = (
    "Requires", "Requisite", "Wants", "BindsTo", "PartOf", "Upholds", "RequiredBy",
    "RequisiteOf", "WantedBy", "BoundBy", "UpheldBy", "ConsistsOf", "Conflicts", "ConflictedBy",
    "Before", "After", "OnFailure", "OnFailureOf", "OnSuccess", "OnSuccessOf", "Triggers",
    "TriggeredBy", "JoinsNamespaceOf",
)  # fmt: skip
_COMMANDS: Final = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop")
# They are told apart: with their own shape, or masked.
_ELSEWHERE: Final = frozenset(
    {*RELATIONS, *_COMMANDS, "Environment", "Conditions", "Asserts", "Id", "Names", "DropInPaths"}
)


def detail(unit: Mapping[str, Any], own: Mapping[str, Any]) -> UnitDetailFact:
    """Put together what else a unit is."""
    return UnitDetailFact(
        relations={
            name: tuple(clean(one, limit=255) for one in sorted(unit[name])[:_MOST_NAMES])
            for name in RELATIONS
            if unit.get(name)
        },
        conditions=tuple(_conditions(unit)),
        files=tuple(_files(unit)),
        properties=_properties({**unit, **own}),
        environment=tuple(clean(one, limit=4096) for one in own.get("Environment", ())),
        commands=tuple(_commands(own)),
        calendars=tuple(
            clean(one[1], limit=_TEXT_CHARACTERS) for one in own.get("TimersCalendar", ())
        ),
        next_elapse_seconds=next_elapse(own),
        last_trigger_seconds=_seconds(own.get("LastTriggerUSec")),
    )


def next_elapse(own: Mapping[str, Any]) -> float | None:
    """Tell when a timer elapses next, in Unix seconds; ``None`` where it does not."""
    real = _seconds(own.get("NextElapseUSecRealtime"))
    since_boot = _seconds(own.get("NextElapseUSecMonotonic"))
    if since_boot is not None:
        since_boot += time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return min(filter(None, (real, since_boot)), default=None)


def _seconds(microseconds: int | None) -> float | None:
    return None if not microseconds or microseconds == _UNSET else microseconds / 1e6


def _conditions(unit: Mapping[str, Any]) -> Iterator[ConditionFact]:
    for name in ("Conditions", "Asserts"):
        for kind, trigger, negated, argument, state in unit.get(name, ()):
            marks = ("|" if trigger else "") + ("!" if negated else "")
            yield ConditionFact(
                name=clean(kind, limit=64),
                argument=clean(f"{marks}{argument}", limit=_TEXT_CHARACTERS),
                met=None if state == 0 else state > 0,
            )


def _files(unit: Mapping[str, Any]) -> Iterator[UnitFile]:
    paths = [unit.get("FragmentPath", ""), *unit.get("DropInPaths", ())]
    for path in filter(None, paths[:_MOST_FILES]):
        content = small_file(path, most_bytes=_FILE_BYTES)
        yield UnitFile(path=clean(path, limit=_TEXT_CHARACTERS), content=content or "")


def _commands(own: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name in _COMMANDS:
        for command in own.get(name, ()):
            yield (name, *(clean(word, limit=4096) for word in command[1]))


def _properties(found: Mapping[str, Any]) -> dict[str, str | int | bool]:
    shown: dict[str, str | int | bool] = {}
    for name, value in sorted(found.items()):
        if name in _ELSEWHERE or not isinstance(value, str | int) or value == "":
            continue
        if isinstance(value, str):
            shown[name] = clean(value, limit=_TEXT_CHARACTERS)
        elif value != _UNSET:
            shown[name] = value
        if len(shown) >= _MOST_PROPERTIES:
            break
    return shown
