"""Ask about a node's processes."""

import datetime as dt
import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final

from pydantic import AwareDatetime, Field

from narthex_exporter.actions.notices import descendants
from narthex_exporter.actions.process import Pid, StartTicks
from narthex_exporter.contract.facts import ConnectionFact, Facts, ListenerFact, ProcessFact
from narthex_exporter.contract.spec import QueryParams, Result, query
from narthex_exporter.queries.masking import masked, masked_variable

_SHOWN_CHARACTERS: Final = 512
_MOST_RELATIVES: Final = 200
_MOST_SOCKETS: Final = 500


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

    user: Annotated[
        str, Field(title="Of the user", description="Exactly this name.", max_length=64)
    ] = ""
    unit: Annotated[
        str,
        Field(title="In", description="A unit, or a container's short id.", max_length=255),
    ] = ""
    port: Annotated[
        int,
        Field(
            title="On the port",
            description="Who listens on it or is connected from it here; 0 for all.",
            ge=0,
            le=65535,
            strict=True,
        ),
    ] = 0


class TreeParams(ListParams):
    """Parameters of process.tree: as those of process.list, but for the order."""

    limit: Annotated[int, Field(title="At most", ge=1, le=5000, strict=True)] = 2000


class GetParams(QueryParams):
    """Parameters of process.get."""

    pid: Pid


class EnvironmentParams(QueryParams):
    """Parameters of process.environment."""

    pid: Pid
    start_ticks: StartTicks


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
    owner_user_unit: str = ""


class ProcessList(Result):
    """Some processes; ``total`` counts all that matched."""

    processes: tuple[Process, ...]
    total: int


class Branch(Process):
    """One process in a tree; ``matches`` is false for those that only lead to one that does."""

    depth: int
    matches: bool


class ProcessTree(Result):
    """Processes, each right below its parent; ``total`` counts all that matched."""

    processes: tuple[Branch, ...]
    total: int


class OpenFile(Result):
    """One open descriptor."""

    descriptor: int
    target: str


class Endpoint(Result):
    """One socket: a listener where ``peer`` is empty."""

    protocol: str
    local: str
    peer: str = ""


class Limit(Result):
    """One resource limit, in the kernel's own words."""

    name: str
    soft: str
    hard: str
    unit: str


class Namespace(Result):
    """One namespace; ``shared`` tells whether it is the node's own."""

    kind: str
    number: int
    shared: bool


class ProcessDetail(Result):
    """One process, or ``None`` where there is none by that number.

    ``parents`` lead from the first process to it, ``children`` are what it started, each right
    below its parent. ``files`` are the first of ``files_total``. What may not be read is named in
    ``unreadable``.
    """

    process: Process | None
    parents: tuple[Process, ...] = ()
    children: tuple[Branch, ...] = ()
    executable: str = ""
    working_directory: str = ""
    root: str = ""
    files: tuple[OpenFile, ...] = ()
    files_total: int = 0
    sockets: tuple[Endpoint, ...] = ()
    limits: tuple[Limit, ...] = ()
    cgroup: str = ""
    namespaces: tuple[Namespace, ...] = ()
    unreadable: tuple[str, ...] = ()


class ProcessEnvironment(Result):
    """What a process was started with, or ``None`` when it is gone; secrets are masked."""

    variables: tuple[str, ...] | None


@query(name="process.list", title="Processes")
def list_processes(params: ListParams, facts: Facts) -> ProcessList:
    """List the processes of the node, secrets in their command lines masked."""
    found = _matching(params, facts, [_shown(fact) for fact in facts.processes.list()])
    found.sort(key=_ORDER[params.order])
    return ProcessList(processes=tuple(found[: params.limit]), total=len(found))


@query(name="process.get", title="One process")
def get_process(params: GetParams, facts: Facts) -> ProcessDetail:
    """Tell about one process."""
    fact = facts.processes.get(params.pid)
    detail = None if fact is None else facts.processes.details(fact.pid, fact.start_ticks)
    if fact is None or detail is None:
        return ProcessDetail(process=None)
    return ProcessDetail(
        process=_shown(fact),
        parents=tuple(_ancestors(fact, facts)),
        children=tuple(_below(fact, facts)),
        executable=detail.executable,
        working_directory=detail.working_directory,
        root=detail.root,
        files=tuple(
            OpenFile(descriptor=one.descriptor, target=one.target) for one in detail.files
        ),
        files_total=detail.files_total,
        sockets=endpoints(facts, lambda holder: holder.pid == fact.pid),
        limits=tuple(
            Limit(name=one.name, soft=one.soft, hard=one.hard, unit=one.unit)
            for one in detail.limits
        ),
        cgroup=detail.cgroup,
        namespaces=tuple(
            Namespace(kind=kind, number=number, shared=kind in detail.shared)
            for kind, number in detail.namespaces.items()
        ),
        unreadable=detail.unreadable,
    )


