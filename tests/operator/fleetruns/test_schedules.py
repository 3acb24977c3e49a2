"""Schedules: each time once, on behalf of whoever owns them as they then are."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select, update
from tests.operator.fleetruns.conftest import ANNA, SIGNAL, Desk, executions, make_desk

from narthex_operator.db import Database
from narthex_operator.db.models import ScheduleRow, ScheduleSlot
from narthex_operator.errors import ConflictError, DeniedError, InvalidError, NotFoundError
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import GRANTS, Actor, Role
from narthex_operator.services.timing import latest, next_after, upcoming
from narthex_operator.services.views import Misfire, ScheduleSpec
from realnode import RealNode
from rig import until

VIEWER = Actor(id="user:9", name="vera", grants=GRANTS[Role.VIEWER])
BOB = replace(ANNA, id="user:2", name="bob")


def spec(params: dict[str, Any], **more: Any) -> ScheduleSpec:
    return ScheduleSpec(**{
        "name": "nightly", "cron": "0 3 * * *", "action": SIGNAL, "params": params, "on": "all",
        "reason": "every night", **more,
    })  # fmt: skip


def due(desk: Desk, *, ago: timedelta = timedelta(seconds=1)) -> None:
    with desk.database.session() as session:
        session.execute(update(ScheduleRow).values(next_at=datetime.now(UTC) - ago))


def slots(desk: Desk) -> list[ScheduleSlot]:
    with desk.database.reading() as session:
        return list(session.scalars(select(ScheduleSlot).order_by(ScheduleSlot.id)))


def settled(desk: Desk) -> list[ScheduleSlot]:
    def look() -> list[ScheduleSlot]:
        found = slots(desk)
        return found if found and all(s.outcome != "planning" for s in found) else []

    return until(look, what="the slot is settled")


def test_a_schedule_is_carried_out_as_its_owner_when_it_is_due(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    made = desk.schedules.add(ANNA, spec(victim, every_seconds=3600, cron=""))
    assert (made.owner, made.danger) == ("anna", "disruptive")
    assert made.upcoming[0] == made.next_at
    due(desk)
    with desk.driving():
        (slot,) = settled(desk)
        assert (slot.outcome, slot.error) == ("started", "")
        done = desk.until(slot.fleet_run_id, "succeeded")
    assert done.schedule == made.id
    assert [executions(node) for node in nodes] == [1] * 5
    row = next(r for r in desk.audit.list(ANNA).rows if r.event == "fleet-run.requested")
    assert (row.actor, row.reason) == ("user:1", "every night")
    shown = desk.schedules.get(ANNA, "nightly")
    assert shown.next_at is not None
    assert shown.next_at > datetime.now(UTC)
    assert shown.slots[0].fleet_run == slot.fleet_run_id


def test_96_two_schedulers_take_each_time_once(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any], tmp_path: Path,
    database: Database, signer: SignerClient,
) -> None:  # fmt: skip
    other = make_desk(tmp_path / "operator-pki-2", database, signer)
    try:
        desk.schedules.add(ANNA, spec(victim, on="web-1"))
        for _ in range(3):
            due(desk)
            # Both believe that they are alone, as where a lease has just changed hands.
            both = [threading.Thread(target=one.clockwork.tick) for one in (desk, other)]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
        settled(desk)
    finally:
        other.close()
    assert len(slots(desk)) == 3
    assert len({slot.slot for slot in slots(desk)}) == 3
    assert len({slot.holder for slot in slots(desk)}) == 1
    assert len(desk.fleet.list(ANNA)) == 3


def test_96_a_time_whose_scheduler_was_killed_is_told_and_not_made_up_for(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    made = desk.schedules.add(ANNA, spec(victim))
    due(desk)
    assert desk.leases.hold("schedules")
    taken = desk.clockwork.take(made.id)
    assert taken is not None
    # The operator dies here; its next start is somebody else.
    desk.leases.holder = "next"
    desk.leases.alone = True
    desk.leases._renewed.clear()
    with desk.driving():
        (slot,) = settled(desk)
    assert slot.outcome == "missed"
    assert "nothing was done" in slot.error
    # Even the one that was thought dead can no longer start it.
    desk.clockwork.carry_out(*taken)
    assert desk.fleet.list(ANNA) == []
    assert (
        sum(executions(node) for node in nodes if (node.folder / "actor/audit.jsonl").exists())
        == 0
    )


@pytest.mark.parametrize("how", ["disabled", "lost the right"])
def test_96_one_whose_owner_may_not_any_more_is_paused_with_the_reason(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any], how: str
) -> None:
    desk.schedules.add(ANNA, spec(victim))
    if how == "disabled":
        del desk.subjects.actors[ANNA.id]
    else:
        desk.subjects.actors[ANNA.id] = replace(ANNA, grants=GRANTS[Role.VIEWER])
    due(desk)
    with desk.driving():
        (slot,) = settled(desk)
        until(lambda: desk.schedules.get(ANNA, "nightly").paused_reason, what="it is paused")
        due(desk)
        threading.Event().wait(0.5)
    found = desk.schedules.get(ANNA, "nightly")
    assert slot.outcome == "refused"
    assert not found.spec.enabled
    assert ("may not act any more" if how == "disabled" else "may not: action") in (
        found.paused_reason
    )
    assert len(slots(desk)) == 1
    assert desk.fleet.list(ANNA) == []
    # Whoever enables it again becomes its owner.
    again = desk.schedules.change(BOB, "nightly", spec(victim))
    assert (again.owner, again.paused_reason, again.spec.enabled) == ("bob", "", True)


@pytest.mark.parametrize(
    ("misfire", "outcome"), [(Misfire.SKIP, "missed"), (Misfire.ONCE, "started")]
)
def test_a_time_that_passed_while_nobody_looked_is_missed_or_made_up_for_once(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any], misfire: Misfire, outcome: str
) -> None:
    timing = {"cron": "", "every_seconds": 3600}
    desk.schedules.add(ANNA, spec(victim, on="web-1", misfire=misfire, **timing))
    with desk.database.session() as session:
        session.execute(
            update(ScheduleRow).values(
                created_at=datetime.now(UTC) - timedelta(hours=100, minutes=30),
                next_at=datetime.now(UTC) - timedelta(hours=99, minutes=30),
            )
        )
    with desk.driving():
        (slot,) = settled(desk)
        threading.Event().wait(0.3)
    assert slot.outcome == outcome
    assert len(slots(desk)) == 1
    assert datetime.now(UTC) - slot.slot < timedelta(hours=1)


def test_it_can_be_done_now_by_who_may_do_it(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    desk.schedules.add(ANNA, spec(victim, on="web-1"))
    with pytest.raises(DeniedError):
        desk.schedules.run_now(VIEWER, "nightly")
    desk.schedules.run_now(BOB, "nightly")
    with desk.driving():
        (slot,) = settled(desk)
        desk.until(slot.fleet_run_id, "succeeded")
    desk.schedules.remove(ANNA, "nightly")
    with pytest.raises(NotFoundError):
        desk.schedules.get(ANNA, "nightly")
    assert desk.fleet.get(ANNA, slot.fleet_run_id).state == "succeeded"


@pytest.mark.parametrize(
    "wrong",
    [
        {"cron": ""}, {"every_seconds": 3600}, {"cron": "* * *"}, {"cron": "61 * * * *"},
        {"cron": "0 0 30 2 *"}, {"cron": "0 0 1 * 1"}, {"cron": "0 0 * * 8"},
        {"timezone": "Mars/Olympus"}, {"timezone": "../../etc/passwd"}, {"timezone": ""},
        {"action": "process.renice"}, {"on": "*"}, {"reason": ""},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_schedule_is_refused(
    desk: Desk, victim: dict[str, Any], wrong: dict[str, Any]
) -> None:
    with pytest.raises(InvalidError):
        desk.schedules.add(ANNA, spec(victim, **wrong))
    with pytest.raises(DeniedError):
        desk.schedules.add(VIEWER, spec(victim))
    with pytest.raises(ValidationError):
        spec(victim, every_seconds=1)


def test_a_name_is_taken_once(desk: Desk, victim: dict[str, Any]) -> None:
    desk.schedules.add(ANNA, spec(victim))
    with pytest.raises(ConflictError, match="nightly"):
        desk.schedules.add(ANNA, spec(victim))


AT = datetime(2026, 3, 27, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "wanted"),
    [
        ("0 3 * * *", "UTC", ["28 03:00", "29 03:00"]),
        # Clocks go forward on the 29th: three o'clock comes an hour earlier.
        ("0 3 * * *", "Europe/Berlin", ["28 02:00", "29 01:00"]),
        ("0 9 * * 0", "UTC", ["29 09:00", "05 09:00"]),
        ("0 9 * * 7", "UTC", ["29 09:00", "05 09:00"]),
        ("0 9 * * 1-5", "UTC", ["30 09:00", "31 09:00"]),
        ("0 9 * * sat,sun", "UTC", ["28 09:00", "29 09:00"]),
        ("*/30 * * * *", "UTC", ["27 12:30", "27 13:00"]),
    ],
)
def test_cron_means_what_cron_means(
    victim: dict[str, Any], cron: str, zone: str, wanted: list[str]
) -> None:
    one = spec(victim, cron=cron, timezone=zone)
    assert [f"{at:%d %H:%M}" for at in upcoming(one, AT, AT, count=2)] == wanted


def test_the_newest_time_that_is_due_is_found(victim: dict[str, Any]) -> None:
    one = spec(victim, cron="*/5 * * * *")
    first = AT - timedelta(days=30)
    assert latest(one, AT, first, AT + timedelta(minutes=7)) == AT + timedelta(minutes=5)
    yearly = spec(victim, cron="0 0 1 1 *")
    new_year = datetime(2026, 1, 1, tzinfo=UTC)
    assert latest(yearly, AT, new_year, AT) == new_year
    assert next_after(yearly, AT, AT) == datetime(2027, 1, 1, tzinfo=UTC)
