"""What the families of containers share: how things are named, found, judged and told of."""

import enum
import re
from collections.abc import Generator, Iterable, Iterator
from typing import Annotated, Final

from pydantic import Field

from narthex_exporter.contract.containerfacts import (
    ContainerFact,
    ImageFact,
    ProjectFact,
)
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Target
from narthex_exporter.contract.steps import Note

NEEDS: Final = {"containers"}
_SHOWN: Final = 8
_LATEST: Final = "latest"
_IMAGE: Final = (
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.\-]*(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_ID: Final = r"sha256:[0-9a-f]{64}"


class EngineName(enum.StrEnum):
    """The engines that are spoken to."""

    DOCKER = "docker"
    PODMAN = "podman"


Engine = Annotated[
    EngineName, Field(title="Engine", description="Which container engine of the node.")
]
ContainerName = Annotated[
    str,
    Field(
        title="Container",
        description="The container's name, not its id.",
        examples=["web-1"],
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$",
        max_length=128,
    ),
]
VolumeName = Annotated[
    str,
    Field(
        title="Volume",
        description="The volume's name; a folder of the host is none.",
        examples=["app_data"],
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]+$",
        max_length=255,
    ),
]
NetworkName = Annotated[
    str,
    Field(
        title="Network",
        description="The network's name, not its id.",
        examples=["app_default"],
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$",
        max_length=128,
    ),
]
ProjectName = Annotated[
    str,
    Field(
        title="Project",
        description="The Compose project's name.",
        examples=["shop"],
        pattern=r"^[a-z0-9][a-z0-9_\-]*$",
        max_length=128,
    ),
]
ImageName = Annotated[
    str,
    Field(
        title="Image",
        description="With its registry where that is not Docker Hub, and its tag or digest.",
        examples=["registry.example.org/shop/web:1.4"],
        pattern=f"^{_IMAGE}$",
        max_length=255,
    ),
]
ImageOrId = Annotated[
    str,
    Field(
        title="Image",
        description="Its name with the tag, or its whole id.",
        examples=["registry.example.org/shop/web:1.4"],
        pattern=f"^(?:{_ID}|{_IMAGE})$",
        max_length=255,
    ),
]


def resource(kind: str, engine: EngineName, name: str) -> str:
    """Name a thing of an engine; Docker's go without the engine's name."""
    return f"{kind}/{name}" if engine is EngineName.DOCKER else f"{kind}/{engine}/{name}"


def is_id(name: str) -> bool:
    """Tell whether an image is named by its id."""
    return re.fullmatch(_ID, name) is not None


def normal(image: str) -> str:
    """Write an image's name in full, as engines understand it: registry, path, tag or digest."""
    first, slash, rest = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = "docker.io", image if slash else f"library/{image}"
    elif first in {"index.docker.io", "registry-1.docker.io"}:
        first = "docker.io"
    if "@" not in rest and ":" not in rest.rpartition("/")[2]:
        rest = f"{rest}:{_LATEST}"
    return f"{first}/{rest}"


def repository_and_tag(image: str) -> tuple[str, str]:
    """Cut an image's name where the engine wants it cut: the tag, or the digest instead."""
    name, at, digest = image.partition("@")
    head, slash, last = name.rpartition("/")
    path, _, tag = last.partition(":")
    return f"{head}{slash}{path}", digest if at else tag or _LATEST


def find_image(facts: Facts, engine: EngineName, name: str) -> ImageFact | None:
    """Find an image by one of its names, or its whole id."""
    wanted = name if is_id(name) else normal(name)
    for one in facts.containers.images():
        if one.engine != engine:
            continue
        names = {one.id} if is_id(name) else set(map(normal, (*one.tags, *one.digests)))
        # A tag beside a digest says nothing: the digest alone decides.
        if wanted in names or _without_tag(wanted) in names:
            return one
    return None


def _without_tag(image: str) -> str:
    name, at, digest = image.partition("@")
    return f"{repository_and_tag(name)[0]}{at}{digest}" if at else image


def image_targets(facts: Facts, engine: EngineName, name: str) -> Iterable[Target]:
    """Resolve an image for the node's policy: an id to the names that it goes by."""
    if not is_id(name):
        yield Target("image", (normal(name),))
        return
    found = find_image(facts, engine, name)
    yield Target("image", tuple(map(normal, found.tags)) if found and found.tags else (name,))


def answering(facts: Facts, engine: EngineName) -> None:
    """Refuse where an engine cannot be asked. Raises RefusedError."""
    why = facts.containers.problem(engine)
    if why:
        raise RefusedError(why, hint="look at the engine's service on the node")


def find_container(facts: Facts, engine: EngineName, name: str) -> ContainerFact:
    """Find a container. Raises RefusedError."""
    answering(facts, engine)
    found = facts.containers.get(engine, name)
    if found is None:
        raise RefusedError(
            f"there is no container {name} in {engine} on this node",
            hint="check the name in Containers; ids are not taken",
        )
    return found


def unprotected(found: ContainerFact) -> None:
    """Refuse what its maker wants left alone. Raises RefusedError."""
    if found.is_protected:
        raise RefusedError(
            f"{found.name} is protected: it bears the label narthex.protected=true",
            hint="whoever made it can make it anew without that label",
        )


def container_targets(facts: Facts, engine: EngineName, name: str) -> Iterable[Target]:
    """Resolve a container for the node's policy, with the project that it belongs to."""
    found = facts.containers.get(engine, name)
    yield Target("container", (name,) if found is None else (name, found.id[:12], found.id))
    if found is not None and found.project:
        yield Target("project", (found.project,), f"{name} belongs to it", by_the_way=True)


def find_project(facts: Facts, engine: EngineName, name: str) -> ProjectFact:
    """Find a Compose project. Raises RefusedError."""
    answering(facts, engine)
    for one in facts.containers.projects():
        if one.engine == engine and one.name == name:
            return one
    raise RefusedError(
        f"there is no Compose project {name} in {engine} on this node",
        hint="a project is known by the labels of its containers, running or not",
    )


def several(names: Iterable[str]) -> str:
    """Write some names, and how many more there are."""
    found = list(names)
    more = len(found) - _SHOWN
    return ", ".join(found[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def noticed(found: ContainerFact, facts: Facts) -> Generator[Note, None, None]:
    """Tell who will notice that a container is not there for a while."""
    yield from _connected(found, facts)
    others = [one for one in facts.containers.list() if one.engine == found.engine]
    others = [one for one in others if one.is_up and one.name != found.name]
    if found.project:
        mates = [one.name for one in others if one.project == found.project]
        if mates:
            yield Note(text=f"others of the project {found.project} run on: {several(mates)}")
    for network in found.networks:
        if network in {"bridge", "host", "none", "podman"}:
            continue
        near = [
            one.name
            for one in others
            if network in one.networks and (one.project != found.project or not found.project)
        ]
        if near:
            yield Note(text=f"its network {network} is used by {several(near)} as well")


def _connected(found: ContainerFact, facts: Facts) -> Iterator[Note]:
    ports = {port.host_port for port in found.ports if port.host_port}
    if not ports or not found.is_up:
        return
    peers = sorted(
        {one.peer_address for one in facts.sockets.connections() if one.local_port in ports}
    )
    told = ", ".join(map(str, sorted(ports)))
    if peers:
        yield Note(text=f"connected to its ports ({told}) now: {several(peers)}")
    else:
        yield Note(
            text=f"it publishes the ports {told}; connections that the kernel forwards to them"
            " cannot be counted here"
        )


def size(count: float) -> str:
    """Write bytes for a note."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:  # noqa: PLR2004 - binary units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
