"""Ask about the programs that supervisord keeps running."""

import datetime as dt
from typing import Annotated

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.supervisor import NEEDS, ProgramName
from narthex_exporter.contract.facts import Facts, ProgramFact
from narthex_exporter.contract.spec import QueryParams, Result, query


class ListParams(QueryParams):
    """Parameters of supervisor.list: none."""


class TailParams(QueryParams):
    """Parameters of supervisor.tail."""

    program: ProgramName
    size_bytes: Annotated[int, Field(title="Bytes", ge=1, le=1 << 18, strict=True)] = 16_384
    errors: Annotated[bool, Field(title="What it printed as errors")] = False


class Program(Result):
    """One program, in supervisord's own words."""

    name: str
    state: str
    description: str
    pid: int
    since: AwareDatetime | None
    exit_status: int | None
    problem: str


class ProgramList(Result):
    """The programs, by name."""

    programs: tuple[Program, ...]


class ProgramOutput(Result):
    """The end of what a program printed."""

    text: str


@query(name="supervisor.list", title="Programs of supervisord", needs=NEEDS)
def list_programs(_params: ListParams, facts: Facts) -> ProgramList:
    """List the programs that supervisord keeps running."""
    return ProgramList(programs=tuple(map(_shown, facts.supervisor.list())))


@query(name="supervisor.tail", title="Output of a program of supervisord", needs=NEEDS)
def tail(params: TailParams, facts: Facts) -> ProgramOutput:
    """Tell the end of what one program of supervisord printed."""
    text = facts.supervisor.tail(
        params.program, size_bytes=params.size_bytes, errors=params.errors
    )
    return ProgramOutput(text=text)


def _shown(one: ProgramFact) -> Program:
    since = one.since_seconds
    return Program(
        name=one.name,
        state=one.state,
        description=one.description,
        pid=one.pid,
        since=None if since is None else dt.datetime.fromtimestamp(since, tz=dt.UTC),
        exit_status=one.exit_status,
        problem=one.problem,
    )
