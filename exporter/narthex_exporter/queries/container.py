"""Ask about a node's containers."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import AwareDatetime

from narthex_exporter.actions.containerparams import (
    NEEDS,
    ContainerName,
    Engine,
    EngineName,
)
from narthex_exporter.contract.containerfacts import ContainerFact
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import QueryParams, Result, query
from narthex_exporter.queries.masking import MASK, masked

_TEXT_CHARACTERS: Final = 4096
_LABELS: Final = 256
_MOST_DEPTH: Final = 12
# A value of the environment is shown only where its name says that it is no secret.
_PLAIN: Final = frozenset({
    "HOME", "HOSTNAME", "LANG", "LC_ALL", "PATH", "PWD", "SHELL", "TERM", "TZ", "USER",
})  # fmt: skip


class NoParams(QueryParams):
    """Parameters of what is asked of all engines: none."""


class GetParams(QueryParams):
    """Parameters of container.get."""

    engine: Engine = EngineName.DOCKER
    container: ContainerName


class EngineState(Result):
    """One engine. ``problem`` says why it cannot be asked; empty when it can."""

    name: str
    socket: str
    version: str
    problem: str


class Port(Result):
    """A port of a container; ``host_port`` is 0 where it is published nowhere."""

    protocol: str
    port: int
    host_address: str
    host_port: int


class Mount(Result):
    """What a container sees at ``target``."""

    kind: str
    source: str
    target: str
    is_writable: bool


class Container(Result):
    """One container. ``state`` and ``health`` are the engine's own words."""

    engine: str
    id: str
    name: str
    image: str
    state: str
    health: str
    restarts: int
    exit_code: int
    is_oom_killed: bool
    created_at: AwareDatetime | None
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    ports: tuple[Port, ...]
    networks: tuple[str, ...]
    project: str
    service: str
    is_protected: bool


class ContainerList(Result):
    """Every container, by name, of the engines that answer."""

    containers: tuple[Container, ...]
    engines: tuple[EngineState, ...]


class ContainerProperties(Container):
    """One container in full; 0 is no limit."""

    image_id: str
    mounts: tuple[Mount, ...]
    labels: dict[str, str]
    cpus: float
    memory_bytes: int
    pids: int
    restart_policy: str
    is_removed_at_end: bool
    working_dir: str
    config_files: tuple[str, ...]


class ContainerDetail(Result):
    """One container, or ``None`` where there is none by that name.

    ``environment`` and ``inspect`` (JSON text, as the engine tells it) have their secrets masked.
    """

    container: ContainerProperties | None
    command: str = ""
    environment: tuple[str, ...] = ()
    inspect: str = ""


class Stats(Result):
    """What one running container uses; ``cpu_ratio`` 1.0 is one processor, all of the time."""

    engine: str
    name: str
    cpu_ratio: float | None
    memory_bytes: int
    memory_limit_bytes: int
    pids: int
    received_bytes: int
    sent_bytes: int
    read_bytes: int
    written_bytes: int


class StatsList(Result):
    """What every running container uses."""

    stats: tuple[Stats, ...]


class Usage(Result):
    """How much of one kind lies on disk, and how much of it nothing uses now."""

    engine: str
    kind: str
    count: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


class UsageList(Result):
    """What lies on disk, by engine and kind."""

    usage: tuple[Usage, ...]


@query(name="container.list", title="Containers", needs=NEEDS)
def list_containers(_params: NoParams, facts: Facts) -> ContainerList:
    """List the containers of the node, those that do not run too."""
    return ContainerList(
        containers=tuple(Container(**_shown(one)) for one in facts.containers.list()),
        engines=engines(facts),
    )


@query(name="container.get", title="One container", needs=NEEDS)
def get_container(params: GetParams, facts: Facts) -> ContainerDetail:
    """Tell all about one container, its secrets masked."""
    found = facts.containers.get(params.engine, params.container)
    told = facts.containers.inspect(params.engine, found.id) if found else None
    if found is None or told is None:
        return ContainerDetail(container=None)
    config = told.get("Config")
    config = config if isinstance(config, Mapping) else {}
    # Podman tells a command as one text.
    parts = [config.get("Entrypoint") or (), config.get("Cmd") or ()]
    words = [w for part in parts for w in ((part,) if isinstance(part, str) else part)]
    return ContainerDetail(
        container=_properties(found),
        command=masked(list(map(str, words)))[:_TEXT_CHARACTERS],
        environment=tuple(variable(str(one)) for one in config.get("Env") or ()),
        inspect=json.dumps(without_secrets(told), indent=2, ensure_ascii=False),
    )


