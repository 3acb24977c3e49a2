"""Turn rows of schedules into views and back."""

from collections.abc import Sequence
from datetime import datetime

from narthex_exporter.contract.spec import Catalogue, Danger
from narthex_operator.db.models import ScheduleRow, ScheduleSlot
from narthex_operator.services.timing import upcoming
from narthex_operator.services.views import ScheduleSpec, ScheduleView, SlotView

STARTED = "started"
_SAME = (
    "name", "cron", "every_seconds", "timezone", "misfire", "grace_seconds", "action", "params",
    "reason", "enabled",
)  # fmt: skip


def spec_of(row: ScheduleRow) -> ScheduleSpec:
    """Read what a schedule is to do."""
    return ScheduleSpec.model_validate(
        {name: getattr(row, name) for name in _SAME}
        | {"on": row.selector, "strategy": row.strategy}
    )


def write_spec(row: ScheduleRow, spec: ScheduleSpec) -> None:
    """Write what a schedule is to do."""
    for name in _SAME:
        setattr(row, name, getattr(spec, name))
    row.reason = spec.reason.strip()
    row.selector, row.strategy = spec.on, spec.strategy.model_dump(mode="json")


def schedule_view(
    row: ScheduleRow,
    catalogue: Catalogue,
    *,
    now: datetime,
    slots: Sequence[ScheduleSlot] = (),
) -> ScheduleView:
    """Show a schedule with its next times."""
    spec, action = spec_of(row), catalogue.actions.get(row.action)
    return ScheduleView(
        id=row.id,
        spec=spec,
        title=action.title if action else row.action,
        danger=action.danger if action else Danger.DESTRUCTIVE,
        owner=row.owner_name,
        paused_reason=row.paused_reason,
        created_at=row.created_at,
        next_at=row.next_at,
        upcoming=tuple(upcoming(spec, row.created_at, now)) if row.enabled else (),
        slots=tuple(
            SlotView(
                slot=one.slot,
                outcome=one.outcome,
                error=one.error,
                fleet_run=one.fleet_run_id if one.outcome == STARTED else None,
            )
            for one in slots
        ),
    )
