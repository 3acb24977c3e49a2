"""What will notice: who is connected, listens, has a terminal open, and what stops too."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from narthex_exporter.contract.facts import (
    ConnectionFact,
    Facts,
    ListenerFact,
    ProcessFact,
    SessionFact,
    UnitFact,
    UnitFacts,
)
from narthex_exporter.contract.steps import Note

_SHOWN: Final = 10
# A unit that hundreds require is part of the system's frame: to name some of them is enough.
_MOST_UNITS: Final = 50
SSHD: Final = frozenset({"sshd", "sshd-session"})


def of_process(found: ProcessFact, facts: Facts) -> Iterator[Note]:
    """Tell who notices when a process ends or stands still."""
    parents = facts.processes.parents()
    below = descendants(found.pid, parents)
    yield from _network(
        [one for one in facts.sockets.connections() if one.pid == found.pid],
        [one for one in facts.sockets.listeners() if one.pid == found.pid],
    )
    yield from _terminals([one for one in facts.sessions.list() if one.pid in {found.pid, *below}])
    children = sum(parent == found.pid for parent in parents.values())
    if children:
        yield Note(text=f"it has {_count(children, 'child', 'children')}, which may end with it")


def of_unit(unit: UnitFact, facts: Facts) -> Iterator[Note]:
    """Tell who notices when a unit stops."""
    yield from _network(
        [one for one in facts.sockets.connections() if one.unit == unit.name],
        [one for one in facts.sockets.listeners() if one.unit == unit.name],
    )
    inside = []
    for session in facts.sessions.list():
        process = facts.processes.get(session.pid)
        if process is not None and process.owner_unit == unit.name:
            inside.append(session)
    yield from _terminals(inside)


def started_again(unit: UnitFact, units: UnitFacts, user: str) -> Iterator[Note]:
    """Tell what starts a unit again after it was stopped."""
    for name in unit.triggered_by:
        trigger = units.get(name)
        if trigger is not None and trigger.active_state == "active":
            yield Note(
                text=f"{name} may start it again: stop that too",
                action="service.stop",
                params={"unit": name, "user": user},
            )


def stops_too(unit: UnitFact, units: UnitFacts) -> tuple[str, ...]:
    """Name what stops with a unit: what requires or binds to it, and what does to those."""
    found: dict[str, None] = {}
    waiting = [*unit.required_by, *unit.stopped_with]
    while waiting and len(found) < _MOST_UNITS:
        name = waiting.pop(0)
        if name in found or name == unit.name:
            continue
        found[name] = None
        other = units.get(name)
        if other is not None:
            waiting += (*other.required_by, *other.stopped_with)
    return tuple(found)


def descendants(pid: int, parents: Mapping[int, int]) -> frozenset[int]:
    """Name every process below one."""
    below: dict[int, list[int]] = {}
    for child, parent in parents.items():
        below.setdefault(parent, []).append(child)
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        fresh = [one for one in below.get(waiting.pop(), ()) if one not in found and one != pid]
        found.update(fresh)
        waiting += fresh
    return frozenset(found)


def kept_session(found: ProcessFact, facts: Facts) -> SessionFact | None:
    """Find a session that somebody would lose with an sshd; ``None`` for other programs."""
    if found.comm not in SSHD:
        return None
    under = {found.pid, *descendants(found.pid, facts.processes.parents())}
    return next((one for one in facts.sessions.list() if one.pid in under), None)


def _network(
    connections: Sequence[ConnectionFact], listeners: Sequence[ListenerFact]
) -> Iterator[Note]:
    if connections:
        peers = len({one.peer_address for one in connections})
        held = _count(len(connections), "connection", "connections")
        yield Note(text=f"it holds {held} from {_count(peers, 'address', 'addresses')}")
    if listeners:
        # One that is shared stands there once for each holder.
        names = sorted({f"{one.protocol} {_endpoint(one)}" for one in listeners})
        yield Note(text=f"it listens on {_some(names)}")


def _terminals(sessions: Sequence[SessionFact]) -> Iterator[Note]:
    for one in sessions[:_SHOWN]:
        place = f" from {one.address}" if one.address else ""
        yield Note(text=f"{one.user} has a terminal open under it ({one.terminal}{place})")


def _endpoint(one: ListenerFact) -> str:
    address = f"[{one.address}]" if ":" in one.address else one.address
    return f"{address}:{one.port}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
