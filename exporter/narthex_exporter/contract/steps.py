"""The effects that a plan may ask for, as values; only ``actor/runner.py`` carries them out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, Literal

_SHOWN_LINES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgram:
    """Run one program by absolute name, without a shell.

    ``argv[0]`` is a bare program name that the runner resolves in its own table of directories.
    User data stands after a ``--`` where the program takes one. ``stdin`` is what it reads.
    """

    kind: ClassVar[Literal["program"]] = "program"
    argv: tuple[str, ...]
    timeout_seconds: float = 30.0
    stdin: str = ""

    def describe(self) -> str:
        """Say what is done, as an administrator would type it."""
        command = " ".join(_quoted(word) for word in self.argv)
        if not self.stdin:
            return command
        lines = self.stdin.rstrip("\n").splitlines()
        more = len(lines) - _SHOWN_LINES
        shown = "\n".join(lines[:_SHOWN_LINES]) + (f"\n... {more} lines more" if more > 0 else "")
        return f"{command} <<EOF\n{shown}\nEOF"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """Replace one file's content atomically, keeping owner and mode of an old one.

    ``before`` is the content that the plan saw, ``None`` where there was no file: it makes the
    diff, and a file that has changed since is left alone. Missing folders are made.
    """

    kind: ClassVar[Literal["file"]] = "file"
    path: str
    content: str
    mode: int = 0o644
    before: str | None = None

    def describe(self) -> str:
        """Say what is done, as an administrator would read it."""
        return f"write {self.path} ({len(self.content.encode())} bytes, mode {self.mode:04o})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveFile:
    """Remove one file, unless it is no longer what the plan saw: ``before``."""

    kind: ClassVar[Literal["remove"]] = "remove"
    path: str
    before: str

    def describe(self) -> str:
        """Say what is done, as an administrator would type it."""
        return f"rm {_quoted(self.path)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Send a signal to one process, named by pid and start time so that a reused pid is not hit.

    ``start_ticks`` is field 22 of /proc/PID/stat: clock ticks after boot. See proc(5).
    """

    kind: ClassVar[Literal["signal"]] = "signal"
    pid: int
    start_ticks: int
    signal: str
    wait_seconds: float = 0.0

    def describe(self) -> str:
        """Say what is done, as an administrator would type it."""
        wait = (
            f", then wait up to {self.wait_seconds:g} s for its end" if self.wait_seconds else ""
        )
        return f"kill -s {self.signal.removeprefix('SIG')} {self.pid}{wait}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPriority:
    """Change the nice value of one process, named by pid and start time."""

    kind: ClassVar[Literal["priority"]] = "priority"
    pid: int
    start_ticks: int
    nice: int

    def describe(self) -> str:
        """Say what is done, as an administrator would type it."""
        return f"renice -n {self.nice} -p {self.pid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DBusCall:
    """Call one method of a well-known D-Bus service.

    ``service`` is ``systemd``, or ``systemd:NAME`` for the one that a user runs. A method that
    returns a job path (StartUnit and its kind) is waited for until the job is removed; its result
    is the outcome.
    """

    kind: ClassVar[Literal["dbus"]] = "dbus"
    service: str
    method: str
    args: tuple[str | bool | int | tuple[str, ...], ...] = ()
    timeout_seconds: float = 90.0

    def describe(self) -> str:
        """Say what is done, as an administrator would read it."""
        return f"{self.service}: {self.method}({', '.join(map(_shown, self.args))})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorCall:
    """Ask supervisord for one thing: ``operation`` is ``start``, ``stop`` or ``restart``.

    ``program`` is a process as supervisord names it, with its group: ``group:name``.
    """

    kind: ClassVar[Literal["supervisor"]] = "supervisor"
    operation: str
    program: str
    timeout_seconds: float = 60.0

    def describe(self) -> str:
        """Say what is done, as an administrator would type it."""
        return f"supervisorctl {self.operation} {_quoted(self.program)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCall:
    """Ask a container engine for one thing.

    ``engine`` is ``docker`` or ``podman``; ``operation`` a key of the runner's table
    (``container.start``); ``target`` what it acts on, empty where it makes something new.
    ``options`` are JSON values by name, and only those that the table knows.
    """

    kind: ClassVar[Literal["engine"]] = "engine"
    engine: str
    operation: str
    target: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    timeout_seconds: float = 60.0

    def describe(self) -> str:
        """Say what is done, as an administrator would read it."""
        told = [_quoted(self.target)] if self.target else []
        told += [f"{name}={json.dumps(value)}" for name, value in self.options]
        return " ".join((f"{self.engine}: {self.operation.replace('.', ' ')}", *told))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Arm a timer on the node that brings things back unless somebody confirms.

    Everything behind it stands under the guard: should a step fail, or nobody confirm over a new
    connection within ``seconds``, ``revert`` is carried out, in this order, each step whether or
    not the one before succeeded. The timer does not depend on the actor. A plan has one guard at
    most, and a ``Confirm`` behind it.
    """

    kind: ClassVar[Literal["guard"]] = "guard"
    revert: tuple[RunProgram | WriteFile | RemoveFile, ...]
    seconds: float = 60.0

    def describe(self) -> str:
        """Say what is done, as an administrator would read it."""
        steps = "; ".join(step.describe().partition("\n")[0] for step in self.revert)
        return f"bring it back in {self.seconds:g} s unless it is confirmed: {steps}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirm:
    """Wait until the operator confirms over a new connection; else everything is brought back.

    What the plan yields behind it (to keep the change over a reboot) is done once confirmed.
    """

    kind: ClassVar[Literal["confirm"]] = "confirm"

    def describe(self) -> str:
        """Say what is done, as an administrator would read it."""
        return "wait until the operator has reached this node over a new connection"


Step = (
    RunProgram
    | WriteFile
    | RemoveFile
    | Signal
    | SetPriority
    | DBusCall
    | SupervisorCall
    | EngineCall
    | Guard
    | Confirm
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a person should know before confirming; nothing is done.

    One that names an ``action`` with its ``params`` offers that instead.
    """

    text: str
    action: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """How to undo the run, with what the plan knows of before: another action's parameters.

    Without it an action with an inverse is undone by that, with the same parameters.
    """

    action: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A step whose outcome the plan judges itself: ``outcome = yield Look(step=…)``.

    A dry run ends behind it, because what follows depends on what it finds. A failure of any
    other step ends the run.
    """

    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one step did. ``code`` is 0 for success; ``output`` is bounded, head and tail kept."""

    code: int
    output: str = ""
    duration_seconds: float = 0.0


