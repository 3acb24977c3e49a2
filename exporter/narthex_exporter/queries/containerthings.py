"""Ask about the images, volumes and networks of container engines."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.containerparams import NEEDS
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import QueryParams, Result, query
from narthex_exporter.queries.container import EngineState, engines, instant


class NoParams(QueryParams):
    """Parameters of what is asked of all engines: none."""


class VolumeParams(QueryParams):
    """Parameters of volume.list."""

    with_sizes: Annotated[
        bool,
        Field(
            title="With sizes", description="The engine takes a while to add them up.", strict=True
        ),
    ] = False


class Image(Result):
    """One image; ``used_by`` are containers, running or not."""

    engine: str
    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    created_at: AwareDatetime | None
    is_dangling: bool
    used_by: tuple[str, ...]


class ImageList(Result):
    """Every image, greatest first."""

    images: tuple[Image, ...]
    engines: tuple[EngineState, ...]


class Volume(Result):
    """One volume; ``size_bytes`` is ``None`` where it was not asked for or is not told."""

    engine: str
    name: str
    driver: str
    mountpoint: str
    created_at: AwareDatetime | None
    size_bytes: int | None
    used_by: tuple[str, ...]
    project: str


class VolumeList(Result):
    """Every volume, by name."""

    volumes: tuple[Volume, ...]
    engines: tuple[EngineState, ...]


class Network(Result):
    """One network; ``used_by`` are containers, running or not."""

    engine: str
    id: str
    name: str
    driver: str
    is_internal: bool
    is_built_in: bool
    subnets: tuple[str, ...]
    used_by: tuple[str, ...]
    project: str


class NetworkList(Result):
    """Every network, by name."""

    networks: tuple[Network, ...]
    engines: tuple[EngineState, ...]


@query(name="image.list", title="Images", needs=NEEDS)
def list_images(_params: NoParams, facts: Facts) -> ImageList:
    """List the images of the node, with the containers that use them."""
    shown = tuple(
        Image(
            engine=one.engine,
            id=one.id,
            tags=one.tags,
            digests=one.digests,
            size_bytes=one.size_bytes,
            created_at=instant(one.created_seconds),
            is_dangling=one.is_dangling,
            used_by=one.used_by,
        )
        for one in facts.containers.images()
    )
    return ImageList(images=shown, engines=engines(facts))


@query(name="volume.list", title="Volumes", needs=NEEDS, timeout_seconds=15.0)
def list_volumes(params: VolumeParams, facts: Facts) -> VolumeList:
    """List the volumes of the node's container engines, with the containers that use them."""
    shown = tuple(
        Volume(
            engine=one.engine,
            name=one.name,
            driver=one.driver,
            mountpoint=one.mountpoint,
            created_at=instant(one.created_seconds),
            size_bytes=one.size_bytes,
            used_by=one.used_by,
            project=one.project,
        )
        for one in facts.containers.volumes(with_sizes=params.with_sizes)
    )
    return VolumeList(volumes=shown, engines=engines(facts))


@query(name="container-network.list", title="Networks of containers", needs=NEEDS)
def list_networks(_params: NoParams, facts: Facts) -> NetworkList:
    """List the networks of the node's container engines, with the containers on them."""
    names = Network.model_fields
    shown = tuple(
        Network(**{name: getattr(one, name) for name in names})
        for one in facts.containers.networks()
    )
    return NetworkList(networks=shown, engines=engines(facts))
