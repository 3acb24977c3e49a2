"""Plans and runs over real nodes; who is not all allowed reaches none."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.operator.fleetruns.conftest import ANNA, SIGNAL, Desk, executions, make_desk

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import RunState, new_run_id
from narthex_operator.db import Database
from narthex_operator.db.models import FleetMember, FleetRunRow, Lease, Node, RunRow
from narthex_operator.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
    OperatorError,
)
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import GRANTS, Actor, Grant, Role
from narthex_operator.services.strategy import Strategy
from realnode import RealNode
from rig import until

CAREFUL = replace(
    ANNA,
    id="user:8",
    grants=(
        Grant(pattern="node:read"),
        Grant(pattern="run:read"),
        Grant(pattern="fleet:all"),
        Grant(pattern="action:*", ceiling=Danger.REVERSIBLE),
    ),
)
NARROW = replace(ANNA, id="user:7", grants=(Grant(pattern="node:read"), Grant(pattern="action:*")))
VIEWER = Actor(id="user:9", name="vera", grants=GRANTS[Role.VIEWER])


def test_a_fleet_run_goes_over_all_nodes_wave_by_wave_and_groups_what_they_said(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    plan = desk.fleet.plan(ANNA, SIGNAL, victim, on="all")
    assert [group.nodes for group in plan.groups] == [tuple(node.name for node in nodes)]
    assert (plan.members, plan.refusals, plan.confirm) == (5, (), "reason")
    with desk.driving():
        run = desk.fleet.submit(
            ANNA, plan=plan.digest, strategy=Strategy(canary=1, batch="2"), reason="a test"
        )
        assert run.counts == {"waiting": 5}
        done = desk.until(run.id, "succeeded", "failed", "halted")
    assert done.state == "succeeded", [(m.node_name, m.state, m.error) for m in done.members]
    assert [member.wave for member in done.members] == [0, 1, 1, 2, 2]
    assert {member.state for member in done.members} == {"succeeded"}
    assert [group.nodes for group in done.outputs] == [tuple(node.name for node in nodes)]
    assert [executions(node) for node in nodes] == [1] * 5
    assert desk.events(run.id) == ["fleet-run.requested", "fleet-run.finished"]
    first = done.members[0].run
    assert first is not None
    assert desk.events(first) == ["run.requested", "run.finished"]
    assert desk.runs.get(ANNA, first).fleet_run == run.id
    began = {m.wave: desk.runs.get(ANNA, m.run or "").created_at for m in done.members}
    ended = desk.runs.get(ANNA, first).finished_at
    assert ended is not None
    assert ended <= began[1] <= began[2]


def test_a_plan_tells_who_differs_and_who_refuses(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    for node in nodes[3:]:
        node.socket.unlink()
    plan = desk.fleet.plan(ANNA, SIGNAL, victim, on="all")
    assert [group.nodes for group in plan.groups] == [("web-1", "web-2", "web-3")]
    assert [refusal.nodes for refusal in plan.refusals] == [("web-4", "web-5")]
    assert plan.refusals[0].error
    strategy = Strategy()
    with pytest.raises(ConflictError, match="2 of 5 nodes refuse: web-4, web-5"):
        desk.fleet.submit(ANNA, plan=plan.digest, strategy=strategy, reason="a test")
    with desk.driving():
        run = desk.fleet.submit(
            ANNA, plan=plan.digest, strategy=strategy, reason="a test", leave_out_refused=True
        )
        done = desk.until(run.id, "succeeded", "failed", "halted")
    assert done.state == "succeeded"
    left_out = [member for member in done.members if member.state == "left_out"]
    assert [member.node_name for member in left_out] == ["web-4", "web-5"]
    assert all(member.error for member in left_out)
    assert [executions(node) for node in nodes] == [1, 1, 1, 0, 0]


BAD: list[tuple[dict[str, Any], type[OperatorError]]] = [
    ({"nodes": []}, InvalidError),
    ({"on": ""}, InvalidError),
    ({"nodes": ["*"]}, DeniedError),
    ({"on": "*"}, InvalidError),
    ({"nodes": ["web-1", "web-2", "web-1"]}, InvalidError),
    ({"nodes": ["web-1", f"n{1:012x}"]}, InvalidError),
    ({"on": "web-1,web-1"}, InvalidError),
    ({"nodes": ["web-1", "web-9"]}, DeniedError),
    ({"on": "web-1,web-9"}, DeniedError),
    ({"on": "@nobody"}, DeniedError),
    ({"on": 'name="web-9"'}, InvalidError),
    ({"nodes": [f"web-{n}" for n in range(1, 10_002)]}, InvalidError),
    ({"on": "web-1", "nodes": ["web-1"]}, InvalidError),
]


@pytest.mark.parametrize(("aim", "kind"), BAD, ids=lambda x: str(x)[:40])
def test_29_who_is_not_meant_for_certain_is_not_touched_and_nor_are_the_others(
    desk: Desk,
    nodes: list[RealNode],
    victim: dict[str, Any],
    aim: dict[str, Any],
    kind: type[OperatorError],
) -> None:
    before = [list((node.folder / "actor").glob("audit*")) and audit(node) for node in nodes]
    with desk.driving(), pytest.raises(kind) as told:
        desk.fleet.plan(ANNA, SIGNAL, victim, **aim)
    assert told.value.hint
    assert desk.fleet.list(ANNA) == []
    assert [audit(node) for node in nodes] == before


def audit(node: RealNode) -> str:
    file = node.folder / "actor" / "audit.jsonl"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("how", ["unapproved", "locked", "removed", "never joined"])
def test_29_one_forbidden_among_ten_refuses_all(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any], how: str
) -> None:
    now = datetime.now(UTC)
    changes: dict[str, dict[str, Any]] = {
        "unapproved": {"approved_at": None},
        "locked": {"locked_reason": "cloned"},
        "removed": {"removed_at": now},
        "never joined": {"enrolled_at": None},
    }
    names = [node.name for node in nodes]
    with desk.database.session() as session:
        for number in range(6, 11):
            name = f"web-{number}"
            names.append(name)
            session.add(Node(id=f"m{number}", name=name, address="127.0.0.1:9", added_at=now,
                             enrolled_at=now, approved_at=now, generation=1))  # fmt: skip
        session.flush()
        session.execute(update(Node).where(Node.name == "web-3").values(**changes[how]))
    before = [audit(node) for node in nodes]
    with pytest.raises((DeniedError, ConflictError), match="web-3"):
        desk.fleet.plan(ANNA, SIGNAL, victim, nodes=names)
    if how != "removed":
        with pytest.raises(ConflictError, match="web-3"):
            desk.fleet.plan(ANNA, SIGNAL, victim, on="all")
    assert [audit(node) for node in nodes] == before


@pytest.mark.parametrize(
    ("actor", "aim"),
    [(VIEWER, "web-1"), (CAREFUL, "web-1"), (NARROW, "all"), (NARROW, 'name=~"web-.*"')],
)
def test_who_may_not_gets_no_plan(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any], actor: Actor, aim: str
) -> None:
    with pytest.raises(DeniedError):
        desk.fleet.plan(actor, SIGNAL, victim, on=aim)
    assert desk.fleet.plan(NARROW, SIGNAL, victim, on="web-1,web-2").members == 2


def test_a_plan_is_for_who_saw_it_and_not_for_long(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    plan = desk.fleet.plan(ANNA, SIGNAL, victim, on="web-1")
    with pytest.raises(ConflictError, match="not shown to you"):
        desk.fleet.submit(NARROW, plan=plan.digest, strategy=Strategy(), reason="a test")
    with pytest.raises(InvalidError, match="reason"):
        desk.fleet.submit(ANNA, plan=plan.digest, strategy=Strategy())
    with pytest.raises(NotFoundError):
        desk.fleet.get(ANNA, "no-run")


def test_74_the_same_request_a_hundred_times_is_one_fleet_run(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    plan = desk.fleet.plan(ANNA, SIGNAL, victim, on="web-1,web-2")
    other = desk.fleet.plan(ANNA, SIGNAL, victim, on="web-3")
    key = new_run_id()

    def submit(digest: str) -> str:
        return desk.fleet.submit(
            ANNA, plan=digest, strategy=Strategy(), reason="a test", fleet_run_id=key
        ).id

    with desk.driving():
        with ThreadPoolExecutor(16) as pool:
            assert set(pool.map(submit, [plan.digest] * 100)) == {key}
        with pytest.raises(ConflictError, match="another request"):
            submit(other.digest)
        desk.until(key, "succeeded")
    assert [executions(node) for node in nodes] == [1, 1, 0, 0, 0]
    assert desk.events(key) == ["fleet-run.requested", "fleet-run.finished"]


def test_a_node_that_changed_since_the_plan_fails_and_the_others_go_on(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    plan = desk.fleet.plan(ANNA, SIGNAL, victim, on="all")
    run = desk.fleet.submit(
        ANNA, plan=plan.digest, strategy=Strategy(stop_after=2), reason="a test"
    )
    with desk.database.session() as session:
        session.execute(
            update(FleetMember)
            .where(FleetMember.node_name == "web-2")
            .values(plan_digest="0" * 64)
        )
    with desk.driving():
        done = desk.until(run.id, "failed", "succeeded", "halted")
    states = {member.node_name: member.state for member in done.members}
    assert states.pop("web-2") == "failed"
    assert set(states.values()) == {"succeeded"}
    assert "plan" in next(m.error for m in done.members if m.node_name == "web-2")
    again = desk.fleet.plan_retry(ANNA, run.id)
    assert [group.nodes for group in again.groups] == [("web-2",)]
    with desk.driving():
        second = desk.fleet.submit(ANNA, plan=again.digest, strategy=Strategy(), reason="again")
        assert desk.until(second.id, "succeeded").retry_of == run.id
    assert [executions(node) for node in nodes] == [1] * 5


def test_it_halts_when_the_canary_fails_and_goes_on_when_told_to(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    plan = desk.fleet.plan(ANNA, SIGNAL, victim, on="all")
    with desk.database.session() as session:
        # The first node is gone before its turn.
        session.execute(update(Node).where(Node.name == "web-1").values(address="127.0.0.1:9"))
    with desk.driving():
        run = desk.fleet.submit(
            ANNA, plan=plan.digest, strategy=Strategy(canary=1), reason="a test"
        )
        halted = desk.until(run.id, "halted", "succeeded", "failed")
        assert halted.state == "halted"
        assert "1 of 5 nodes failed" in halted.error
        assert halted.counts == {"failed": 1, "waiting": 4}
        assert sum(executions(node) for node in nodes) == 0
        desk.fleet.resume(ANNA, run.id)
        done = desk.until(run.id, "succeeded", "failed")
    assert done.state == "failed"
    assert done.counts == {"failed": 1, "succeeded": 4}
    assert desk.events(run.id) == [
        "fleet-run.requested", "fleet-run.halted", "fleet-run.resumed", "fleet-run.finished",
    ]  # fmt: skip


def test_a_red_gate_halts_and_a_green_one_lets_go_on(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    desk.prometheus.values = [1.0, 0.0]
    with desk.driving():
        run = desk.start(victim, canary=1, gate="up", gate_for_seconds=0.1, gate_timeout_seconds=4)
        halted = desk.until(run.id, "halted", "succeeded", "failed")
        assert "the gate did not hold within 4 s" in halted.error
        assert halted.counts == {"succeeded": 1, "waiting": 4}
        desk.prometheus.values = [1.0]
        desk.fleet.resume(ANNA, run.id)
        desk.until(run.id, "succeeded")
    assert desk.prometheus.asked > 2


def test_a_gate_can_be_skipped_once(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    desk.prometheus.values = []
    with desk.driving():
        run = desk.start(
            victim, on="web-1,web-2", canary=1, gate="up", gate_for_seconds=0,
            gate_timeout_seconds=1,
        )  # fmt: skip
        desk.until(run.id, "halted")
        desk.fleet.resume(ANNA, run.id, skip_gate=True)
        desk.until(run.id, "succeeded")


def test_a_cancelled_one_begins_nothing_more(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    with desk.driving():
        run = desk.start(victim, canary=1, pause_seconds=600)
        desk.until(run.id, "pausing")
        desk.fleet.cancel(ANNA, run.id)
        done = desk.until(run.id, "cancelled")
        with pytest.raises(ConflictError):
            desk.fleet.cancel(ANNA, run.id)
        with pytest.raises(ConflictError):
            desk.fleet.resume(ANNA, run.id)
    assert done.counts == {"succeeded": 1, "withdrawn": 4}
    assert sum(executions(node) for node in nodes) == 1


def test_what_runs_is_asked_to_stop(
    desk: Desk, nodes: list[RealNode], stubborn: dict[str, Any]
) -> None:
    with desk.driving():
        run = desk.start(stubborn, on="web-1,web-2", parallel=1)
        until_running(desk, run.id)
        desk.fleet.cancel(ANNA, run.id)
        done = desk.until(run.id, "cancelled", seconds=15)
    assert done.counts in ({"cancelled": 1, "withdrawn": 1}, {"failed": 1, "withdrawn": 1})
    first = next(m.run for m in done.members if m.run)
    assert "run.cancel-requested" in desk.events(first)
    assert executions(nodes[1]) == 0


def until_running(desk: Desk, fleet_run_id: str) -> None:
    until(
        lambda: (
            "running" in desk.fleet.get(ANNA, fleet_run_id).counts
            or any(m.state == "running" for m in desk.fleet.get(ANNA, fleet_run_id).members)
        ),
        what="a member runs",
    )


def test_who_lost_the_right_in_the_meantime_acts_no_more(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    with desk.driving():
        run = desk.start(victim, canary=1, pause_seconds=1)
        desk.until(run.id, "pausing")
        desk.subjects.actors[ANNA.id] = replace(ANNA, grants=GRANTS[Role.VIEWER])
        halted = desk.until(run.id, "halted")
    assert "anna may not: action:process.signal" in halted.error
    assert sum(executions(node) for node in nodes) == 1


def test_a_node_that_is_removed_in_the_meantime_fails_by_itself(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any]
) -> None:
    with desk.driving():
        run = desk.start(victim, canary=1, pause_seconds=1, stop_after=2)
        desk.until(run.id, "pausing")
        with desk.database.session() as session:
            session.execute(
                update(Node).where(Node.name == "web-5").values(removed_at=datetime.now(UTC))
            )
        done = desk.until(run.id, "failed", "succeeded", "halted")
    assert done.counts == {"succeeded": 4, "failed": 1}
    assert executions(nodes[4]) == 0


def test_one_that_nobody_drove_for_long_is_halted(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any], tmp_path: Path
) -> None:
    run = desk.start(victim)
    with desk.database.session() as session:
        session.execute(update(FleetRunRow).values(driven_at=datetime(2026, 1, 1, tzinfo=UTC)))
    with desk.driving():
        halted = desk.until(run.id, "halted")
    assert "no operator looked after it from 2026-01-01" in halted.error
    assert sum(executions(node) for node in nodes) == 0


def test_what_was_written_and_not_sent_is_sent_once_by_who_takes_over(
    desk: Desk, nodes: list[RealNode], victim: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = desk.start(victim)
    # The operator dies between the row and the network: nothing is handed to the senders.
    with monkeypatch.context() as broken:
        broken.setattr(type(desk.delivery), "dispatch", lambda _self, _run_id: None)
        with desk.driving():
            desk.until(run.id, "running")
            until(lambda: len(rows(desk)) == 5, what="the rows stand")
    assert [row.sent_at for row in rows(desk)] == [None] * 5
    desk.delivery.reconcile()
    assert {row.state for row in rows(desk)} == {RunState.QUEUED}
    desk.driver._sent.clear()  # a driver that begins knows of none
    with desk.driving():
        done = desk.until(run.id, "succeeded", "failed", "halted")
    assert done.state == "succeeded"
    assert [executions(node) for node in nodes] == [1] * 5


def test_of_two_operators_one_drives_and_the_other_goes_on_when_it_is_gone(
    desk: Desk,
    nodes: list[RealNode],
    victim: dict[str, Any],
    tmp_path: Path,
    database: Database,
    signer: SignerClient,
) -> None:
    other = make_desk(tmp_path / "operator-pki-2", database, signer)
    try:
        run = desk.start(victim, batch="1", pause_seconds=0.5)
        with other.driving():
            with desk.driving():
                until(lambda: desk.fleet.get(ANNA, run.id).wave >= 1, what="it goes on")
            first = holder(database)
            # Whoever holds the lease stops as if it were killed: it runs out, nobody lets go.
            dead, alive = (desk, other) if first == desk.leases.holder else (other, desk)
            dead.leases.holder = "dead"
            with database.session() as session:
                lease = session.get_one(Lease, "fleet-runs")
                lease.holder, lease.expires_at = "gone", lease.expires_at - timedelta(seconds=31)
            with alive.driving() if alive is desk else contextlib.nullcontext():
                done = desk.until(run.id, "succeeded", "failed", "halted")
        assert done.state == "succeeded", [(m.node_name, m.state, m.error) for m in done.members]
    finally:
        other.close()
    assert [executions(node) for node in nodes] == [1] * 5
    assert desk.events(run.id) == ["fleet-run.requested", "fleet-run.finished"]


def holder(database: Database) -> str:
    with database.reading() as session:
        return session.get_one(Lease, "fleet-runs").holder


def rows(desk: Desk) -> list[RunRow]:
    with desk.database.reading() as session:
        return list(session.scalars(select(RunRow)))
