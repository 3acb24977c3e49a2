"""Four eyes: what policy wants more than one person for is not done before they have approved.

SECURITY.md's test 42: whoever asked for it, with other parameters, too late, who lost the
permission, an API key, and approving and cancelling at once: no unauthorised run.
"""

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from tests.operator.runs.conftest import make_desk

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import RunState
from narthex_operator.db import Database
from narthex_operator.db.models import ApiToken, ApprovalRow, Node, RunRow, User
from narthex_operator.errors import ConflictError, DeniedError, InvalidError
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from realnode import POLICY, RealNode
from rig import until

ADMIN = local_actor("tests")
NAME = "process.signal"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def node(node: RealNode) -> RealNode:
    """A node whose policy wants one more person for what is disruptive."""
    (node.folder / "policy.yaml").write_text(POLICY + "require_approvals: {disruptive: 1}\n")
    return node


@pytest.fixture
def people(database: Database) -> dict[str, Actor]:
    found = {}
    with database.session() as session:
        for name in ("anna", "boris", "clara"):
            user = User(name=name, role="operator", password_hash="", created_at=NOW,
                        password_changed_at=NOW)  # fmt: skip
            session.add(user)
            session.flush()
            found[name] = Actor(
                id=f"user:{user.id}", name=name, grants=GRANTS[Role.OPERATOR], session="abc"
            )
    return found


