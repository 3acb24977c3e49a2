"""Ask about a node's processes."""

import datetime as dt
import enum
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.process import Pid
from narthex_exporter.contract.facts import Facts, ProcessFact
from narthex_exporter.contract.spec import QueryParams, Result, query
from narthex_exporter.queries.masking import masked

_SHOWN_CHARACTERS: Final = 512


class ProcessOrder(enum.StrEnum):
    """What stands first in a list of processes."""

    CPU = "cpu"
    MEMORY = "memory"
    PID = "pid"


class ListParams(QueryParams):
    """Parameters of process.list."""

    limit: Annotated[int, Field(title="At most", ge=1, le=5000, strict=True)] = 500
    order: Annotated[ProcessOrder, Field(title="First")] = ProcessOrder.CPU
    match: Annotated[
        str,
        Field(title="Containing", description="In command or user, case ignored.", max_length=128),
    ] = ""


class GetParams(QueryParams):
    """Parameters of process.get."""

    pid: Pid


class Process(Result):
    """One process. ``pid`` and ``start_ticks`` together identify it.

    ``cpu_ratio`` is CPU seconds per second: 1.0 is one processor, all of the time.
    """

    pid: int
    start_ticks: int
    ppid: int
    user: str
    comm: str
    cmdline: str
    state: str
    nice: int
    threads: int
    rss_bytes: int
    cpu_seconds: float
    cpu_ratio: float | None
    started_at: AwareDatetime
    is_kernel_thread: bool
    is_ours: bool
    owner_unit: str
    owner_container: str


class ProcessList(Result):
    """Some processes; ``total`` counts all that matched."""

    processes: tuple[Process, ...]
    total: int


class ProcessDetail(Result):
    """One process, or ``None`` where there is none by that number."""

    process: Process | None


@query(name="process.list", title="Processes")
def list_processes(params: ListParams, facts: Facts) -> ProcessList:
    """List the processes of the node, secrets in their command lines masked."""
    # What is searched is what is shown: else a search could guess what the mask hides.
    shown = [_shown(fact) for fact in facts.processes.list()]
    wanted = params.match.casefold()
    found = [one for one in shown if wanted in f"{one.cmdline} {one.comm} {one.user}".casefold()]
    found.sort(key=_ORDER[params.order])
    return ProcessList(processes=tuple(found[: params.limit]), total=len(found))


@query(name="process.get", title="One process")
def get_process(params: GetParams, facts: Facts) -> ProcessDetail:
    """Tell about one process."""
    fact = facts.processes.get(params.pid)
    return ProcessDetail(process=None if fact is None else _shown(fact))


_ORDER: Final[dict[ProcessOrder, Callable[[Process], tuple[float, int]]]] = {
    ProcessOrder.CPU: lambda one: (-(one.cpu_ratio or 0.0), one.pid),
    ProcessOrder.MEMORY: lambda one: (-one.rss_bytes, one.pid),
    ProcessOrder.PID: lambda one: (0, one.pid),
}


def _shown(fact: ProcessFact) -> Process:
    return Process(
        pid=fact.pid,
        start_ticks=fact.start_ticks,
        ppid=fact.ppid,
        user=fact.user,
        comm=fact.comm,
        cmdline=masked(fact.cmdline.split("\0"))[:_SHOWN_CHARACTERS],
        state=fact.state,
        nice=fact.nice,
        threads=fact.threads,
        rss_bytes=fact.rss_bytes,
        cpu_seconds=fact.cpu_seconds,
        cpu_ratio=fact.cpu_ratio,
        started_at=dt.datetime.fromtimestamp(fact.started_at_seconds, tz=dt.UTC),
        is_kernel_thread=fact.is_kernel_thread,
        is_ours=fact.is_ours,
        owner_unit=fact.owner_unit,
        owner_container=fact.owner_container,
    )
