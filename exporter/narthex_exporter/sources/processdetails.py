"""Look into one process: its open files, limits, namespaces and environment. See proc(5)."""

import contextlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from narthex_exporter.contract.facts import LimitFact, OpenFileFact, ProcessDetailFact
from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.text import clean

MOST_FILES: Final = 500
_MOST_COUNTED: Final = 100_000
_TEXT_CHARACTERS: Final = 1024
_ENVIRONMENT_BYTES: Final = 256 * 1024
_FILE_BYTES: Final = 65536
# The columns of /proc/PID/limits have fixed widths: a limit's name holds spaces.
_NAME, _SOFT, _HARD = slice(0, 25), slice(26, 46), slice(47, 67)


def look(proc: Path, pid: int) -> ProcessDetailFact:
    """Read what can be read. The process may end meanwhile: compare its start time after."""
    folder = proc / str(pid)
    unreadable: list[str] = []

    @contextlib.contextmanager
    def tolerant(what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):
            unreadable.append(what)

    files: tuple[OpenFileFact, ...] = ()
    total, limits, cgroup = 0, "", ""
    namespaces: dict[str, int] = {}
    shared: dict[str, int] = {}
    with tolerant("files"):
        files, total = _files(folder / "fd")
    with tolerant("limits"):
        limits = _text(folder / "limits")
    with tolerant("cgroup"):
        cgroup = _text(folder / "cgroup")
    with tolerant("namespaces"):
        namespaces = _namespaces(folder / "ns")
    with tolerant("namespaces of process 1"):
        shared = _namespaces(proc / "1" / "ns")
    links = {}
    for name in ("exe", "cwd", "root"):
        links[name] = ""
        with tolerant(name):
            links[name] = _link(folder / name)
    return ProcessDetailFact(
        executable=links["exe"],
        working_directory=links["cwd"],
        root=links["root"],
        files=files,
        files_total=total,
        limits=parse_limits(limits),
        cgroup=clean("; ".join(cgroup.split("\n")).strip("; "), limit=_TEXT_CHARACTERS),
        namespaces=namespaces,
        shared=tuple(kind for kind, number in namespaces.items() if shared.get(kind) == number),
        unreadable=tuple(unreadable),
    )


def environment(proc: Path, pid: int) -> tuple[str, ...]:
    """Read NAME=value pairs as the process was started with. Raises UnavailableError."""
    try:
        with (proc / str(pid) / "environ").open("rb") as file:
            raw = file.read(_ENVIRONMENT_BYTES)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UnavailableError(
            f"the environment of process {pid} cannot be read: {error.strerror}"
        ) from error
    parts = (clean(part, limit=4096) for part in raw.split(b"\0") if part)
    return tuple(sorted(parts))


def parse_limits(text: str) -> tuple[LimitFact, ...]:
    """Parse /proc/PID/limits."""
    return tuple(
        LimitFact(
            name=clean(line[_NAME].strip(), limit=40),
            soft=clean(line[_SOFT].strip(), limit=24),
            hard=clean(line[_HARD].strip(), limit=24),
            unit=clean(line[68:].strip(), limit=16),
        )
        for line in text.splitlines()[1:]
        if line[_SOFT].strip()
    )


def _files(folder: Path) -> tuple[tuple[OpenFileFact, ...], int]:
    with os.scandir(folder) as entries:
        numbers = sorted(int(one.name) for one in islice(entries, _MOST_COUNTED))
    found = []
    for number in numbers[:MOST_FILES]:
        with contextlib.suppress(OSError):  # closed while we looked
            found.append(OpenFileFact(descriptor=number, target=_link(folder / str(number))))
    return tuple(found), len(numbers)


def _namespaces(folder: Path) -> dict[str, int]:
    found = {}
    for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names are all we need
        # `net:[4026531840]`
        _, _, number = str((folder / name).readlink()).partition(":[")
        if not name.endswith("_for_children"):
            found[clean(name, limit=32)] = int(number.rstrip("]"))
    return found


def _link(path: Path) -> str:
    return clean(os.fsencode(path.readlink()), limit=_TEXT_CHARACTERS)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_FILE_BYTES).decode("utf-8", "replace")
