"""Ask about Compose projects, as labels and the files on disk tell of them."""

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


class Service(Result):
    """One service of a project: so many of its containers run."""

    name: str
    containers: tuple[str, ...]
    running: int


class File(Result):
    """A file that a project's labels name; ``problem`` says why it cannot be used.

    ``content`` is ``None`` in lists, and for what cannot be used.
    """

    path: str
    problem: str
    owner_uid: int
    is_writable_by_others: bool
    content: str | None = None


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
    """One project with its files' content, or ``None`` where there is none by that name."""

    project: Project | None


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
    """Tell about one Compose project, with what stands in its files."""
    for one in facts.containers.projects():
        if one.engine == params.engine and one.name == params.project:
            return ProjectDetail(project=_shown(one, facts))
    return ProjectDetail(project=None)


def _shown(project: ProjectFact, facts: Facts | None = None) -> Project:
    """Show a project; with ``facts`` its files are read."""
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
                content=facts.files.read(one.path) if facts and not one.problem else None,
            )
            for one in project.files
        ),
        services=tuple(
            Service(name=one.name, containers=one.containers, running=one.running)
            for one in project.services
        ),
    )
