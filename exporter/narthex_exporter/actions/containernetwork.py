"""Act on the networks of container engines."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions.containerparams import (
    NEEDS,
    ContainerName,
    Engine,
    EngineName,
    NetworkName,
    answering,
    container_targets,
    find_container,
    noticed,
    resource,
    several,
    unprotected,
)
from narthex_exporter.contract.containerfacts import NetworkFact
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import EngineCall, Note, Undo


class NetworkParams(Params):
    """What names one network."""

    engine: Engine = EngineName.DOCKER
    network: NetworkName

    @property
    @override
    def resource(self) -> str:
        return resource("container-network", self.engine, self.network)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("network", (self.network,))
        found = _find(self, facts)
        if found is not None and found.project:
            yield Target("project", (found.project,), "the network belongs to it", by_the_way=True)


class CreateParams(NetworkParams):
    """Parameters of container-network.create."""

    internal: Annotated[
        bool,
        Field(
            title="Internal", description="Nothing on it reaches the world outside.", strict=True
        ),
    ] = False


class MemberParams(NetworkParams):
    """Parameters of container-network.connect and disconnect."""

    container: ContainerName

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield from container_targets(facts, self.engine, self.container)
        yield Target("network", (self.network,))


class PruneParams(Params):
    """Parameters of container-network.prune."""

    engine: Engine = EngineName.DOCKER

    @property
    @override
    def resource(self) -> str:
        return resource("container-network", self.engine, "unused")

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        for one in _unused(self, facts):
            yield Target("network", (one.name,), "nothing uses it")


def as_it_is(params: NetworkParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001, ARG001
    """Tell whether the network is there, and who is on it."""
    found = _find(params, facts)
    if found is None:
        return Aftermath(state={"exists": False})
    return Aftermath(state={"exists": True, "used_by": ", ".join(found.used_by)})


@action(
    name="container-network.create",
    title="Make a network for containers",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    after=as_it_is,
)
def create(params: CreateParams, facts: Facts) -> Planned:
    """Make one network of the driver bridge; the engine chooses its addresses."""
    answering(facts, params.engine)
    if _find(params, facts) is not None:
        yield Note(text=f"the network {params.network} is there already: there is nothing to do")
        return
    yield Undo(
        action="container-network.remove",
        params={"engine": params.engine, "network": params.network},
    )
    yield EngineCall(
        engine=params.engine,
        operation="network.create",
        options=(("name", params.network), ("internal", params.internal)),
    )


@action(
    name="container-network.remove",
    title="Remove a network of containers",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    after=as_it_is,
)
def remove(params: NetworkParams, facts: Facts) -> Planned:
    """Remove one network that no container is on.

    Its addresses are free for others then.
    """
    found = _known(params, facts)
    if found.is_built_in:
        raise RefusedError(f"the network {found.name} is the engine's own")
    if found.used_by:
        raise RefusedError(
            f"the network {found.name} is used by {several(found.used_by)}",
            hint="disconnect or remove these containers first",
        )
    yield Note(text=_told(found))
    yield EngineCall(engine=params.engine, operation="network.remove", target=found.name)


@action(
    name="container-network.connect",
    title="Connect a container to a network",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="container-network.disconnect",
    after=as_it_is,
)
def connect(params: MemberParams, facts: Facts) -> Planned:
    """Put one container on one more network: what is on it reaches the container, and it them."""
    container = find_container(facts, params.engine, params.container)
    network = _known(params, facts)
    if network.driver not in {"bridge", "overlay"}:
        raise RefusedError(
            f"the network {network.name} is of the driver {network.driver}, which reaches past"
            " the engine",
            hint="use a network of the driver bridge",
        )
    if network.name in container.networks:
        yield Note(text=f"{container.name} is on {network.name} already: there is nothing to do")
        return
    if network.used_by:
        yield Note(text=f"on that network: {several(network.used_by)}")
    yield _member("network.connect", params)


@action(
    name="container-network.disconnect",
    title="Take a container off a network",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    inverse="container-network.connect",
    after=as_it_is,
)
def disconnect(params: MemberParams, facts: Facts) -> Planned:
    """Take one container off one network; its connections there are dropped."""
    container = find_container(facts, params.engine, params.container)
    unprotected(container)
    network = _known(params, facts)
    if network.name not in container.networks:
        yield Note(text=f"{container.name} is not on {network.name}: there is nothing to do")
        return
    yield from noticed(container, facts)
    if container.networks == (network.name,):
        yield Note(text="it is on no other network: nothing will reach it then")
    yield _member("network.disconnect", params)


@action(
    name="container-network.prune",
    title="Remove unused networks of containers",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=100,
)
def prune(params: PruneParams, facts: Facts) -> Planned:
    """Remove the networks that no container is on: exactly those that are listed here."""
    answering(facts, params.engine)
    found = _unused(params, facts)
    if not found:
        yield Note(text="no network is unused: there is nothing to do")
        return
    for one in found:
        yield Note(text=_told(one))
    yield EngineCall(
        engine=params.engine,
        operation="network.prune",
        options=(("names", tuple(one.name for one in found)),),
    )


def _find(params: NetworkParams, facts: Facts) -> NetworkFact | None:
    every = facts.containers.networks()
    mine = (one for one in every if one.engine == params.engine)
    return next((one for one in mine if one.name == params.network), None)


def _known(params: NetworkParams, facts: Facts) -> NetworkFact:
    answering(facts, params.engine)
    found = _find(params, facts)
    if found is None:
        raise RefusedError(
            f"there is no network {params.network} in {params.engine} on this node",
            hint="check the name in Networks",
        )
    return found


def _unused(params: PruneParams, facts: Facts) -> list[NetworkFact]:
    return [
        one
        for one in facts.containers.networks()
        if one.engine == params.engine and not one.used_by and not one.is_built_in
    ]


def _told(one: NetworkFact) -> str:
    whose = f", of the Compose project {one.project}" if one.project else ""
    return f"{one.name}: {one.driver} {', '.join(one.subnets) or 'without addresses'}{whose}"


def _member(operation: str, params: MemberParams) -> EngineCall:
    return EngineCall(
        engine=params.engine,
        operation=operation,
        target=params.network,
        options=(("container", params.container),),
    )
