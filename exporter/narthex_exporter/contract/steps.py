"""The effects that a plan may ask for, as values; only ``actor/runner.py`` carries them out."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgram:
    """Run one program by absolute name, without a shell.

    ``argv[0]`` is a bare program name that the runner resolves in its own table of directories.
    User data stands after a ``--`` where the program takes one.
    """

    kind: ClassVar[Literal["program"]] = "program"
    argv: tuple[str, ...]
    timeout_seconds: float = 30.0

    def describe(self) -> str:
        """Say what is done, as an administrator would type it."""
        return " ".join(_quoted(word) for word in self.argv)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    """Replace one file's content atomically, keeping owner and mode."""

    kind: ClassVar[Literal["file"]] = "file"
    path: str
    content: str
    mode: int = 0o644

    def describe(self) -> str:
        """Say what is done, as an administrator would read it."""
        return f"write {self.path} ({len(self.content.encode())} bytes, mode {self.mode:04o})"


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

    ``service`` is a key of the runner's table (``systemd``). A method that returns a job path
    (StartUnit and its kind) is waited for until the job is removed; its result is the outcome.
    """

    kind: ClassVar[Literal["dbus"]] = "dbus"
    service: str
    method: str
    args: tuple[str | bool | int | tuple[str, ...], ...] = ()
    timeout_seconds: float = 90.0

    def describe(self) -> str:
        """Say what is done, as an administrator would read it."""
        return f"{self.service}: {self.method}({', '.join(map(_shown, self.args))})"


Step = RunProgram | WriteFile | Signal | SetPriority | DBusCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a person should know before confirming; nothing is done."""

    text: str


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


def as_json(step: Step) -> dict[str, object]:
    """Give a step's exact content for plan hashes, audits and test cases."""
    fields = {name: getattr(step, name) for name in step.__slots__}
    return {"kind": step.kind, **fields}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(word: str) -> str:
    plain = word and all(c.isalnum() or c in "-_./:=@%+," for c in word)
    return word if plain else "'" + word.replace("'", "'\\''") + "'"