@query(name="container.stats", title="What containers use", needs=NEEDS, timeout_seconds=15.0)
def stats(_params: NoParams, facts: Facts) -> StatsList:
    """Look at all running containers twice, and tell what they use."""
    names = Stats.model_fields
    return StatsList(
        stats=tuple(
            Stats(**{name: getattr(one, name) for name in names})
            for one in facts.containers.stats()
        )
    )


@query(name="container.disk-usage", title="Containers on disk", needs=NEEDS, timeout_seconds=15.0)
def disk_usage(_params: NoParams, facts: Facts) -> UsageList:
    """Tell how much images, containers, volumes and build caches take on disk."""
    names = Usage.model_fields
    return UsageList(
        usage=tuple(
            Usage(**{name: getattr(one, name) for name in names})
            for one in facts.containers.usage()
        )
    )


def engines(facts: Facts) -> tuple[EngineState, ...]:
    """Tell which engines there are, and which of them cannot be asked."""
    return tuple(
        EngineState(name=one.name, socket=one.socket, version=one.version, problem=one.problem)
        for one in facts.containers.engines()
    )


def instant(seconds: float) -> dt.datetime | None:
    """Turn Unix time into an instant; 0 is no time."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC) if seconds else None


def variable(text: str) -> str:
    """Show a variable of the environment by its name, and its value where that is no secret."""
    name, equals, value = text.partition("=")
    return f"{name[:_LABELS]}{equals}{value[:_TEXT_CHARACTERS] if name in _PLAIN else MASK}"


def without_secrets(told: Any, *, depth: int = 0) -> Any:
    """Copy what the engine tells, the environment and all that looks like a secret masked."""
    if depth > _MOST_DEPTH:
        return "…"
    if isinstance(told, Mapping):
        return {
            str(key): (
                [variable(str(one)) for one in value]
                if key == "Env" and isinstance(value, list | tuple)
                else _named(str(key), value, depth)
            )
            for key, value in told.items()
        }
    if isinstance(told, list | tuple):
        if told and all(isinstance(one, str) for one in told):
            return _words(list(told))
        return [without_secrets(one, depth=depth + 1) for one in told]
    return masked([told])[:_TEXT_CHARACTERS] if isinstance(told, str) else told


def _words(words: list[str]) -> list[str]:
    """Mask each word, knowing the one before: a secret may follow its option."""
    return [
        masked([before, word]).removeprefix(f"{masked([before])} ")[:_TEXT_CHARACTERS]
        for before, word in zip(["", *words], words, strict=False)
    ]


def _named(name: str, value: Any, depth: int) -> Any:
    if not isinstance(value, str):
        return without_secrets(value, depth=depth + 1)
    # A label such as db.password=x: the name alone tells that its value is a secret.
    return masked([f"{name}={value}"]).removeprefix(f"{name}=")[:_TEXT_CHARACTERS]


def _properties(found: ContainerFact) -> ContainerProperties:
    return ContainerProperties(
        **_shown(found),
        image_id=found.image_id,
        mounts=tuple(
            Mount(kind=one.kind, source=one.source, target=one.target, is_writable=one.is_writable)
            for one in found.mounts
        ),
        labels={
            name[:_LABELS]: _named(name, value, 0)
            for name, value in sorted(found.labels.items())[:_LABELS]
        },
        cpus=found.limits.cpus,
        memory_bytes=found.limits.memory_bytes,
        pids=found.limits.pids,
        restart_policy=found.limits.restart,
        is_removed_at_end=found.is_removed_at_end,
        working_dir=found.working_dir,
        config_files=found.config_files,
    )


def _shown(found: ContainerFact) -> dict[str, Any]:
    return {
        "engine": found.engine,
        "id": found.id,
        "name": found.name,
        "image": found.image,
        "state": found.state,
        "health": found.health,
        "restarts": found.restarts,
        "exit_code": found.exit_code,
        "is_oom_killed": found.is_oom_killed,
        "created_at": instant(found.created_seconds),
        "started_at": instant(found.started_seconds),
        "finished_at": instant(found.finished_seconds),
        "ports": tuple(
            Port(
                protocol=one.protocol,
                port=one.port,
                host_address=one.host_address,
                host_port=one.host_port,
            )
            for one in found.ports
        ),
        "networks": found.networks,
        "project": found.project,
        "service": found.service,
        "is_protected": found.is_protected,
    }
