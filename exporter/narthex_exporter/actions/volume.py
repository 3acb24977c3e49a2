"""Act on volumes: make, remove."""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions.containerparams import (
    NEEDS,
    Engine,
    EngineName,
    VolumeName,
    answering,
    resource,
    several,
    size,
)
from narthex_exporter.contract.containerfacts import VolumeFact
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import EngineCall, Note, Undo

_PRUNE_SECONDS: Final = 600
_MOST: Final = 500
_NAMELESS_CHARACTERS: Final = 64


class VolumeParams(Params):
    """What names one volume."""

    engine: Engine = EngineName.DOCKER
    volume: VolumeName

    @property
    @override
    def resource(self) -> str:
        return resource("volume", self.engine, self.volume)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("volume", (self.volume,))
        found = _find(self, facts)
        if found is not None and found.project:
            yield Target("project", (found.project,), "the volume belongs to it", by_the_way=True)


class PruneParams(Params):
    """Parameters of volume.prune."""

    engine: Engine = EngineName.DOCKER
    named: Annotated[
        bool,
        Field(
            title="Those with a name too",
            description="All that no container uses, not only nameless ones.",
            strict=True,
        ),
    ] = False

    @property
    @override
    def resource(self) -> str:
        return resource("volume", self.engine, "unused" if self.named else "nameless")

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        for one in _unused(self, facts, with_sizes=False):
            yield Target("volume", (one.name,), "nothing uses it")
            if one.project:
                why = f"the volume {one.name} belongs to it"
                yield Target("project", (one.project,), why, by_the_way=True)


def as_it_is(params: VolumeParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001, ARG001
    """Tell whether the volume is there."""
    found = _find(params, facts)
    return Aftermath(state={"exists": found is not None})


@action(
    name="volume.create",
    title="Make a volume",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    after=as_it_is,
)
def create(params: VolumeParams, facts: Facts) -> Planned:
    """Make one empty volume, kept by the engine in its own folder."""
    answering(facts, params.engine)
    if _find(params, facts) is not None:
        yield Note(text=f"the volume {params.volume} is there already: there is nothing to do")
        return
    yield Undo(action="volume.remove", params={"engine": params.engine, "volume": params.volume})
    yield EngineCall(
        engine=params.engine, operation="volume.create", options=(("name", params.volume),)
    )


@action(
    name="volume.remove",
    title="Remove a volume",
    danger=Danger.DESTRUCTIVE,
    needs=NEEDS,
    timeout_seconds=100,
    after=as_it_is,
)
def remove(params: VolumeParams, facts: Facts) -> Planned:
    """Remove one volume and all that it holds: that is lost."""
    answering(facts, params.engine)
    found = _find(params, facts, with_sizes=True)
    if found is None:
        raise RefusedError(
            f"there is no volume {params.volume} in {params.engine} on this node",
            hint="check the name in Volumes",
        )
    if found.used_by:
        raise RefusedError(
            f"the volume {found.name} is used by {several(found.used_by)}",
            hint="remove these containers first",
        )
    yield Note(text=_told(found))
    yield EngineCall(engine=params.engine, operation="volume.remove", target=found.name)


@action(
    name="volume.prune",
    title="Remove unused volumes",
    danger=Danger.DESTRUCTIVE,
    needs=NEEDS,
    timeout_seconds=_PRUNE_SECONDS,
)
def prune(params: PruneParams, facts: Facts) -> Planned:
    """Remove the volumes that no container uses: exactly those that are listed here.

    All that they hold is lost.
    """
    answering(facts, params.engine)
    found = _unused(params, facts, with_sizes=True)
    if not found:
        yield Note(text="no volume is unused: there is nothing to do")
        return
    yield Note(
        text=f"{len(found)} volumes, {size(sum(one.size_bytes or 0 for one in found))} together"
    )
    for one in found:
        yield Note(text=_told(one))
    yield EngineCall(
        engine=params.engine,
        operation="volume.prune",
        options=(("names", tuple(one.name for one in found)),),
        timeout_seconds=float(_PRUNE_SECONDS),
    )


def _find(params: VolumeParams, facts: Facts, *, with_sizes: bool = False) -> VolumeFact | None:
    every = facts.containers.volumes(with_sizes=with_sizes)
    mine = (one for one in every if one.engine == params.engine)
    return next((one for one in mine if one.name == params.volume), None)


def _unused(params: PruneParams, facts: Facts, *, with_sizes: bool) -> list[VolumeFact]:
    every = facts.containers.volumes(with_sizes=with_sizes)
    return [
        one
        for one in every
        if one.engine == params.engine and not one.used_by and (params.named or _nameless(one))
    ][:_MOST]


def _nameless(one: VolumeFact) -> bool:
    return len(one.name) == _NAMELESS_CHARACTERS and set(one.name) <= set("0123456789abcdef")


def _told(one: VolumeFact) -> str:
    held = "size not known" if one.size_bytes is None else size(one.size_bytes)
    # A project that is down has no containers, and its volumes still are its data.
    whose = f", of the Compose project {one.project}" if one.project else ""
    return f"{one.name}: {held}{whose}"
