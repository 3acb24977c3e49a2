"""Change how systemd's units are set up: drop-ins, and properties that need no file."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from typing_extensions import override

from narthex_exporter.actions.service import NEEDS, SystemUnitParams, as_it_is, known
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts, UnitFact
from narthex_exporter.contract.spec import Danger, Planned, Target, action
from narthex_exporter.contract.steps import (
    DBusCall,
    Look,
    Note,
    RemoveFile,
    RunProgram,
    Undo,
    WriteFile,
)

FOLDER: Final = "/etc/systemd/system"
# Where an administrator's files stand, and where `systemctl set-property` keeps its own.
_OWN_FOLDERS: Final = (
    FOLDER,
    "/etc/systemd/system.control",
    "/run/systemd/system",
    "/run/systemd/system.control",
)
_VENDOR_FOLDERS: Final = ("/usr/lib/systemd/system", "/lib/systemd/system")
MASK: Final = "***"
_SECONDS: Final = 60
_VERIFY_SECONDS: Final = 20.0
_UNSET: Final = 2**64 - 1
_SHOWN_PROBLEMS: Final = 5


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


DropInName = Annotated[
    str,
    Field(
        title="Drop-in",
        description="The file's name, without .conf.",
        examples=["limits"],
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$",
    ),
]
Content = Annotated[
    str,
    Field(
        title="Content",
        description="Sections and settings, as in a unit file.",
        examples=["[Service]"],
        # Text in lines: no other control character has a meaning there.
        pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]*$",
        min_length=1,
        max_length=65_536,
        json_schema_extra={"format": "multiline"},
    ),
    AfterValidator(_ended),
]


class DropInParams(SystemUnitParams):
    """What names one drop-in of ours."""

    name: DropInName

    @property
    def path(self) -> str:
        """Where it stands."""
        return f"{FOLDER}/{self.unit}.d/{self.name}.conf"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield from SystemUnitParams.targets(self, facts)
        yield Target("file", (self.path,))


class EditParams(DropInParams):
    """Parameters of service.edit-drop-in."""

    content: Content


@action(
    name="service.edit-drop-in",
    title="Edit a drop-in",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    root_equivalent=True,
    after=as_it_is,
)
def edit_drop_in(params: EditParams, facts: Facts) -> Planned:
    """Write a file that overrides settings of one systemd unit.

    systemd checks the unit with it on a copy first, and again once it stands there; if it then
    complains, the file is taken back. It holds when the unit is started anew.
    """
    unit = known(params, facts)
    before = facts.files.read(params.path)
    if before == params.content:
        yield Note(text=f"{params.path} is so already: there is nothing to do")
        return
    if MASK in params.content and MASK not in (before or ""):
        raise RefusedError(
            f"the text holds a masked value ({MASK}), which would be written as it stands there",
            hint="write the value itself",
        )
    clean = not _verified(params, facts)
    yield from _undo_edit(params, before)
    yield from _takes_effect(unit)
    yield WriteFile(path=params.path, content=params.content, before=before)
    yield DBusCall(service="systemd", method="Reload")
    if not clean:
        yield Note(text="systemd complained of the unit before: what it says after is not judged")
        return
    outcome = yield Look(step=_verify_step(unit))
    if outcome is None or outcome.code == 0:
        return
    if before is None:
        yield RemoveFile(path=params.path, before=params.content)
    else:
        yield WriteFile(path=params.path, content=before, before=params.content)
    yield DBusCall(service="systemd", method="Reload")
    raise RefusedError(
        f"systemd does not accept it: {outcome.output.strip()[:500]}",
        hint="the file was taken back: correct it and try again",
    )


@action(
    name="service.remove-drop-in",
    title="Remove a drop-in",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    root_equivalent=True,
    after=as_it_is,
)
def remove_drop_in(params: DropInParams, facts: Facts) -> Planned:
    """Remove a file that overrides settings of one systemd unit.

    It may be what keeps the unit from running as root. It holds when the unit is started anew.
    """
    unit = known(params, facts)
    before = facts.files.read(params.path)
    if before is None:
        raise RefusedError(f"there is no {params.path}", hint="see the unit's drop-ins")
    yield from _undo_edit(params, before)
    yield from _takes_effect(unit)
    yield RemoveFile(path=params.path, before=before)
    yield DBusCall(service="systemd", method="Reload")


@action(
    name="service.revert",
    title="Revert a service to its vendor's settings",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_SECONDS,
    root_equivalent=True,
    after=as_it_is,
)
def revert(params: SystemUnitParams, facts: Facts) -> Planned:
    """Remove every file with which an administrator has changed one systemd unit.

    Drop-ins, properties that were set, and a unit file that stands in front of the vendor's. It
    holds when the unit is started anew.
    """
    unit = known(params, facts)
    found = facts.units.details(params.unit)
    own = list(_own_files(params.unit, [one.path for one in found.files] if found else [], facts))
    if not own:
        raise RefusedError(
            f"{params.unit} is as its vendor made it: there is nothing to revert",
            hint="see the unit's files",
        )
    texts = {path: facts.files.read(path) for path in own}
    prefix = f"{FOLDER}/{params.unit}.d/"
    if len(own) == 1 and own[0].startswith(prefix) and own[0].endswith(".conf"):
        name = own[0].removeprefix(prefix).removesuffix(".conf")
        yield Undo(
            action="service.edit-drop-in",
            params={"unit": params.unit, "name": name, "content": texts[own[0]]},
        )
    yield from _takes_effect(unit)
    for path, text in texts.items():
        if text is not None:
            yield RemoveFile(path=path, before=text)
    yield DBusCall(service="systemd", method="Reload")


def _limit(title: str, description: str, pattern: str, example: str) -> object:
    return Field(title=title, description=description, pattern=pattern, examples=[example])


_LEFT: Final = "Empty leaves it as it is"


class PropertyParams(SystemUnitParams):
    """Parameters of service.set-property."""

    unit: Annotated[
        str,
        Field(
            title="Unit",
            description="A service, socket or slice, with its suffix.",
            examples=["nginx.service"],
            pattern=r"^[a-zA-Z0-9:_.\\@][a-zA-Z0-9:_.\\@-]*\.(service|socket|slice)$",
            max_length=255,
        ),
    ]
    cpu_quota: Annotated[
        str,
        _limit(
            "CPU quota", f"Percent of one processor, or infinity. {_LEFT}.",
            r"^(?:|infinity|[1-9][0-9]{0,5}%)$", "150%",
        ),
    ] = ""  # fmt: skip
    cpu_weight: Annotated[
        str,
        _limit(
            "CPU weight", f"1 to 10000 where others want it too, or default. {_LEFT}.",
            r"^(?:|default|[1-9][0-9]{0,3}|10000)$", "100",
        ),
    ] = ""  # fmt: skip
    io_weight: Annotated[
        str,
        _limit(
            "I/O weight", f"1 to 10000 where others want it too, or default. {_LEFT}.",
            r"^(?:|default|[1-9][0-9]{0,3}|10000)$", "100",
        ),
    ] = ""  # fmt: skip
    memory_high: Annotated[
        str,
        _limit(
            "Memory, slowed above", f"Bytes with K, M, G or T, or infinity. {_LEFT}.",
            r"^(?:|infinity|[1-9][0-9]{0,14}[KMGT]?)$", "400M",
        ),
    ] = ""  # fmt: skip
    memory_max: Annotated[
        str,
        _limit(
            "Memory, at most", f"Bytes with K, M, G or T, or infinity. {_LEFT}.",
            r"^(?:|infinity|[1-9][0-9]{0,14}[KMGT]?)$", "500M",
        ),
    ] = ""  # fmt: skip
    tasks_max: Annotated[
        str,
        _limit(
            "Tasks, at most", f"Processes and threads, or infinity. {_LEFT}.",
            r"^(?:|infinity|[1-9][0-9]{0,8})$", "512",
        ),
    ] = ""  # fmt: skip
    runtime: Annotated[
        bool, Field(title="Until the next boot", description="Else it is kept over boots.")
    ] = False

    @property
    def asked(self) -> dict[str, str]:
        """The parameters that are to be changed."""
        return {name: value for name in PROPERTIES if (value := getattr(self, name))}


PROPERTIES: Final = {
    "cpu_quota": ("CPUQuota", "CPUQuotaPerSecUSec"),
    "cpu_weight": ("CPUWeight", "CPUWeight"),
    "io_weight": ("IOWeight", "IOWeight"),
    "memory_high": ("MemoryHigh", "MemoryHigh"),
    "memory_max": ("MemoryMax", "MemoryMax"),
    "tasks_max": ("TasksMax", "TasksMax"),
}
_WEIGHTS: Final = frozenset({"cpu_weight", "io_weight"})
_FACTORS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@action(
    name="service.set-property",
    title="Set a service's limits",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    after=as_it_is,
)
def set_property(params: PropertyParams, facts: Facts) -> Planned:
    """Limit what one systemd unit may use of processors, memory and tasks.

    It holds at once, without a restart.
    """
    unit = known(params, facts)
    if not params.asked:
        raise RefusedError("no limit is given", hint="fill in at least one")
    found = facts.units.details(params.unit)
    now = found.properties if found else {}
    old = {name: _written(name, now.get(PROPERTIES[name][1], _UNSET)) for name in params.asked}
    for name, value in params.asked.items():
        yield Note(text=f"{PROPERTIES[name][0]} is {old[name]} now")
        in_use = unit.memory_bytes
        if name == "memory_max" and in_use is not None and _bytes(value) < in_use:
            yield Note(text=f"it uses {in_use >> 20} MiB now: more than that, so it may be killed")
    yield Undo(
        action="service.set-property",
        params={"unit": params.unit, "runtime": params.runtime, **old},
    )
    yield RunProgram(
        argv=(
            "systemctl",
            "set-property",
            *(("--runtime",) if params.runtime else ()),
            "--",
            params.unit,
            *(
                f"{PROPERTIES[name][0]}={_given(name, value)}"
                for name, value in params.asked.items()
            ),
        ),
    )


def _given(name: str, value: str) -> str:
    # Of processors systemd knows no infinity: no value takes the limit away.
    return "" if value == "default" or (name, value) == ("cpu_quota", "infinity") else value


def _written(name: str, value: str | int | bool) -> str:  # noqa: FBT001 - a property's value
    """Write a property as systemd tells it in the form that sets it."""
    if value in {"", _UNSET}:
        return "default" if name in _WEIGHTS else "infinity"
    if name == "cpu_quota":
        return f"{max(1, int(value) // 10_000)}%"  # microseconds in each second
    return str(value)


def _bytes(value: str) -> float:
    if value == "infinity":
        return float("inf")
    return int(value.rstrip("KMGT")) * _FACTORS.get(value[-1], 1)


def _verified(params: EditParams, facts: Facts) -> tuple[str, ...]:
    """Check the unit with the new text; tell what was wrong before it. Raises RefusedError."""
    found = facts.units.details(params.unit)
    if found is None or not found.files:
        return ("it has no files that could be checked",)
    files = {_relative(params.unit, one.path): one.content for one in found.files}
    if params.unit not in files:
        return ("it has no unit file that could be checked",)
    before = facts.units.verify(params.unit, files)
    files[f"{params.unit}.d/{params.name}.conf"] = params.content
    fresh = [one for one in facts.units.verify(params.unit, files) if one not in before]
    if fresh:
        raise RefusedError(
            f"systemd does not accept it: {'; '.join(fresh[:_SHOWN_PROBLEMS])}",
            hint="correct the text: nothing was written",
        )
    return tuple(before)


def _relative(unit: str, path: str) -> str:
    file = PurePosixPath(path)
    if file.parent.name.endswith(".d"):
        return f"{file.parent.name}/{file.name}"
    # The file of a template stands for the instance that is checked.
    return unit


def _verify_step(unit: UnitFact) -> RunProgram:
    argv = ("systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--", unit.name)
    return RunProgram(argv=argv, timeout_seconds=_VERIFY_SECONDS)


def _undo_edit(params: DropInParams, before: str | None) -> Iterator[Undo]:
    what = {"unit": params.unit, "name": params.name}
    if before is None:
        yield Undo(action="service.remove-drop-in", params=what)
    elif before.strip():
        yield Undo(action="service.edit-drop-in", params={**what, "content": before})


def _takes_effect(unit: UnitFact) -> Iterator[Note]:
    if unit.active_state in {"active", "reloading"}:
        yield Note(
            text=f"{unit.name} runs with the old settings until it is restarted",
            action="service.restart",
            params={"unit": unit.name},
        )


def _own_files(unit: str, paths: Iterable[str], facts: Facts) -> Iterator[str]:
    """Give the files of a unit that are an administrator's, not its vendor's."""
    drop_ins = {f"{folder}/{unit}.d" for folder in _OWN_FOLDERS}
    for path in paths:
        folder = str(PurePosixPath(path).parent)
        in_front = folder in _OWN_FOLDERS and any(
            facts.files.read(f"{vendor}/{unit}") is not None for vendor in _VENDOR_FOLDERS
        )
        if folder in drop_ins or in_front:
            yield path
