"""Know the Compose projects of a node from labels, their files from the disk, and the program."""

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from narthex_exporter.contract.containerfacts import (
    ComposeFile,
    ContainerFact,
    ProjectFact,
    ServiceFact,
)
from narthex_exporter.sources.text import clean

DIRECTORIES: Final = (Path("/usr/sbin"), Path("/usr/bin"), Path("/sbin"), Path("/bin"))
_PLUGINS: Final = (
    Path("/usr/local/lib/docker/cli-plugins"),
    Path("/usr/local/libexec/docker/cli-plugins"),
    Path("/usr/lib/docker/cli-plugins"),
    Path("/usr/libexec/docker/cli-plugins"),
)
_MOST_BYTES: Final = 1 << 20
_MOST_FILES: Final = 16
# What makes a YAML file one of Compose's: labels alone must not make us read or write others.
_COMPOSE: Final = re.compile(r"(?m)^[\"']?(?:services|include)[\"']?\s*:")


def projects(containers: Sequence[ContainerFact]) -> Sequence[ProjectFact]:
    """Gather containers by the project that their labels name."""
    found: dict[tuple[str, str], list[ContainerFact]] = {}
    for one in containers:
        if one.project:
            found.setdefault((one.project, one.engine), []).append(one)
    return [_project(engine, name, mine) for (name, engine), mine in sorted(found.items())]


def _project(engine: str, name: str, mine: Sequence[ContainerFact]) -> ProjectFact:
    # The newest container tells how the project was brought up last.
    newest = max(mine, key=lambda one: (bool(one.config_files), one.created_seconds, one.name))
    files = newest.config_files[:_MOST_FILES]
    services: dict[str, list[ContainerFact]] = {}
    for one in mine:
        services.setdefault(one.service or one.name, []).append(one)
    return ProjectFact(
        engine=engine,
        name=name,
        working_dir=newest.working_dir,
        files=tuple(compose_file(path) for path in files),
        services=tuple(
            ServiceFact(
                name=service,
                containers=tuple(sorted(one.name for one in containers)),
                running=sum(one.state == "running" for one in containers),
            )
            for service, containers in sorted(services.items())
        ),
    )


def compose_file(path: str) -> ComposeFile:
    """Look at a file that a label names; it may be any text."""
    if (
        not path.startswith("/")
        or clean(path, limit=4096) != path
        or os.path.normpath(path) != path
    ):
        return ComposeFile(path=path, problem="is not the plain path of a file")
    if not path.endswith((".yml", ".yaml")):
        return ComposeFile(path=path, problem="is not named like a Compose file")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        return ComposeFile(path=path, problem=f"cannot be read: {(error.strerror or '').lower()}")
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return ComposeFile(path=path, problem="is not a regular file")
        raw = file.read(_MOST_BYTES + 1)
    return ComposeFile(
        path=path,
        problem=_unfit(raw),
        owner_uid=status.st_uid,
        is_writable_by_others=_others_write(path, status),
    )


def _unfit(raw: bytes) -> str:
    if len(raw) > _MOST_BYTES:
        return f"is longer than {_MOST_BYTES} bytes"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "is not UTF-8 text"
    return "" if _COMPOSE.search(text) else "has no services: it is not a Compose file"


def _others_write(path: str, status: os.stat_result) -> bool:
    folder = Path(path).parent.stat()
    loose = stat.S_IWGRP | stat.S_IWOTH
    # In a sticky folder nobody replaces another's file.
    in_folder = folder.st_mode & loose and not folder.st_mode & stat.S_ISVTX
    return bool(status.st_mode & loose or in_folder)


def program(socket: Path, directories: tuple[Path, ...]) -> tuple[str, ...]:
    """Give the words that start Compose; empty where there is none.

    The engine's socket is named: what root's own settings would choose is another matter.
    """
    host = f"unix://{socket}"
    has_plugin = any(os.access(folder / "docker-compose", os.X_OK) for folder in _PLUGINS)
    if has_plugin and _found("docker", directories):
        return ("docker", "--host", host, "compose")
    if _found("docker-compose", directories):
        return ("docker-compose", "--host", host)
    return ()


def _found(name: str, directories: tuple[Path, ...]) -> bool:
    return any(os.access(folder / name, os.X_OK) for folder in directories)
