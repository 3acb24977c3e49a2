"""Open a terminal in a container."""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions.containerparams import EngineName, container_targets
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Danger, Params, Planned, Target, action

NameOrId = Annotated[
    str,
    Field(
        title="Container",
        description="A name or an id, as the engine knows it.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}$",
        examples=["web"],
    ),
]
Word = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]

SHELL: Final = ("/bin/sh",)


class ExecParams(Params):
    """Parameters of container.exec: as whom it runs is the container's own setting."""

    container: NameOrId
    command: Annotated[
        tuple[Word, ...],
        Field(title="Command", description="Word by word.", min_length=1, max_length=16),
    ] = SHELL
    columns: Annotated[int, Field(title="Columns", ge=1, le=1000, strict=True)] = 80
    rows: Annotated[int, Field(title="Rows", ge=1, le=1000, strict=True)] = 24

    @property
    @override
    def resource(self) -> str:
        return f"container/{self.container}"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("container", (self.container,))
        # Of whichever engine it is: one that does not answer has none to enter either.
        for one in facts.containers.list():
            if self.container in {one.name, one.id, one.id[:12]}:
                yield from container_targets(facts, EngineName(one.engine), one.name)


@action(
    name="container.exec",
    title="Open a terminal in a container",
    danger=Danger.DISRUPTIVE,
    live=True,
)
def execute(_params: ExecParams, _facts: Facts) -> Planned:
    """Run a command in a container, with a terminal of its own, as the container's own user.

    Who opens it can do there whatever that user can. It is opened live, not run: it has no plan.
    """
    yield from ()
    raise RefusedError(
        "a terminal is opened live: it has no plan and no run",
        hint="open it from the container's page",
    )