@query(name="process.tree", title="Tree of processes")
def tree(params: TreeParams, facts: Facts) -> ProcessTree:
    """List the processes of the node below those that started them."""
    shown = {fact.pid: _shown(fact) for fact in facts.processes.list()}
    matching = {one.pid for one in _matching(params, facts, list(shown.values()))}
    wanted = set(matching)
    for pid in matching:
        wanted |= set(_path(pid, shown))
    branches = _branches({pid: shown[pid] for pid in wanted}, matching)
    return ProcessTree(processes=tuple(branches[: params.limit]), total=len(matching))


@query(name="process.environment", title="Environment of a process", sensitive=True)
def environment(params: EnvironmentParams, facts: Facts) -> ProcessEnvironment:
    """Tell the environment that a process was started with, secrets masked by their names."""
    found = facts.processes.environment(params.pid, params.start_ticks)
    return ProcessEnvironment(
        variables=None if found is None else tuple(map(masked_variable, found))
    )


def endpoints(
    facts: Facts, wanted: Callable[[ListenerFact | ConnectionFact], bool]
) -> tuple[Endpoint, ...]:
    """Tell the sockets of some holder, listeners first."""
    listening = [
        Endpoint(protocol=one.protocol, local=_endpoint(one.address, one.port))
        for one in facts.sockets.listeners()
        if wanted(one)
    ]
    connected = [
        Endpoint(
            protocol=one.protocol,
            local=_endpoint(one.local_address, one.local_port),
            peer=_endpoint(one.peer_address, one.peer_port),
        )
        for one in facts.sockets.connections()
        if wanted(one)
    ]
    return tuple((*listening, *connected)[:_MOST_SOCKETS])


def branches_of(facts: Facts, wanted: Callable[[ProcessFact], bool]) -> tuple[Branch, ...]:
    """Tell some processes as a tree."""
    found = {fact.pid: _shown(fact) for fact in facts.processes.list() if wanted(fact)}
    return tuple(_branches(found, set(found))[:_MOST_RELATIVES])


def _matching(params: ListParams, facts: Facts, shown: list[Process]) -> list[Process]:
    # What is searched is what is shown: else a search could guess what the mask hides.
    wanted = params.match.casefold()
    holders = _holders(params.port, facts) if params.port else None
    return [
        one
        for one in shown
        if wanted in f"{one.cmdline} {one.comm} {one.user}".casefold()
        and params.user in {"", one.user}
        and params.unit in {"", one.owner_unit, one.owner_container, one.owner_user_unit}
        and (holders is None or one.pid in holders)
    ]


def _holders(port: int, facts: Facts) -> set[int]:
    listening = {one.pid for one in facts.sockets.listeners() if one.port == port}
    return listening | {one.pid for one in facts.sockets.connections() if one.local_port == port}


def _path(pid: int, shown: Mapping[int, Process]) -> Iterator[int]:
    """Name the ancestors of a process, itself first; a loop of forged parents ends."""
    seen: set[int] = set()
    while pid in shown and pid not in seen:
        seen.add(pid)
        yield pid
        pid = shown[pid].ppid


def _branches(shown: Mapping[int, Process], matching: set[int]) -> list[Branch]:
    below: dict[int, list[int]] = {}
    for pid, one in sorted(shown.items()):
        below.setdefault(one.ppid if one.ppid in shown else 0, []).append(pid)
    found = []
    waiting = [(pid, 0) for pid in reversed(below.get(0, ()))]
    while waiting:
        pid, depth = waiting.pop()
        fields = shown[pid].model_dump()
        found.append(Branch(**fields, depth=depth, matches=pid in matching))
        waiting += [(child, depth + 1) for child in reversed(below.get(pid, ()))]
    return found


def _ancestors(fact: ProcessFact, facts: Facts) -> list[Process]:
    found: list[Process] = []
    parent = facts.processes.get(fact.ppid) if fact.ppid else None
    while parent is not None and len(found) < _MOST_RELATIVES:
        found.insert(0, _shown(parent))
        parent = facts.processes.get(parent.ppid) if parent.ppid else None
    return found


def _below(fact: ProcessFact, facts: Facts) -> list[Branch]:
    pids = sorted(descendants(fact.pid, facts.processes.parents()))[:_MOST_RELATIVES]
    found = [one for pid in pids if (one := facts.processes.get(pid)) is not None]
    shown = {one.pid: _shown(one) for one in found}
    return _branches(shown, set(shown))


def _endpoint(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


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
        owner_user_unit=fact.owner_user_unit,
    )
