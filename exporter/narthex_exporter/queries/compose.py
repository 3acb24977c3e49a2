"""Ask about Compose projects, as labels and the files on disk tell of them."""

from narthex_exporter.actions.compose import FilePath
from narthex_exporter.actions.containerparams import (
    NEEDS,
    Engine,
    EngineName,
    ProjectName,
)
from narthex_exporter.contract.containerfacts import ProjectFact
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import QueryParams, Result, query
from narthex_exporter.queries.container import EngineState, NoParams, engines


class GetParams(QueryParams):
    """Parameters of compose.get."""

    engine: Engine = EngineName.DOCKER
    project: ProjectName


class FileParams(GetParams):
    """Parameters of compose.file."""

    file: FilePath


class Service(Result):
    """One service of a project: so many of its containers run."""

    name: str
    containers: tuple[str, ...]
    running: int


class File(Result):
    """A file that a project's labels name; ``problem`` says why it cannot be used."""

    path: str
    problem: str
    owner_uid: int
    is_writable_by_others: bool


class Project(Result):
    """One project."""

    engine: str
    name: str
    working_dir: str
    files: tuple[File, ...]
    services: tuple[Service, ...]


class ProjectList(Result):
    """Every project, by name; ``has_program`` tells of each engine whether Compose is there."""

    projects: tuple[Project, ...]
    engines: tuple[EngineState, ...]
    has_program: dict[str, bool]


class ProjectDetail(Result):
    """One project, or ``None`` where there is none by that name."""

    project: Project | None


class FileContent(Result):
    """What a file says; ``None``, and why, where it cannot be read."""

    content: str | None
    problem: str = ""


@query(name="compose.list", title="Compose projects", needs=NEEDS)
def list_projects(_params: NoParams, facts: Facts) -> ProjectList:
    """List the Compose projects that containers on this node belong to."""
    known = engines(facts)
    return ProjectList(
        projects=tuple(_shown(one) for one in facts.containers.projects()),
        engines=known,
        has_program={one.name: bool(facts.containers.compose(one.name)) for one in known},
    )


@query(name="compose.get", title="One Compose project", needs=NEEDS)
def get_project(params: GetParams, facts: Facts) -> ProjectDetail:
    """Tell about one Compose project."""
    found = _found(params, facts)
    return ProjectDetail(project=None if found is None else _shown(found))


@query(
    name="compose.file",
    title="A Compose file",
    needs=NEEDS,
    # Its text may hold passwords: whoever may only look does not see it.
    permission="action:compose.edit",
)
def get_file(params: FileParams, facts: Facts) -> FileContent:
    """Read one file of a Compose project, as it stands on the disk."""
    found = _found(params, facts)
    mine = next((one for one in found.files if one.path == params.file), None) if found else None
    if mine is None or mine.problem:
        why = "is not a file of this project" if mine is None else mine.problem
        return FileContent(content=None, problem=f"{params.file} {why}")
    return FileContent(content=facts.files.read(mine.path))


def _found(params: GetParams, facts: Facts) -> ProjectFact | None:
    every = facts.containers.projects()
    mine = (one for one in every if one.engine == params.engine)
    return next((one for one in mine if one.name == params.project), None)


def _shown(project: ProjectFact) -> Project:
    return Project(
        engine=project.engine,
        name=project.name,
        working_dir=project.working_dir,
        files=tuple(
            File(
                path=one.path,
                problem=one.problem,
                owner_uid=one.owner_uid,
                is_writable_by_others=one.is_writable_by_others,
            )
            for one in project.files
        ),
        services=tuple(
            Service(name=one.name, containers=one.containers, running=one.running)
            for one in project.services
        ),
    )
