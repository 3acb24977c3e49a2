"""Turn rows of fleet runs into views, and group what their nodes said alike."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from narthex_exporter.contract.spec import Danger
from narthex_operator.db.models import FleetMember, FleetRunRow, RunRow
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.views import FleetMemberView, FleetRunView, OutputGroup
from narthex_operator.services.waves import FleetRunState, MemberState

# Of each end of what a group printed, in characters.
_SHOWN: Final = 4000
_CUT: Final = "\n… the middle is left out …\n"


def fleet_run_view(
    row: FleetRunRow,
    members: Sequence[FleetMember],
    runs: Mapping[str, RunRow] | None = None,
) -> FleetRunView:
    """Show a fleet run; with its members and their outputs where their runs are given."""
    counts = Counter(member.state for member in members)
    return FleetRunView(
        id=row.id,
        action=row.action,
        title=row.title,
        resource=row.resource,
        danger=Danger(row.danger),
        params=row.params,
        selector=row.selector,
        strategy=Strategy.model_validate(row.strategy),
        state=FleetRunState(row.state),
        error=row.error,
        hint=row.hint,
        actor=row.actor_name,
        reason=row.reason,
        wave=row.wave,
        waves=row.waves,
        counts=dict(counts),
        pause_until=row.pause_until,
        gate_since=row.gate_since,
        gate_told=row.gate_told,
        cancel_requested=row.cancelled_by is not None,
        schedule=row.schedule_id,
        retry_of=row.retry_of,
        created_at=row.created_at,
        finished_at=row.finished_at,
        members=() if runs is None else tuple(_member(one, runs) for one in members),
        outputs=() if runs is None else _outputs(members, runs),
    )


def _member(member: FleetMember, runs: Mapping[str, RunRow]) -> FleetMemberView:
    run = runs.get(member.run_id)
    duration = None
    if run is not None and run.started_at is not None and run.finished_at is not None:
        duration = (run.finished_at - run.started_at).total_seconds()
    return FleetMemberView(
        node=member.node_id,
        node_name=member.node_name,
        wave=member.wave,
        # The run's own state may be newer than what its driver last wrote down.
        state=MemberState(run.state if run is not None else member.state),
        run=run.id if run is not None else None,
        error=run.error if run is not None else member.error,
        hint=run.hint if run is not None else member.hint,
        codes=_codes(run.steps) if run is not None else (),
        duration_seconds=duration,
    )


def _outputs(
    members: Sequence[FleetMember], runs: Mapping[str, RunRow]
) -> tuple[OutputGroup, ...]:
    """Group by state, exit codes and all that was printed; what most nodes said comes first."""
    found: dict[tuple[str, tuple[int | None, ...], str], list[str]] = {}
    dropped: set[tuple[str, tuple[int | None, ...], str]] = set()
    for member in members:
        run = runs.get(member.run_id)
        if run is None or (not MemberState(run.state).failed and run.state != "succeeded"):
            continue
        key = (run.state, _codes(run.steps), _printed(run.steps))
        found.setdefault(key, []).append(member.node_name)
        if any(step.get("truncated") for step in run.steps):
            dropped.add(key)
    ordered = sorted(found.items(), key=lambda one: (-len(one[1]), min(one[1])))
    return tuple(
        OutputGroup(
            nodes=tuple(sorted(names)),
            state=MemberState(key[0]),
            codes=key[1],
            output=_ends(key[2]),
            truncated=key in dropped or len(key[2]) > 2 * _SHOWN,
        )
        for key, names in ordered
    )


def _codes(steps: Iterable[Mapping[str, Any]]) -> tuple[int | None, ...]:
    return tuple(step.get("code") for step in steps)


def _printed(steps: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(str(step["output"]) for step in steps if step.get("output"))


def _ends(text: str) -> str:
    return text if len(text) <= 2 * _SHOWN else text[:_SHOWN] + _CUT + text[-_SHOWN:]
