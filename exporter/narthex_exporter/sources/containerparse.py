"""Read what a container engine's API tells, into facts; pure, and strict about what it takes.

See https://docs.docker.com/reference/api/engine/. Podman tells the same with other words here and
there. Whatever else is told raises EngineError.
"""

import functools
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, ParamSpec, TypeVar

from narthex_exporter.contract.containerfacts import (
    PROJECT_LABEL,
    ContainerFact,
    ImageFact,
    LimitsFact,
    MountFact,
    NetworkFact,
    PublishedPort,
    StatsFact,
    UsageFact,
    VolumeFact,
)
from narthex_exporter.errors import UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

_SERVICE: Final = "com.docker.compose.service"
_WORKING_DIR: Final = f"{PROJECT_LABEL}.working_dir"
_CONFIG_FILES: Final = f"{PROJECT_LABEL}.config_files"
PATH_LABELS: Final = (_WORKING_DIR, _CONFIG_FILES)
# What Podman says beside Docker's words, and Docker while it removes one.
_STATES: Final = {
    "configured": "created",
    "initialized": "created",
    "stopping": "running",
    "stopped": "exited",
    "removing": "dead",
}
_HEALTHS: Final = frozenset({"starting", "healthy", "unhealthy"})
_NANO: Final = 1e9
_FIRST_YEAR: Final = 1970
_UNTAGGED: Final = frozenset({"<none>:<none>", "<none>@<none>"})


class EngineError(UnavailableError):
    """An engine does not answer, or not as its API says."""


