"""Make containers of an allow-listed schema, and change their limits: nothing else can be said."""

import enum
import re
from collections.abc import Generator, Iterable
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from typing_extensions import override

from narthex_exporter.actions.container import (
    ContainerParams,
    as_it_is,
    as_started,
)
from narthex_exporter.actions.containerparams import (
    NEEDS,
    ImageName,
    answering,
    find_container,
    find_image,
    image_targets,
    size,
)
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Danger, Planned, Target, action
from narthex_exporter.contract.steps import EngineCall, Note, Undo

_MIB: Final = 1 << 20
_JOB_SECONDS: Final = 100
_SETTLE_SECONDS: Final = 0.5
_SMALLEST_MIB: Final = 6  # Docker's own least
# What engines and their helpers read from labels is theirs to set: Compose's name files of the
# host, which we would then offer to edit.
_RESERVED: Final = (
    "com.docker.", "io.docker.", "org.dockerproject.", "io.podman.", "io.containers.",
    "org.opencontainers.runtime.",
)  # fmt: skip
# A network of another driver reaches past the engine: the host's own, or the wire itself.
_DRIVERS: Final = frozenset({"bridge", "overlay", "null"})
_PORT: Final = re.compile(
    r"(?P<address>(?:[0-9]{1,3}\.){3}[0-9]{1,3}|\[[0-9a-fA-F:.]{2,45}\])"
    r":(?P<host>[1-9][0-9]{0,4}):(?P<port>[1-9][0-9]{0,4})/(?P<protocol>tcp|udp)"
)
_VOLUME: Final = re.compile(
    r"(?P<name>[a-zA-Z0-9][a-zA-Z0-9_.\-]{1,254}):(?P<target>(?:/[^/:,\x00-\x1f\x7f]+)+)(?P<ro>:ro)?"
)
_HIGHEST_PORT: Final = 65535


def _a_port(text: str) -> str:
    match = _PORT.fullmatch(text)
    if match is None or max(int(match["host"]), int(match["port"])) > _HIGHEST_PORT:
        raise ValueError("a port is written like 127.0.0.1:8080:80/tcp: address, host's, its own")
    return text


def _a_mount(text: str) -> str:
    match = _VOLUME.fullmatch(text)
    if match is None or {".", ".."} & set(match["target"].split("/")):
        raise ValueError("a volume is written like data:/var/lib/app or data:/var/lib/app:ro")
    return text


def _a_label(text: str) -> str:
    name, equals, _ = text.partition("=")
    if not equals or not re.fullmatch(r"[a-z0-9](?:[a-z0-9._/\-]*[a-z0-9])?", name):
        raise ValueError("a label is written like team=shop, its name in lower case")
    if name.startswith(_RESERVED):
        raise ValueError(f"labels that begin with {name.rpartition('.')[0]}. are the engine's own")
    return text


def _a_variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.\-]*=[^\x00]*", text, re.DOTALL):
        raise ValueError("a variable is written like NAME=value")
    return text


_Word = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
_Line = Annotated[str, Field(min_length=1, max_length=4096)]


class RestartPolicy(enum.StrEnum):
    """When the engine starts a container again by itself."""

    NO = "no"
    ON_FAILURE = "on-failure"
    UNLESS_STOPPED = "unless-stopped"
    ALWAYS = "always"


