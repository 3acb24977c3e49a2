"""Ask what containers wrote."""

import datetime as dt
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.containerparams import (
    NEEDS,
    ContainerName,
    Engine,
    EngineName,
    ProjectName,
)
from narthex_exporter.contract.containerfacts import LogFact
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import QueryParams, Result, query

_MOST_CONTAINERS: Final = 16
# A search looks at more than it shows, so that what it finds is not only what was written last.
_SEARCHED_LINES: Final = 20_000
_TEXT_BYTES: Final = 512 * 1024


class LogParams(QueryParams):
    """Parameters of container.logs."""

    engine: Engine = EngineName.DOCKER
    containers: Annotated[
        tuple[ContainerName, ...],
        Field(title="Containers", min_length=1, max_length=_MOST_CONTAINERS),
    ]
    lines: Annotated[int, Field(title="At most", ge=1, le=5000, strict=True)] = 200
    since_seconds: Annotated[
        float,
        Field(title="Since", description="Unix time; 0 for all.", ge=0, allow_inf_nan=False),
    ] = 0.0
    match: Annotated[
        str, Field(title="Containing", description="Case ignored.", max_length=256)
    ] = ""


class ProjectLogParams(QueryParams):
    """Parameters of compose.logs."""

    engine: Engine = EngineName.DOCKER
    project: ProjectName
    lines: Annotated[int, Field(title="At most", ge=1, le=5000, strict=True)] = 200
    since_seconds: Annotated[float, Field(title="Since", ge=0, allow_inf_nan=False)] = 0.0
    match: Annotated[str, Field(title="Containing", max_length=256)] = ""


class Line(Result):
    """One line that a container wrote to ``stdout`` or ``stderr``; colours are left out."""

    container: str
    stream: str
    at: AwareDatetime | None
    text: str


class LogLines(Result):
    """Some lines, oldest first, of all that was asked for.

    ``searched`` lines were looked at; ``is_cut`` tells that older ones match too, or may.
    ``problems`` tell of containers whose lines could not be read.
    """

    lines: tuple[Line, ...]
    searched: int
    is_cut: bool
    problems: tuple[str, ...] = ()


@query(name="container.logs", title="A container's logs", needs=NEEDS, timeout_seconds=15.0)
def logs(params: LogParams, facts: Facts) -> LogLines:
    """Read what containers wrote last, merged by time, as far back as their engine keeps it."""
    return merged(
        facts, params.engine, params.containers,
        lines=params.lines, since_seconds=params.since_seconds, match=params.match,
    )  # fmt: skip


@query(name="compose.logs", title="A project's logs", needs=NEEDS, timeout_seconds=15.0)
def project_logs(params: ProjectLogParams, facts: Facts) -> LogLines:
    """Read what a Compose project's containers wrote last, merged by time."""
    mine = [
        one.name
        for one in facts.containers.list()
        if one.engine == params.engine and one.project == params.project
    ]
    return merged(
        facts, params.engine, tuple(mine[:_MOST_CONTAINERS]),
        lines=params.lines, since_seconds=params.since_seconds, match=params.match,
    )  # fmt: skip


def merged(
    facts: Facts,
    engine: EngineName,
    names: tuple[str, ...],
    *,
    lines: int,
    since_seconds: float = 0.0,
    match: str = "",
) -> LogLines:
    """Read the last lines of several containers, merged by time. Raises UnavailableError."""
    wanted = match.casefold()
    found: list[LogFact] = []
    problems = []
    searched, is_cut = 0, False
    asked = _SEARCHED_LINES // len(names) if wanted and names else lines
    for name in names:
        if facts.containers.get(engine, name) is None:
            problems.append(f"there is no container {name} in {engine}")
            continue
        told = facts.containers.logs(engine, name, lines=asked, since_seconds=since_seconds)
        searched += len(told)
        is_cut = is_cut or len(told) >= asked
        found += [one for one in told if wanted in one.text.casefold()]
    # A stable sort: lines of one moment stay in the order in which they were written.
    found.sort(key=lambda one: one.at_seconds)
    kept = _newest(found[-lines:])
    return LogLines(
        lines=tuple(map(shown, kept)),
        searched=searched,
        is_cut=is_cut or len(kept) < len(found),
        problems=tuple(problems),
    )


def _newest(found: list[LogFact]) -> list[LogFact]:
    """Keep the newest lines that together are no more than an answer may be."""
    size = 0
    for index in range(len(found) - 1, -1, -1):
        size += len(found[index].text.encode())
        if size > _TEXT_BYTES:
            return found[index + 1 :]
    return found


def shown(line: LogFact) -> Line:
    """Show a line as the wire carries it."""
    at = dt.datetime.fromtimestamp(line.at_seconds, tz=dt.UTC) if line.at_seconds else None
    return Line(container=line.container, stream=line.stream, at=at, text=line.text)