@pytest.fixture
def hits(tmp_path: Path) -> Iterator[tuple[dict[str, Any], Callable[[], int]]]:
    """A process that counts the signals it gets: what was executed."""
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('hit', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    out = tmp_path / "hits"
    with out.open("wb") as file:
        process = subprocess.Popen(["python3", "-Ic", code], stdout=file)
    until(lambda: "ready" in out.read_text(), what="the process is ready")
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    params = {"pid": process.pid, "start_ticks": int(ticks), "signal": "USR1"}
    yield params, lambda: out.read_text().count("hit")
    process.kill()
    process.wait()


def asked(desk: Any, actor: Actor, params: dict[str, Any], **more: Any) -> Any:
    plan = desk.runs.plan(actor, "web-1", NAME, params)
    return desk.runs.submit(
        actor, "web-1", NAME, params, plan=plan.plan.digest, reason="why not", **more
    )


def change(desk: Any, kind: Any, **values: Any) -> None:
    with desk.database.session() as session:
        session.execute(update(kind).values(**values))


def test_42_a_run_waits_until_another_person_has_approved_what_they_saw(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    with node.actor():
        assert desk.runs.plan(people["anna"], "web-1", NAME, params).approvals == 1
        run = asked(desk, people["anna"], params)
        assert (run.state, run.approvals_wanted) == (RunState.UNAPPROVED, 1)
        desk.delivery.reconcile()
        desk.delivery.dispatch(run.id)
        (request,) = desk.approvals.list(people["boris"])
        assert (request.run.id, request.why_not) == (run.id, "")
        assert (desk.approvals.waiting(people["boris"]), desk.approvals.waiting(people["anna"])) \
            == (1, 0)  # fmt: skip
        shown = desk.approvals.get(people["boris"], run.id).run
        assert shown.plan is not None
        assert "USR1" in shown.plan.steps[0].text
        assert (shown.reason, shown.params["pid"]) == ("why not", params["pid"])
        with pytest.raises(ConflictError, match="is not the plan"):
            desk.approvals.approve(people["boris"], run.id, plan="0" * 64)
        assert count() == 0
        desk.approvals.approve(people["boris"], run.id, plan=shown.plan.digest)
        done = desk.ended(run.id)
    assert done.state is RunState.SUCCEEDED, done.error
    assert [one.name for one in done.approvals] == ["boris"]
    until(lambda: count() == 1, what="it was done once")
    assert desk.events(run.id) == ["run.requested", "run.approved", "run.finished"]
    rows = (node.folder / "actor" / "audit.jsonl").read_text()
    assert f'"user": "{people["boris"].id}"'.replace(" ", "") in rows.replace(" ", "")


def test_42_who_may_not_approve_does_not(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    boris = people["boris"]
    with desk.database.session() as session:
        session.add(ApiToken(id="abc123", name="script", role="operator", secret_hash="",
                             user_id=int(boris.id[5:]), created_at=NOW,
                             expires_at=datetime(2100, 1, 1, tzinfo=UTC)))  # fmt: skip
    key = Actor(id="key:abc123", name="script", grants=GRANTS[Role.OPERATOR])
    with node.actor():
        run = asked(desk, key, params)
        plan = desk.approvals.get(boris, run.id).run.plan.digest
        refused = (
            (key, "only a person"),
            (boris, "whoever asked"),  # by a token of his own
            (local_actor("root"), "only a person"),
            (Actor(id="sched:1", name="s", grants=GRANTS[Role.ADMIN], session="x"), "person"),
            (Actor(id=people["anna"].id, name="anna", grants=GRANTS[Role.OPERATOR]), "person"),
            (Actor(id="user:99", name="vera", grants=GRANTS[Role.VIEWER], session="x"), "needs"),
        )
        for actor, words in refused:
            with pytest.raises(DeniedError, match=words):
                desk.approvals.approve(actor, run.id, plan=plan)
        own = asked(desk, people["anna"], {**params, "signal": "USR2"})
        with pytest.raises(DeniedError, match="whoever asked"):
            desk.approvals.approve(people["anna"], own.id, plan=own.plan.digest)
        desk.delivery.reconcile()
    assert {one.state for one in desk.runs.list(ADMIN)} == {RunState.UNAPPROVED}
    assert count() == 0


def test_42_what_nobody_approves_in_time_expires(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    with node.actor():
        run = asked(desk, people["anna"], params)
        assert run.approve_until - run.created_at == timedelta(minutes=15)
        change(desk, RunRow, approve_until=datetime.now(UTC) - timedelta(seconds=1))
        with pytest.raises(ConflictError, match="time to approve"):
            desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        assert desk.approvals.waiting(people["boris"]) == 0
        desk.delivery.reconcile()
        with pytest.raises(ConflictError, match="expired"):
            desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        desk.delivery.reconcile()
    assert desk.runs.get(ADMIN, run.id).state is RunState.EXPIRED
    assert desk.events(run.id) == ["run.requested", "run.finished"]
    assert count() == 0


def test_42_other_parameters_are_another_run(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    with node.actor():
        run = asked(desk, people["anna"], params)
        with pytest.raises(ConflictError, match="another request"):
            asked(desk, people["anna"], {**params, "signal": "KILL"}, run_id=run.id)
        again = asked(desk, people["anna"], {**params, "signal": "USR2"})
        assert again.id != run.id
        assert again.state is RunState.UNAPPROVED
        change(desk, RunRow, body=b"{}")  # what is sent is not what was approved: a torn database
        desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        assert desk.ended(run.id).state is RunState.FAILED
    assert count() == 0


@pytest.mark.parametrize("loss", ["demoted", "disabled", "requester"])
def test_42_who_lost_the_permission_meanwhile_does_not_count(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any, loss: str
) -> None:
    params, count = hits
    (node.folder / "policy.yaml").write_text(POLICY + "require_approvals: {disruptive: 2}\n")
    who = int(people["anna" if loss == "requester" else "boris"].id[5:])
    lost = {"disabled": True} if loss == "disabled" else {"role": "viewer"}
    with node.actor():
        run = asked(desk, people["anna"], params)
        desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        with desk.database.session() as session:
            session.execute(update(User).where(User.id == who).values(**lost))
        desk.approvals.approve(people["clara"], run.id, plan=run.plan.digest)
        if loss == "requester":
            done = desk.ended(run.id)
            assert done.state is RunState.FAILED
            assert "any more" in done.error
        else:
            assert desk.runs.get(ADMIN, run.id).state is RunState.UNAPPROVED
        desk.delivery.reconcile()
    assert count() == 0


def test_42_at_dispatch_it_is_judged_once_more_who_approved(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    sent = desk.delivery.dispatch
    with node.actor():
        run = asked(desk, people["anna"], params)
        type(desk.delivery).dispatch = lambda _self, _run: None
        try:
            desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        finally:
            type(desk.delivery).dispatch = sent.__func__
        change(desk, User, role="viewer")
        with desk.database.session() as session:
            session.execute(update(User).where(User.name == "anna").values(role="operator"))
        desk.delivery._deliver(run.id)
        seen = desk.runs.get(ADMIN, run.id)
        assert (seen.state, count()) == (RunState.UNAPPROVED, 0)
        with desk.database.session() as session:
            session.execute(update(User).where(User.name == "clara").values(role="operator"))
        desk.approvals.approve(people["clara"], run.id, plan=run.plan.digest)
        assert desk.ended(run.id).state is RunState.SUCCEEDED
    assert desk.events(run.id) == [
        "run.requested", "run.approved", "run.approval-void", "run.approved", "run.finished",
    ]  # fmt: skip


def test_42_approving_and_cancelling_at_once_has_one_winner(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    outcomes: list[RunState] = []
    with node.actor():
        for _ in range(8):
            run = asked(desk, people["anna"], params)
            before, ready = count(), threading.Barrier(3)

            def go(who: str, run: Any = run, ready: threading.Barrier = ready) -> None:
                ready.wait()
                with contextlib.suppress(ConflictError, DeniedError):
                    if who == "anna":
                        desk.runs.cancel(people[who], run.id)
                    else:
                        desk.approvals.approve(people[who], run.id, plan=run.plan.digest)

            threads = [threading.Thread(target=go, args=(who,)) for who in people]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            done = desk.ended(run.id)
            time.sleep(0.1)
            assert done.state in {RunState.SUCCEEDED, RunState.CANCELLED}, done.error
            assert count() - before == int(done.state is RunState.SUCCEEDED), outcomes
            outcomes.append(done.state)
            finished = [one for one in desk.events(run.id) if one == "run.finished"]
            assert len(finished) == 1


def test_an_approval_is_withdrawn_and_given_again(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, _ = hits
    (node.folder / "policy.yaml").write_text(POLICY + "require_approvals: {disruptive: 2}\n")
    with node.actor():
        run = asked(desk, people["anna"], params)
        desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        with pytest.raises(DeniedError, match="already"):
            desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        with pytest.raises(ConflictError, match="have not approved"):
            desk.approvals.withdraw(people["clara"], run.id)
        assert desk.approvals.withdraw(people["boris"], run.id).approvals == ()
        desk.approvals.approve(people["clara"], run.id, plan=run.plan.digest)
        assert desk.runs.get(ADMIN, run.id).state is RunState.UNAPPROVED
        desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        done = desk.ended(run.id)
        assert done.state is RunState.SUCCEEDED, done.error
        with pytest.raises(ConflictError, match="does not wait"):
            desk.approvals.withdraw(people["boris"], run.id)
    assert "run.approval-withdrawn" in desk.events(run.id)


def test_a_rejected_run_is_cancelled_with_its_reason(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    with node.actor():
        run = asked(desk, people["anna"], params)
        for reason in ("", " ", "a\nb", "x" * 501):
            with pytest.raises(InvalidError):
                desk.approvals.reject(people["boris"], run.id, reason=reason)
        viewer = Actor(id="user:9", name="v", grants=GRANTS[Role.VIEWER], session="x")
        with pytest.raises(DeniedError):
            desk.approvals.reject(viewer, run.id, reason="no")
        desk.approvals.reject(people["boris"], run.id, reason="not today")
        with pytest.raises(ConflictError):
            desk.approvals.approve(people["clara"], run.id, plan=run.plan.digest)
    done = desk.runs.get(ADMIN, run.id)
    assert (done.state, done.error) == (RunState.CANCELLED, "rejected by boris: not today")
    assert desk.events(run.id) == ["run.requested", "run.rejected", "run.finished"]
    assert count() == 0


def test_the_operator_may_want_more_approvals_than_the_node(
    tmp_path: Path, database: Database, signer: Any, people: dict[str, Actor], hits: Any,
    node: RealNode,
) -> None:  # fmt: skip
    params, _ = hits
    desk = make_desk(tmp_path / "pki", database, signer, require={Danger.DISRUPTIVE: 2})
    try:
        with node.actor():
            assert asked(desk, people["anna"], params).approvals_wanted == 2
    finally:
        desk.delivery.stop()


def test_without_a_row_of_the_audit_nothing_is_approved(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any, monkeypatch: Any
) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError("database or disk is full")

    params, count = hits
    with node.actor():
        run = asked(desk, people["anna"], params)
        monkeypatch.setattr(type(desk.audit), "record", full)
        with pytest.raises(OSError, match="full"):
            desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        monkeypatch.undo()
        assert desk.runs.get(ADMIN, run.id).state is RunState.UNAPPROVED
        with desk.database.reading() as session:
            assert session.scalars(select(ApprovalRow)).all() == []
    assert count() == 0


def test_a_narrowed_node_is_sent_nothing_above_its_ceiling(
    desk: Any, node: RealNode, people: dict[str, Actor], hits: Any
) -> None:
    params, count = hits
    with node.actor():
        run = asked(desk, people["anna"], params)
        viewer = Actor(id="user:9", name="v", grants=GRANTS[Role.VIEWER], session="x")
        with pytest.raises(DeniedError):
            desk.runs.nodes.set_ceiling(viewer, "web-1", ceiling={})
        for wrong in ({"procces": "safe"}, {"process": "R2"}):
            with pytest.raises(InvalidError, match="ceiling"):
                desk.runs.nodes.set_ceiling(ADMIN, "web-1", ceiling=wrong)
        view = desk.runs.nodes.set_ceiling(ADMIN, "web-1", ceiling={"process": "reversible"})
        assert view.ceiling == {"process": "reversible"}
        for call in (desk.runs.plan, lambda *a: desk.runs.submit(*a, plan="0" * 64, reason="x")):
            with pytest.raises(ConflictError, match="at most what is reversible"):
                call(people["anna"], "web-1", NAME, params)
        # What was asked for before is judged again when it is sent.
        desk.approvals.approve(people["boris"], run.id, plan=run.plan.digest)
        done = desk.ended(run.id)
    assert done.state is RunState.FAILED
    assert "at most what is reversible" in done.error
    assert count() == 0
    events = [row.event for row in desk.audit.list(ADMIN, node="web-1").rows]
    assert "node.ceiling-changed" in events
    with desk.database.reading() as session:
        assert session.scalars(select(Node)).one().ceiling == {"process": "reversible"}
