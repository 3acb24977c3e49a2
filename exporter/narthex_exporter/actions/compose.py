"""Act on Compose projects by the real program, on the files that stand on the node's disk.

Nothing is taken into a database of ours: the files are the truth, and labels tell where they are.
"""

import re
from collections.abc import Generator, Iterable
from typing import Annotated, Final

from pydantic import Field
from typing_extensions import override

from narthex_exporter.actions.containerparams import (
    NEEDS,
    Engine,
    EngineName,
    ProjectName,
    find_project,
    resource,
    several,
    unprotected,
)
from narthex_exporter.contract.containerfacts import ContainerFact, ProjectFact
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Aftermath, Danger, Params, Planned, Target, action
from narthex_exporter.contract.steps import Note, RunProgram, Undo, WriteFile

_JOB_SECONDS: Final = 1800
_CHECK_SECONDS: Final = 60
CONTENT_CHARACTERS: Final = 128 * 1024
_COMPOSE: Final = re.compile(r"(?m)^[\"']?(?:services|include)[\"']?\s*:")

FilePath = Annotated[
    str,
    Field(
        title="File",
        description="One of the project's own files.",
        examples=["/srv/shop/compose.yaml"],
        pattern=r"^/[^\x00-\x1f\x7f]+$",
        max_length=4096,
    ),
]
Content = Annotated[
    str,
    Field(
        title="Content",
        description="The whole file.",
        max_length=CONTENT_CHARACTERS,
        pattern=r"^[^\x00]*$",
    ),
]


class ProjectParams(Params):
    """What names one project."""

    engine: Engine = EngineName.DOCKER
    project: ProjectName

    @property
    @override
    def resource(self) -> str:
        return resource("compose", self.engine, self.project)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("project", (self.project,))
        for one in _containers(self, facts):
            why = f"it belongs to {self.project}"
            yield Target("container", (one.name, one.id[:12]), why, by_the_way=True)


