"""Act on images: pull, tag, remove."""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions.containerparams import (
    NEEDS,
    Engine,
    EngineName,
    ImageName,
    ImageOrId,
    answering,
    find_image,
    image_targets,
    is_id,
    normal,
    repository_and_tag,
    resource,
    several,
    size,
)
from narthex_exporter.contract.containerfacts import ImageFact
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import EngineCall, Note, Undo

_PULL_SECONDS: Final = 1800
_PRUNE_SECONDS: Final = 600
_MOST: Final = 500


class ImageParams(Params):
    """Parameters of image.pull."""

    engine: Engine = EngineName.DOCKER
    image: ImageName

    @property
    @override
    def resource(self) -> str:
        return resource("image", self.engine, self.image)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        return image_targets(facts, self.engine, self.image)


class KnownImageParams(Params):
    """Parameters of image.remove."""

    engine: Engine = EngineName.DOCKER
    image: ImageOrId

    @property
    @override
    def resource(self) -> str:
        return resource("image", self.engine, self.image)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        # To let an image go is not to let it in: registries do not matter for that.
        return [
            Target(one.kind, one.names, one.why, by_the_way=True)
            for one in image_targets(facts, self.engine, self.image)
        ]


class TagParams(KnownImageParams):
    """Parameters of image.tag."""

    name: Annotated[ImageName, Field(title="New name", description="With its tag.")]

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        # Else an image of any registry could be given the name of one that is allowed.
        yield from image_targets(facts, self.engine, self.image)
        yield from image_targets(facts, self.engine, self.name)


class PruneParams(Params):
    """Parameters of image.prune."""

    engine: Engine = EngineName.DOCKER
    unused: Annotated[
        bool,
        Field(
            title="Those with a name too",
            description="All that no container uses, not only those without a name.",
            strict=True,
        ),
    ] = False

    @property
    @override
    def resource(self) -> str:
        return resource("image", self.engine, "unused" if self.unused else "nameless")


def as_it_is(
    params: ImageParams | KnownImageParams,
    facts: Facts,
    failed: bool,  # noqa: FBT001, ARG001
) -> Aftermath:
    """Tell whether the image is there, and which."""
    found = find_image(facts, params.engine, params.image)
    if found is None:
        return Aftermath(state={"exists": False})
    return Aftermath(
        state={"exists": True, "id": found.id, "size_bytes": found.size_bytes,
               "names": ", ".join(found.tags)}
    )  # fmt: skip


@action(
    name="image.pull",
    title="Pull an image",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    timeout_seconds=_PULL_SECONDS,
    after=as_it_is,
)
def pull(params: ImageParams, facts: Facts) -> Planned:
    """Fetch one image from its registry, with the credentials that root has on the node.

    Containers keep the image that they run; a newer one by the same name is for those made later.
    """
    answering(facts, params.engine)
    full = normal(params.image)
    repository, tag = repository_and_tag(full)
    before = find_image(facts, params.engine, params.image)
    if before is not None:
        yield Note(text=f"{params.image} is {before.id[:19]} here now, {size(before.size_bytes)}")
        if before.used_by:
            yield Note(text=f"made of it, and kept as they are: {several(before.used_by)}")
    if "@" not in full:
        yield _undone(params.engine, full, before)
    yield EngineCall(
        engine=params.engine,
        operation="image.pull",
        target=repository,
        options=(("tag", tag),),
        timeout_seconds=float(_PULL_SECONDS),
    )


@action(
    name="image.tag",
    title="Give an image another name",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    after=as_it_is,
)
def tag(params: TagParams, facts: Facts) -> Planned:
    """Give one image a further name; whatever went by that name no longer does."""
    found = _found(params, facts)
    if "@" in params.name or is_id(params.name):
        raise RefusedError("a digest is no name to give", hint="give a name with a tag")
    full = normal(params.name)
    before = find_image(facts, params.engine, params.name)
    if before is not None and before.id == found.id:
        yield Note(text=f"it goes by {params.name} already: there is nothing to do")
        return
    if before is not None:
        yield Note(text=f"{params.name} is {before.id[:19]} now")
    yield _undone(params.engine, full, before)
    repository, name = repository_and_tag(full)
    yield EngineCall(
        engine=params.engine,
        operation="image.tag",
        target=found.id,
        options=(("repository", repository), ("tag", name)),
    )


@action(
    name="image.remove",
    title="Remove an image",
    danger=Danger.DESTRUCTIVE,
    needs=NEEDS,
    timeout_seconds=100,
    after=as_it_is,
)
def remove(params: KnownImageParams, facts: Facts) -> Planned:
    """Remove one image, or one of its names where it has several.

    One that no registry holds is lost.
    """
    found = _found(params, facts)
    by_id = is_id(params.image)
    if by_id and len(found.tags) > 1:
        raise RefusedError(
            f"it goes by several names: {several(found.tags)}", hint="remove it by each of them"
        )
    if not by_id and len(found.tags) > 1:
        others = [one for one in found.tags if normal(one) != normal(params.image)]
        yield Note(text=f"only this name goes; the image stays as {several(others)}")
    elif found.used_by:
        raise RefusedError(
            f"{params.image} is used by {several(found.used_by)}",
            hint="remove these containers first",
        )
    else:
        yield Note(text=f"{size(found.size_bytes)}, without the layers that others share")
    if not found.digests:
        yield Note(text="it came from no registry: it cannot be pulled again")
    yield EngineCall(engine=params.engine, operation="image.remove", target=params.image)


@action(
    name="image.prune",
    title="Remove unused images",
    danger=Danger.DESTRUCTIVE,
    needs=NEEDS,
    timeout_seconds=_PRUNE_SECONDS,
)
def prune(params: PruneParams, facts: Facts) -> Planned:
    """Remove the images that no container uses: exactly those that are listed here."""
    answering(facts, params.engine)
    found = [
        one
        for one in facts.containers.images()
        if one.engine == params.engine and not one.used_by and (one.is_dangling or params.unused)
    ][:_MOST]
    if not found:
        yield Note(text="no image is unused: there is nothing to do")
        return
    total = size(sum(one.size_bytes for one in found))
    yield Note(text=f"{len(found)} images, {total} together; layers that they share count twice")
    for one in found:
        told = ", ".join(one.tags) or f"nameless {one.id[7:19]}"
        lost = "" if one.digests else ", in no registry"
        yield Note(text=f"{told}: {size(one.size_bytes)}{lost}")
    # By their names, so that one which gets another name meanwhile stays.
    names = tuple(name for one in found for name in (one.tags or (one.id,)))
    yield EngineCall(
        engine=params.engine,
        operation="image.prune",
        options=(("names", names),),
        timeout_seconds=float(_PRUNE_SECONDS),
    )


def _found(params: KnownImageParams, facts: Facts) -> ImageFact:
    answering(facts, params.engine)
    found = find_image(facts, params.engine, params.image)
    if found is None:
        raise RefusedError(
            f"there is no image {params.image} in {params.engine} on this node",
            hint="check the name in Images",
        )
    return found


def _undone(engine: EngineName, name: str, before: ImageFact | None) -> Undo:
    """Give a name back to what had it, or take it away where nothing had."""
    if before is None:
        return Undo(action="image.remove", params={"engine": engine, "image": name})
    return Undo(action="image.tag", params={"engine": engine, "image": before.id, "name": name})