class CreateParams(ContainerParams):
    """All that can be said of a new container; there is no other way to say more."""

    image: ImageName
    command: Annotated[
        tuple[_Word, ...],
        Field(
            title="Command",
            description="One word a line; without any, the image's own.",
            max_length=64,
        ),
    ] = ()
    env: Annotated[
        tuple[Annotated[_Line, AfterValidator(_a_variable)], ...],
        Field(
            title="Environment",
            description="NAME=value, one a line. Values stand in the run's record: no secrets.",
            max_length=256,
        ),
    ] = ()
    ports: Annotated[
        tuple[Annotated[_Line, AfterValidator(_a_port)], ...],
        Field(
            title="Ports",
            description="Host's address, its port, the container's: 127.0.0.1:8080:80/tcp.",
            examples=["127.0.0.1:8080:80/tcp"],
            max_length=64,
        ),
    ] = ()
    volumes: Annotated[
        tuple[Annotated[_Line, AfterValidator(_a_mount)], ...],
        Field(
            title="Volumes",
            description="Volume and folder: data:/var/lib/app, with :ro to read only.",
            examples=["data:/var/lib/app"],
            max_length=64,
        ),
    ] = ()
    networks: Annotated[
        tuple[
            Annotated[str, Field(max_length=128, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$")], ...
        ],
        Field(title="Networks", description="By name, one a line.", max_length=16),
    ] = ()
    restart: Annotated[
        RestartPolicy,
        Field(title="Restart", description="When the engine starts it again by itself."),
    ] = RestartPolicy.NO
    cpus: Annotated[
        float,
        Field(title="CPUs", description="At most so many; 0 for all.", ge=0, le=4096,
              allow_inf_nan=False),
    ] = 0.0  # fmt: skip
    memory_mib: Annotated[
        int,
        Field(title="Memory, MiB", description="At most so much; 0 for all.", ge=0, le=1 << 30),
    ] = 0
    pids: Annotated[
        int,
        Field(title="Processes", description="At most so many; 0 for any.", ge=0, le=4_194_304),
    ] = 0
    labels: Annotated[
        tuple[Annotated[_Line, AfterValidator(_a_label)], ...],
        Field(title="Labels", description="name=value, one a line.", max_length=64),
    ] = ()
    user: Annotated[
        str,
        Field(
            title="User",
            description="Name or number, with :group if need be; empty for the image's own.",
            pattern=r"^(?:[a-zA-Z0-9_][a-zA-Z0-9_.\-]*(?::[a-zA-Z0-9_][a-zA-Z0-9_.\-]*)?)?$",
            max_length=128,
        ),
    ] = ""
    read_only: Annotated[
        bool,
        Field(title="Read-only", description="It can write to its volumes only.", strict=True),
    ] = False
    drop_capabilities: Annotated[
        bool,
        Field(
            title="Drop all capabilities",
            description="Its root is then no more than another user.",
            strict=True,
        ),
    ] = False

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("container", (self.container,))
        yield from image_targets(facts, self.engine, self.image)
        for name, _, _ in mounts(self):
            yield Target("volume", (name,), f"{self.container} would use it")
        for name in self.networks:
            yield Target("network", (name,), f"{self.container} would be on it")


class UpdateParams(ContainerParams):
    """Parameters of container.update; what is left out stays as it is."""

    cpus: Annotated[
        float | None,
        Field(title="CPUs", description="At most so many; 0 for all of the node's.", ge=0, le=4096,
              allow_inf_nan=False),
    ] = None  # fmt: skip
    memory_mib: Annotated[
        int | None,
        Field(
            title="Memory, MiB",
            description="At most so much; 0 for all of the node's.",
            ge=0,
            le=1 << 30,
        ),
    ] = None
    pids: Annotated[
        int | None,
        Field(title="Processes", description="At most so many; 0 for any.", ge=0, le=4_194_304),
    ] = None
    restart: Annotated[
        RestartPolicy | None,
        Field(title="Restart", description="When the engine starts it again by itself."),
    ] = None


def mounts(params: CreateParams) -> list[tuple[str, str, bool]]:
    """Give the volumes with their folders, and whether they are only read."""
    found = (match for one in params.volumes if (match := _VOLUME.fullmatch(one)))
    return [(one["name"], one["target"], bool(one["ro"])) for one in found]


@action(
    name="container.create",
    title="Make a container",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    timeout_seconds=_JOB_SECONDS,
    after=as_it_is,
)
def create(params: CreateParams, facts: Facts) -> Planned:
    """Make one container of an image that is here already, without starting it.

    It gets no privileges, devices, folders or namespaces of the host: there is no way to ask.
    """
    yield from _made(params, facts)


@action(
    name="container.run",
    title="Run a new container",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    timeout_seconds=_JOB_SECONDS,
    after=as_started,
    settle_seconds=_SETTLE_SECONDS,
)
def run(params: CreateParams, facts: Facts) -> Planned:
    """Make one container of an image that is here already, and start it.

    It gets no privileges, devices, folders or namespaces of the host: there is no way to ask.
    """
    yield from _made(params, facts)
    yield EngineCall(engine=params.engine, operation="container.start", target=params.container)


@action(
    name="container.update",
    title="Change a container's limits",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    after=as_it_is,
)
def update(params: UpdateParams, facts: Facts) -> Planned:
    """Change what one container may use, and when it is started again.

    It is not restarted. With less memory than it uses, the kernel may kill its processes.
    """
    found = find_container(facts, params.engine, params.container)
    now = found.limits
    options: dict[str, object] = {}
    before: dict[str, object] = {}
    host = facts.host.get()
    # Engines can raise these two limits, but not take them away: all that there is, is as good.
    if params.cpus is not None and params.cpus != now.cpus:
        options["cpus"], before["cpus"] = params.cpus or float(host.cpus), now.cpus
        yield Note(text=f"CPUs: {now.cpus:g} now" if now.cpus else "CPUs: no limit now")
    if params.memory_mib is not None and params.memory_mib * _MIB != now.memory_bytes:
        _enough(params.memory_mib)
        options["memory_bytes"] = params.memory_mib * _MIB or host.memory_bytes
        before["memory_mib"] = now.memory_bytes // _MIB
        yield Note(
            text=f"memory: {size(now.memory_bytes) if now.memory_bytes else 'no limit'} now"
        )
    if params.pids is not None and params.pids != now.pids:
        options["pids"], before["pids"] = params.pids, now.pids
        yield Note(text=f"processes: {now.pids or 'no limit'} now")
    if params.restart is not None and params.restart != now.restart:
        options["restart"], before["restart"] = str(params.restart), now.restart
        yield Note(text=f"restart policy: {now.restart} now")
    if not options:
        yield Note(text="it has these limits already: there is nothing to do")
        return
    yield Undo(
        action="container.update",
        params={"engine": params.engine, "container": params.container, **before},
    )
    yield EngineCall(
        engine=params.engine,
        operation="container.update",
        target=params.container,
        options=tuple(options.items()),
    )


def _made(params: CreateParams, facts: Facts) -> Planned:
    answering(facts, params.engine)
    if facts.containers.get(params.engine, params.container) is not None:
        raise RefusedError(
            f"there is a container {params.container} already", hint="choose another name"
        )
    found = find_image(facts, params.engine, params.image)
    if found is None:
        raise RefusedError(
            f"there is no image {params.image} in {params.engine} on this node",
            hint="pull it first",
        )
    _enough(params.memory_mib)
    yield from _checked_volumes(params, facts)
    _checked_networks(params, facts)
    _checked_ports(params, facts)
    yield Undo(
        action="container.remove",
        params={"engine": params.engine, "container": params.container, "force": True},
    )
    yield EngineCall(
        engine=params.engine,
        operation="container.create",
        options=tuple(_options(params).items()),
    )


def _options(params: CreateParams) -> dict[str, object]:
    published = [match for one in params.ports if (match := _PORT.fullmatch(one))]
    every: dict[str, object] = {
        "name": params.container,
        "image": params.image,
        "command": params.command,
        "env": params.env,
        "ports": tuple(
            (f"{one['port']}/{one['protocol']}", one["address"].strip("[]"), int(one["host"]))
            for one in published
        ),
        "volumes": tuple(mounts(params)),
        "networks": params.networks,
        "restart": "" if params.restart is RestartPolicy.NO else str(params.restart),
        "cpus": params.cpus,
        "memory_bytes": params.memory_mib * _MIB,
        "pids": params.pids,
        "labels": tuple((n, v) for n, _, v in (one.partition("=") for one in params.labels)),
        "user": params.user,
        "read_only": params.read_only,
        "drop_capabilities": params.drop_capabilities,
    }
    return {name: value for name, value in every.items() if value}


def _enough(memory_mib: int) -> None:
    if 0 < memory_mib < _SMALLEST_MIB:
        raise RefusedError(
            f"{memory_mib} MiB of memory are too few", hint=f"give it {_SMALLEST_MIB} or more"
        )


def _checked_volumes(params: CreateParams, facts: Facts) -> Generator[Note, None, None]:
    known = {
        one.name: one
        for one in facts.containers.volumes(with_sizes=False)
        if one.engine == params.engine
    }
    for name, _, _ in mounts(params):
        volume = known.get(name)
        if volume is None:
            yield Note(text=f"the volume {name} is made, empty")
        elif volume.driver != "local" or volume.options:
            # With options a volume of the local driver is any folder or device of the host.
            raise RefusedError(
                f"the volume {name} has options of its driver: it may be a folder of the host",
                hint="use a volume without them",
            )
        elif volume.used_by:
            yield Note(text=f"the volume {name} is used by {', '.join(volume.used_by)} as well")


def _checked_networks(params: CreateParams, facts: Facts) -> None:
    if params.networks == ("none",):
        return  # Podman does not list it
    known = {one.name: one for one in facts.containers.networks() if one.engine == params.engine}
    for name in params.networks:
        network = known.get(name)
        if network is None:
            raise RefusedError(f"there is no network {name}", hint="make it first")
        if network.driver not in _DRIVERS:
            raise RefusedError(
                f"the network {name} is of the driver {network.driver}, which reaches past the"
                " engine",
                hint="use a network of the driver bridge",
            )


def _checked_ports(params: CreateParams, facts: Facts) -> None:
    taken = {(one.protocol, one.port): one for one in facts.sockets.listeners()}
    for one in params.ports:
        match = _PORT.fullmatch(one)
        holder = taken.get((match["protocol"], int(match["host"]))) if match else None
        address = match["address"].strip("[]") if match else ""
        everywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
        if holder is not None and (
            holder.address == address or {holder.address, address} & everywhere
        ):
            raise RefusedError(
                f"port {holder.port}/{holder.protocol} is taken by"
                f" {holder.comm or holder.container or 'another program'}",
                hint="choose another port of the host",
            )