def _strict(parse: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(parse)
    def parsed(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return parse(*args, **kwargs)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise EngineError(
                f"the engine's answer is not what its API says ({parse.__name__}: {error!r:.200})"
            ) from error

    return parsed


@_strict
def container(engine: str, told: Any, image_labels: Mapping[str, str] | None) -> ContainerFact:
    """Take what we use of ``GET /containers/<id>/json``.

    Compose's labels that came with the image say nothing about files of this machine; where its
    labels are not known (``None``) neither can be believed.
    """
    state, config, host = told["State"], told["Config"], told.get("HostConfig") or {}
    labels = {str(key): str(value) for key, value in (config.get("Labels") or {}).items()}
    paths = {
        key: labels.get(key, "")
        for key in PATH_LABELS
        if image_labels is not None and labels.get(key) and image_labels.get(key) != labels[key]
    }
    health = (state.get("Health") or state.get("Healthcheck") or {}).get("Status") or ""
    word = str(state.get("Status") or "").lower()
    files = paths.get(_CONFIG_FILES, "")
    return ContainerFact(
        engine=engine,
        id=str(told["Id"]),
        name=str(told["Name"]).removeprefix("/"),
        image=str(config.get("Image") or told.get("ImageName") or ""),
        image_id=str(told.get("Image") or ""),
        state=_STATES.get(word, word),
        health=health if health in _HEALTHS else "",
        restarts=int(told.get("RestartCount") or 0),
        exit_code=int(state.get("ExitCode") or 0),
        is_oom_killed=bool(state.get("OOMKilled")),
        created_seconds=unixtime(told.get("Created")),
        started_seconds=unixtime(state.get("StartedAt")),
        finished_seconds=unixtime(state.get("FinishedAt")),
        ports=_ports(told, host),
        networks=tuple(sorted((told.get("NetworkSettings") or {}).get("Networks") or {})),
        mounts=tuple(map(_mount, told.get("Mounts") or ())),
        limits=_limits(host),
        is_removed_at_end=bool(host.get("AutoRemove")),
        project=labels.get(PROJECT_LABEL, ""),
        service=labels.get(_SERVICE, ""),
        working_dir=paths.get(_WORKING_DIR, ""),
        config_files=tuple(filter(None, files.split(","))),
        labels=labels,
    )


def _ports(told: Any, host: Any) -> tuple[PublishedPort, ...]:
    now = (told.get("NetworkSettings") or {}).get("Ports") or {}
    # One that does not run publishes nothing now: what it will publish is told instead.
    asked = now or host.get("PortBindings") or {}
    found = []
    for name, bindings in sorted(asked.items()):
        port, _, protocol = str(name).partition("/")
        if not bindings:
            found.append(PublishedPort(protocol=protocol or "tcp", port=int(port)))
        found += [
            PublishedPort(
                protocol=protocol or "tcp",
                port=int(port),
                host_address=str(one.get("HostIp") or "0.0.0.0"),  # noqa: S104 - Docker's default
                host_port=int(one.get("HostPort") or 0),
            )
            for one in bindings or ()
        ]
    return tuple(found)


def _mount(told: Any) -> MountFact:
    kind = str(told.get("Type") or "bind")
    name = told.get("Name") if kind == "volume" else told.get("Source")
    return MountFact(
        kind=kind,
        source=str(name or ""),
        target=str(told["Destination"]),
        is_writable=bool(told.get("RW", True)),
    )


def _limits(host: Any) -> LimitsFact:
    quota, period = int(host.get("CpuQuota") or 0), int(host.get("CpuPeriod") or 0) or 100_000
    cpus = int(host.get("NanoCpus") or 0) / _NANO or max(0.0, quota / period)
    return LimitsFact(
        cpus=round(cpus, 3),
        memory_bytes=max(0, int(host.get("Memory") or 0)),
        pids=max(0, int(host.get("PidsLimit") or 0)),
        restart=str((host.get("RestartPolicy") or {}).get("Name") or "no"),
    )


@_strict
def image(engine: str, told: Any, used_by: Mapping[str, tuple[str, ...]]) -> ImageFact:
    """Take what we use of one image of ``GET /images/json``; ``used_by`` is by image id."""
    tags = (str(one) for one in told.get("RepoTags") or ())
    digests = (str(one) for one in told.get("RepoDigests") or ())
    id_ = full_id(str(told["Id"]))
    return ImageFact(
        engine=engine,
        id=id_,
        tags=tuple(sorted(one for one in tags if one not in _UNTAGGED)),
        digests=tuple(sorted(one for one in digests if one not in _UNTAGGED)),
        size_bytes=int(told.get("Size") or 0),
        created_seconds=float(told.get("Created") or 0),
        used_by=used_by.get(id_, ()),
        labels={str(key): str(value) for key, value in (told.get("Labels") or {}).items()},
    )


def full_id(id_: str) -> str:
    """Write an image's id as Docker does; Podman leaves the algorithm out."""
    return id_ if ":" in id_ or not id_ else f"sha256:{id_}"


@_strict
def volume(
    engine: str, told: Any, used_by: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> VolumeFact:
    """Take what we use of one volume of ``GET /volumes``; the others are by its name."""
    name = str(told["Name"])
    return VolumeFact(
        engine=engine,
        name=name,
        driver=str(told.get("Driver") or "local"),
        mountpoint=str(told.get("Mountpoint") or ""),
        created_seconds=unixtime(told.get("CreatedAt")),
        size_bytes=sizes.get(name),
        used_by=used_by.get(name, ()),
        project=str((told.get("Labels") or {}).get(PROJECT_LABEL) or ""),
        options={str(key): str(value) for key, value in (told.get("Options") or {}).items()},
    )


@_strict
def network(engine: str, told: Any, used_by: Mapping[str, tuple[str, ...]]) -> NetworkFact:
    """Take what we use of one network of ``GET /networks``; ``used_by`` is by its name."""
    name = str(told["Name"])
    subnets = ((told.get("IPAM") or {}).get("Config")) or ()
    return NetworkFact(
        engine=engine,
        id=str(told["Id"]),
        name=name,
        driver=str(told.get("Driver") or ""),
        is_internal=bool(told.get("Internal")),
        subnets=tuple(str(one["Subnet"]) for one in subnets if one.get("Subnet")),
        used_by=used_by.get(name, ()),
        project=str((told.get("Labels") or {}).get(PROJECT_LABEL) or ""),
    )


@_strict
def usage(engine: str, told: Any) -> tuple[UsageFact, ...]:
    """Take ``GET /system/df``: each layer counts once."""
    images = told.get("Images") or ()
    whole = int(told.get("LayersSize") or 0)
    used = sum(_own_bytes(one) for one in images if int(one.get("Containers") or 0) > 0)
    containers = told.get("Containers") or ()
    volumes = told.get("Volumes") or ()
    caches = told.get("BuildCache") or ()
    return (
        UsageFact(
            engine=engine, kind="images", count=len(images),
            active=sum(int(one.get("Containers") or 0) > 0 for one in images),
            size_bytes=whole, reclaimable_bytes=max(0, whole - used),
        ),
        _summed(
            engine, "containers",
            [(int(one.get("SizeRw") or 0), one.get("State") == "running") for one in containers],
        ),
        _summed(
            engine, "volumes",
            [(max(0, int((one.get("UsageData") or {}).get("Size") or 0)),
              int((one.get("UsageData") or {}).get("RefCount") or 0) > 0) for one in volumes],
        ),
        _summed(
            engine, "build cache",
            [(int(one.get("Size") or 0), bool(one.get("InUse"))) for one in caches],
        ),
    )  # fmt: skip


def _own_bytes(told: Any) -> int:
    """Count an image without the layers that others have too, where the engine tells that."""
    shared = int(told.get("SharedSize") or 0)
    return int(told.get("Size") or 0) - max(0, shared)


def _summed(engine: str, kind: str, each: list[tuple[int, bool]]) -> UsageFact:
    return UsageFact(
        engine=engine,
        kind=kind,
        count=len(each),
        active=sum(active for _, active in each),
        size_bytes=sum(size for size, _ in each),
        reclaimable_bytes=sum(size for size, active in each if not active),
    )


@_strict
def volume_sizes(told: Any) -> dict[str, int]:
    """Take the sizes of volumes from ``GET /system/df``."""
    sizes = {
        str(one["Name"]): int((one.get("UsageData") or {}).get("Size", -1))
        for one in told.get("Volumes") or ()
    }
    return {name: size for name, size in sizes.items() if size >= 0}


@_strict
def stats(engine: str, name: str, first: Any, second: Any) -> StatsFact:
    """Compare two looks of ``GET /containers/<id>/stats``."""
    memory = second.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    # As `docker stats` does: what the kernel would give back at once is not counted.
    cache = int(detail.get("inactive_file", detail.get("total_inactive_file", 0)) or 0)
    networks = (second.get("networks") or {}).values()
    blocks = (second.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    return StatsFact(
        engine=engine,
        name=name,
        cpu_ratio=_cpu_ratio(first, second),
        memory_bytes=max(0, int(memory.get("usage") or 0) - cache),
        memory_limit_bytes=int(memory.get("limit") or 0),
        pids=int((second.get("pids_stats") or {}).get("current") or 0),
        received_bytes=sum(int(one.get("rx_bytes") or 0) for one in networks),
        sent_bytes=sum(int(one.get("tx_bytes") or 0) for one in networks),
        read_bytes=_blocks(blocks, "read"),
        written_bytes=_blocks(blocks, "write"),
    )


def _blocks(blocks: Any, operation: str) -> int:
    return sum(int(one["value"]) for one in blocks if str(one["op"]).lower() == operation)


def _cpu_ratio(first: Any, second: Any) -> float | None:
    seconds = unixtime(second.get("read")) - unixtime(first.get("read"))
    used = [
        int(((one.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage") or 0)
        for one in (first, second)
    ]
    if seconds <= 0 or used[1] < used[0]:
        return None
    return round((used[1] - used[0]) / _NANO / seconds, 4)


def unixtime(text: object) -> float:
    """Turn RFC 3339 into Unix time; 0 for a time that is not set."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return 0.0
    return at.timestamp() if at.year >= _FIRST_YEAR and at.tzinfo is not None else 0.0