class CheckParams(ProjectParams):
    """Parameters of compose.check: what stands on the disk, or a file that is not there yet."""

    file: Annotated[str, Field(title="File", max_length=4096, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    content: Content = ""


class EditParams(ProjectParams):
    """Parameters of compose.edit."""

    file: FilePath
    content: Content

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield from super().targets(facts)
        yield Target("file", (self.file,), f"it belongs to {self.project}")


def as_it_is(params: ProjectParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell each service's containers, and contradict a success with what does not run."""
    found = _containers(params, facts)
    state = {one.name: one.health or one.state for one in found}
    return Aftermath(state=state) if state or failed else Aftermath(state={"containers": 0})


def as_up(params: ProjectParams, facts: Facts, failed: bool) -> Aftermath:  # noqa: FBT001
    """Tell the containers, and contradict a start of what did not stay up."""
    found = as_it_is(params, facts, failed)
    down = [
        one.name
        for one in _containers(params, facts)
        if one.state in {"restarting", "dead"} or (one.state == "exited" and one.exit_code)
    ]
    if failed or not down:
        return found
    return Aftermath(state=found.state, contradiction=f"not up: {several(down)}")


@action(
    name="compose.check",
    title="Check a Compose file",
    danger=Danger.SAFE,
    needs=NEEDS,
    timeout_seconds=_CHECK_SECONDS,
)
def check(params: CheckParams, facts: Facts) -> Planned:
    """Have Compose read the project's files, or one of them with another content.

    Nothing is written, and nothing is started.
    """
    project = find_project(facts, params.engine, params.project)
    if params.content and not params.file:
        raise RefusedError("the content belongs to no file", hint="name the file that it is for")
    if params.content:
        _own_file(project, params.file)
    # A browser's form ends lines in its own way.
    yield _checked(facts, project, params.file, params.content.replace("\r\n", "\n"))


@action(
    name="compose.up",
    title="Bring a Compose project up",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_JOB_SECONDS,
    after=as_up,
    settle_seconds=1.0,
)
def up(params: ProjectParams, facts: Facts) -> Planned:
    """Make the project's containers what its files say, and start them.

    Containers whose description has changed are made anew: their connections are dropped.
    """
    project = find_project(facts, params.engine, params.project)
    yield from _trusted(project)
    for one in _containers(params, facts):
        unprotected(one)
    yield _checked(facts, project)
    yield _compose(facts, project, "up", "--detach")


@action(
    name="compose.down",
    title="Take a Compose project down",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    timeout_seconds=_JOB_SECONDS,
    after=as_it_is,
)
def down(params: ProjectParams, facts: Facts) -> Planned:
    """Stop and remove the project's containers and networks. Its volumes stay.

    Afterwards nothing here tells of the project: to stop it for a while, stop it instead.
    """
    project = find_project(facts, params.engine, params.project)
    yield from _trusted(project)
    mine = _containers(params, facts)
    for one in mine:
        unprotected(one)
    yield Note(text=f"removed are {several(one.name for one in mine)}")
    files = " ".join(f"-f {one.path}" for one in project.files)
    yield Note(
        text="to bring it up again, on the node: docker compose"
        f" -p {project.name} --project-directory {project.working_dir} {files} up -d"
    )
    yield _compose(facts, project, "down")


@action(
    name="compose.stop",
    title="Stop a Compose project",
    danger=Danger.DISRUPTIVE,
    needs=NEEDS,
    inverse="compose.start",
    timeout_seconds=_JOB_SECONDS,
    after=as_it_is,
)
def stop(params: ProjectParams, facts: Facts) -> Planned:
    """Stop the project's containers, and keep them."""
    project = find_project(facts, params.engine, params.project)
    yield from _trusted(project)
    mine = _containers(params, facts)
    for one in mine:
        unprotected(one)
    if not any(one.is_up for one in mine):
        yield Note(text=f"nothing of {project.name} runs: there is nothing to do")
        return
    yield Note(text=f"stopped are {several(one.name for one in mine if one.is_up)}")
    yield _compose(facts, project, "stop")


@action(
    name="compose.start",
    title="Start a Compose project",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    inverse="compose.stop",
    timeout_seconds=_JOB_SECONDS,
    after=as_up,
    settle_seconds=1.0,
)
def start(params: ProjectParams, facts: Facts) -> Planned:
    """Start the project's containers as they are, whatever its files say by now."""
    project = find_project(facts, params.engine, params.project)
    yield from _trusted(project)
    if all(one.is_up for one in _containers(params, facts)):
        yield Note(text=f"all of {project.name} runs: there is nothing to do")
        return
    yield _compose(facts, project, "start")


@action(
    name="compose.pull",
    title="Pull a Compose project's images",
    danger=Danger.SAFE,
    needs=NEEDS,
    timeout_seconds=_JOB_SECONDS,
)
def pull(params: ProjectParams, facts: Facts) -> Planned:
    """Fetch the images that the project's files name. What runs stays as it is."""
    project = find_project(facts, params.engine, params.project)
    yield from _trusted(project)
    yield Note(text="which images its files name is not checked against the node's registries")
    yield _compose(facts, project, "pull")


@action(
    name="compose.edit",
    title="Change a Compose file",
    danger=Danger.REVERSIBLE,
    needs=NEEDS,
    timeout_seconds=_CHECK_SECONDS,
    root_equivalent=True,
)
def edit(params: EditParams, facts: Facts) -> Planned:
    """Replace one of the project's files, once Compose has read the new one without complaint.

    Nothing that runs is changed before the project is brought up. What such a file says is done
    as root: so to change it equals root access.
    """
    project = find_project(facts, params.engine, params.project)
    yield from _trusted(project)
    path = _own_file(project, params.file)
    before = facts.files.read(path)
    if before is None:
        raise RefusedError(f"there is no file {path} any more")
    if not _COMPOSE.search(params.content):
        raise RefusedError(
            "the new content has no services: it is not a Compose file",
            hint="to remove all services take the project down",
        )
    content = params.content.replace("\r\n", "\n")
    if before == content:
        yield Note(text="that is what the file says already: there is nothing to do")
        return
    yield Undo(action="compose.edit", params={**params.model_dump(mode="json"), "content": before})
    yield _checked(facts, project, path, content)
    yield WriteFile(path=path, content=content, before=before)


def _containers(params: ProjectParams, facts: Facts) -> list[ContainerFact]:
    every = facts.containers.list()
    return [one for one in every if one.engine == params.engine and one.project == params.project]


def _own_file(project: ProjectFact, path: str) -> str:
    for one in project.files:
        if one.path == path:
            if one.problem:
                raise RefusedError(f"{path} {one.problem}", hint="look at it on the node")
            return path
    raise RefusedError(
        f"{path} is not a file of the project {project.name}",
        hint=f"its files are {several(one.path for one in project.files) or 'not known'}",
    )


def _trusted(project: ProjectFact) -> Generator[Note, None, None]:
    """Refuse what somebody else than its owner could have written: it is done as root."""
    if not project.files or not project.working_dir.startswith("/"):
        raise RefusedError(
            f"the labels of {project.name} do not tell where its files are",
            hint="bring it up with a newer Compose, on the node",
        )
    for one in project.files:
        if one.problem:
            raise RefusedError(f"{one.path} {one.problem}", hint="look at it on the node")
        if one.is_writable_by_others:
            raise RefusedError(
                f"{one.path} or its folder can be written by others than its owner, who would"
                " then act as root",
                hint=f"on the node: chmod go-w {one.path}, and its folder",
            )
        if one.owner_uid > 0:
            yield Note(text=f"{one.path} belongs to user {one.owner_uid}: what it says is done")


def _checked(
    facts: Facts, project: ProjectFact, replaced: str = "", content: str = ""
) -> RunProgram:
    """Have Compose read the files, one of them from its input if need be."""
    return RunProgram(
        argv=(*_start(facts, project, replaced if content else ""), "config", "--quiet"),
        stdin=content,
        timeout_seconds=float(_CHECK_SECONDS) - 5.0,
    )


def _compose(facts: Facts, project: ProjectFact, *words: str) -> RunProgram:
    return RunProgram(argv=(*_start(facts, project), *words), timeout_seconds=float(_JOB_SECONDS))


def _start(facts: Facts, project: ProjectFact, replaced: str = "") -> tuple[str, ...]:
    program = facts.containers.compose(project.engine)
    if not program:
        raise RefusedError(
            "there is no docker compose on this node",
            hint="install docker-compose-plugin or docker-compose",
        )
    files = ("-" if one.path == replaced else one.path for one in project.files)
    return (
        *program,
        "--ansi", "never",
        "--project-name", project.name,
        "--project-directory", project.working_dir,
        *(word for path in files for word in ("--file", path)),
    )  # fmt: skip