# In a step's text this stands for the run's own id, which no plan can know.
RUN: Final = "@run@"


def for_run(step: Step, run_id: str) -> Step:
    """Write the run's id where a step's text asks for it; what a person confirmed stays so."""
    match step:
        case RunProgram():
            argv = tuple(word.replace(RUN, run_id) for word in step.argv)
            return replace(step, argv=argv, stdin=step.stdin.replace(RUN, run_id))
        case WriteFile():
            return replace(step, content=step.content.replace(RUN, run_id))
        case _:
            return step


def as_json(step: Step) -> dict[str, object]:
    """Give a step's exact content for plan hashes, audits and test cases."""
    fields = {name: getattr(step, name) for name in step.__slots__}
    if isinstance(step, Guard):
        fields["revert"] = [as_json(one) for one in step.revert]
    return {"kind": step.kind, **fields}


def from_json(fields: Mapping[str, Any]) -> Step:
    """Read what ``as_json`` gave, also after it was JSON text. Raises ValueError."""
    given = {name: _tupled(value) for name, value in fields.items() if name != "kind"}
    kind = _KINDS.get(str(fields.get("kind")))
    if kind is None:
        raise ValueError(f"{fields.get('kind')!r} is no kind of step")
    if kind is Guard:
        given["revert"] = tuple(from_json(one) for one in fields["revert"])
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(str(error)) from error


_KINDS: Final[dict[str, type[Step]]] = {
    kind.kind: kind
    for kind in (
        RunProgram, WriteFile, RemoveFile, Signal, SetPriority, DBusCall, SupervisorCall,
        EngineCall, Guard, Confirm,
    )
}  # fmt: skip


def _tupled(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_tupled, value))
    return value


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(word: str) -> str:
    plain = word and all(c.isalnum() or c in "-_./:=@%+," for c in word)
    return word if plain else "'" + word.replace("'", "'\\''") + "'"
