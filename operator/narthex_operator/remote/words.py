"""Write plans and results for a terminal; what nodes said can do nothing to it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from narthex_operator.security.chain import clean

_NAMES: Final = 8
_LINE: Final = 2000


def plan_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """Tell a fleet plan: what most nodes would do first, who differs, who refuses and why."""
    yield f"{plan['title']} ({plan['danger']}): {_shown(plan['summary'])}"
    for group in plan["groups"]:
        yield f"\n{_count(group['nodes'])}: {names(group['nodes'])}"
        for step in group["steps"]:
            yield f"    {_shown(step['text'])}"
        if not group["complete"]:
            yield "    … what follows depends on what is found on the way"
        for note in group["notes"]:
            whom = "" if len(note["nodes"]) == len(group["nodes"]) else names(note["nodes"]) + ": "
            yield f"  note: {whom}{_shown(note['text'])}"
        if group["diff"]:
            yield from (f"    {_shown(line)}" for line in group["diff"].split("\n"))
    for refusal in plan["refusals"]:
        yield f"\n{_count(refusal['nodes'])} refuse: {names(refusal['nodes'])}"
        yield f"    {_shown(refusal['error'])}"
        if refusal["hint"]:
            yield f"    what to do: {_shown(refusal['hint'])}"


def result_lines(run: Mapping[str, Any]) -> Iterator[str]:
    """Tell how a fleet run stands: what was printed alike together, then who failed and why."""
    for group in run["outputs"]:
        codes = ", ".join("-" if code is None else str(code) for code in group["codes"])
        yield (
            f"\n{_count(group['nodes'])} {group['state']}"
            f"{f' (exit {codes})' if codes else ''}: {names(group['nodes'])}"
        )
        for line in group["output"].split("\n") if group["output"] else ():
            yield f"    {_shown(line)}"
    for error, nodes in _errors(run["members"]):
        yield f"\n{names(nodes)}: {_shown(error)}"
    counts = ", ".join(f"{count} {state}" for state, count in sorted(run["counts"].items()))
    yield f"\nfleet run {run['id']} {run['state']}: {counts}"
    if run["error"]:
        yield f"  {_shown(run['error'])}"
    if run["hint"]:
        yield f"  what to do: {_shown(run['hint'])}"


def names(nodes: Sequence[str]) -> str:
    """Name some nodes, and how many more there are."""
    more = len(nodes) - _NAMES
    shown = ", ".join(clean(str(name), limit=64) for name in nodes[:_NAMES])
    return shown + (f" and {more} more" if more > 0 else "")


def _errors(members: Iterable[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    found: dict[str, list[str]] = {}
    for member in members:
        if member["error"]:
            found.setdefault(member["error"], []).append(member["node_name"])
    return sorted(found.items(), key=lambda one: -len(one[1]))


def _count(nodes: Sequence[str]) -> str:
    return f"{len(nodes)} node{'s' if len(nodes) != 1 else ''}"


def _shown(text: object) -> str:
    return clean(str(text), limit=_LINE)
