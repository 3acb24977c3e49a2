"""Plan, run, result on a real node; and every way in which it can be said no."""

import http.client
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from narthex_exporter.contract.spec import Danger
from narthex_exporter.contract.wire import RunState, new_run_id
from narthex_exporter.transport.identity import node_dns_name
from narthex_exporter.transport.tls import client_context
from narthex_operator.clients.node import NotUnderstoodError, operator_files
from narthex_operator.db.models import AuditEntry, Node, RunRow
from narthex_operator.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    NodeProblemError,
    NotFoundError,
)
from narthex_operator.services.access import GRANTS, Actor, Grant, Role, local_actor
from realnode import RealNode
from rig import until

ADMIN = local_actor("tests")
VIEWER = Actor(id="user:9", name="vera", grants=GRANTS[Role.VIEWER])
CAREFUL = Actor(
    id="user:8",
    name="cara",
    grants=(Grant(pattern="node:read"), Grant(pattern="action:*", ceiling=Danger.REVERSIBLE)),
)
NAME = "process.signal"


def signal(victim: dict[str, int]) -> dict[str, Any]:
    return {**victim, "signal": "TERM"}


def submit(desk: Any, params: dict[str, Any], plan: str, **more: Any) -> Any:
    return desk.runs.submit(
        ADMIN, "web-1", NAME, params, **{"plan": plan, "reason": "a test", **more}
    )


def planned(desk: Any, params: dict[str, Any]) -> str:
    found: str = desk.runs.plan(ADMIN, "web-1", NAME, params).plan.digest
    return found


def test_a_process_is_stopped_through_plan_and_run_with_audit_rows(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    with node.actor():
        plan = desk.runs.plan(ADMIN, "web-1", NAME, signal(victim))
        assert plan.confirm == "reason"
        assert plan.plan.resource == f"process/{victim['pid']}"
        run = submit(desk, signal(victim), plan.plan.digest)
        assert run.state is RunState.QUEUED
        done = desk.ended(run.id)
    assert done.state is RunState.SUCCEEDED, done.error
    assert done.after == {"exists": False} or done.after is not None
    assert desk.events(run.id) == ["run.requested", "run.finished"]
    assert [one.id for one in desk.runs.list(ADMIN, node="web-1")] == [run.id]


def test_a_query_is_read_by_our_own_declaration(desk: Any, node: RealNode) -> None:
    with node.actor():
        found = desk.runs.query(ADMIN, "web-1", "host.info", {})
    assert found["cpus"] >= 1


def test_what_can_be_done_on_a_node_is_told_with_reasons(desk: Any, node: RealNode) -> None:
    off = desk.runs.actor_of(ADMIN, "web-1")
    assert "not enabled" in off.off_reason
    with node.actor():
        on = desk.runs.actor_of(ADMIN, "web-1")
    assert on.off_reason == ""
    assert on.actions[NAME] == ""
    assert on.policy["mode"] == "manage"


@pytest.mark.parametrize("mode", ["read-only", "off"])
def test_25_metrics_go_on_where_the_node_s_policy_lets_nobody_act(
    desk: Any, node: RealNode, victim: dict[str, int], tmp_path: Path, mode: str
) -> None:
    (node.folder / "policy.yaml").write_text(f"version: 1\nmode: {mode}\n")
    with node.actor():
        for call in (
            lambda: planned(desk, signal(victim)),
            lambda: submit(desk, signal(victim), "0" * 64),
        ):
            with pytest.raises((ConflictError, NodeProblemError)):
                call()
        assert (desk.runs.actor_of(ADMIN, "web-1").off_reason, desk.runs.list(ADMIN)) == ("", [])
        context = client_context(operator_files(tmp_path / "operator-pki"))
        host, _, port = node.address.rpartition(":")
        name = node_dns_name(desk.runs.client.cluster, node.id)
        connection = http.client.HTTPConnection(host, int(port))
        with (
            socket.create_connection((host, int(port)), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname=name) as connection.sock,
        ):
            connection.request("GET", "/metrics")
            reply = connection.getresponse()
            assert (reply.status, b"node_load1 " in reply.read()) == (200, True)
    assert Path(f"/proc/{victim['pid']}").exists()


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"reason": " "}, InvalidError, "reason"),
    ({"reason": "x" * 501}, InvalidError, "reason"),
    *(
        ({"reason": f"to{hidden}day"}, InvalidError, "reason")
        for hidden in "\ud800\udfff\0\x1b\n\r\t\x7f\x85\x9b\u202a\u202e\u2066\u2069"
    ),
    ({"plan": "x"}, InvalidError, "plan"),
    ({"run_id": "1"}, InvalidError, "run_id"),
    ({"run_id": "00000000-0000-4000-8000-000000000000"}, InvalidError, "run_id"),
]


@pytest.mark.parametrize(("more", "kind", "words"), REFUSED)
def test_a_run_without_consent_is_refused_before_anything_is_written(
    desk: Any,
    node: RealNode,
    victim: dict[str, int],
    more: dict[str, Any],
    kind: type[Exception],
    words: str,
) -> None:
    with pytest.raises(kind, match=words):
        submit(desk, signal(victim), **{"plan": "0" * 64, **more})
    assert desk.runs.list(ADMIN) == []
    with desk.database.reading() as session:
        assert session.scalars(select(AuditEntry)).all() == []


@pytest.mark.parametrize(
    ("actor", "ref", "name", "params", "kind"),
    [
        (VIEWER, "web-1", NAME, {}, DeniedError),
        (CAREFUL, "web-1", NAME, {}, DeniedError),
        (ADMIN, "web-1", "no.such", {}, NotFoundError),
        (ADMIN, "*", NAME, {"pid": 1, "start_ticks": 1, "signal": "TERM"}, NotFoundError),
        (ADMIN, "", NAME, {"pid": 1, "start_ticks": 1, "signal": "TERM"}, NotFoundError),
        (ADMIN, "web-1", NAME, {"pid": "one"}, InvalidError),
        (ADMIN, "web-1", NAME, {"pid": 1, "start_ticks": 1, "signal": "TERM", "x": 1},
         InvalidError),
    ],
)  # fmt: skip
def test_who_may_not_or_asks_wrongly_reaches_no_node(
    desk: Any, actor: Actor, ref: str, name: str, params: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        desk.runs.plan(actor, ref, name, params)
    with pytest.raises(kind):
        desk.runs.submit(actor, ref, name, params, plan="0" * 64, reason="x")


def test_wrong_fields_are_named(desk: Any) -> None:
    with pytest.raises(InvalidError) as told:
        desk.runs.plan(ADMIN, "web-1", NAME, {"pid": "one", "signal": "SIGNOT"})
    assert {error.path for error in told.value.errors} >= {"params.pid", "params.start_ticks"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"approved_at": None}, "not approved"),
        ({"locked_reason": "two of it"}, "locked"),
    ],
)
def test_a_node_that_is_pending_or_locked_is_not_acted_on(
    desk: Any, node: RealNode, victim: dict[str, int], values: dict[str, Any], words: str
) -> None:
    with desk.database.session() as session:
        session.execute(update(Node).values(**values))
    with node.actor():
        with pytest.raises(ConflictError, match=words):
            desk.runs.plan(ADMIN, "web-1", NAME, signal(victim))
        with pytest.raises(ConflictError, match=words):
            submit(desk, signal(victim), "0" * 64)
    assert words in desk.runs.actor_of(ADMIN, "web-1").off_reason


def test_a_plan_that_is_no_longer_true_runs_nothing(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    with node.actor():
        run = desk.ended(submit(desk, signal(victim), "0" * 64).id)
    assert run.state is RunState.FAILED
    assert "plan" in run.error
    assert Path(f"/proc/{victim['pid']}").exists()
    assert desk.events(run.id) == ["run.requested", "run.finished"]


def test_the_node_s_own_refusal_is_told(desk: Any, node: RealNode) -> None:
    params = {"pid": 1, "start_ticks": 1, "signal": "TERM"}
    with node.actor(), pytest.raises(NodeProblemError) as told:
        desk.runs.plan(ADMIN, "web-1", NAME, params)
    assert told.value.status in {403, 409}


def test_a_hundred_of_the_same_request_are_one_run(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    run_id = new_run_id()
    found: list[str] = []
    with node.actor():
        plan = planned(desk, signal(victim))

        def ask() -> None:
            found.append(submit(desk, signal(victim), plan, run_id=run_id).id)

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        desk.ended(run_id)
        with pytest.raises(ConflictError, match="another request"):
            submit(desk, signal(victim), plan, run_id=run_id, reason="another")
    assert found == [run_id] * 20
    assert desk.events(run_id) == ["run.requested", "run.finished"]


def test_where_the_audit_cannot_be_written_nothing_is_sent(
    desk: Any, node: RealNode, victim: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_more: object) -> None:
        raise OSError("database or disk is full")

    with node.actor():
        plan = planned(desk, signal(victim))
        monkeypatch.setattr(type(desk.audit), "record", full)
        with pytest.raises(OSError, match="full"):
            submit(desk, signal(victim), plan)
        monkeypatch.undo()
    assert desk.runs.list(ADMIN) == []
    assert Path(f"/proc/{victim['pid']}").exists()


def test_an_actor_that_is_off_means_nothing_was_done(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    with node.actor():
        plan = planned(desk, signal(victim))
    run = desk.ended(submit(desk, signal(victim), plan).id)
    assert run.state is RunState.FAILED
    assert "nothing was done" in run.error


def write_row(desk: Any, victim: dict[str, int], **values: Any) -> str:
    """Leave a run's row as a killed operator would."""
    now = datetime.now(UTC)
    row = {
        "id": new_run_id(), "node_id": "web-1-3fa9c2", "node_name": "web-1", "action": NAME,
        "title": "t", "resource": f"process/{victim['pid']}", "danger": "disruptive",
        "state": "queued", "actor": "user:1", "actor_name": "anna", "params": signal(victim),
        "plan_digest": "0" * 64, "body": b"{}", "body_sha256": "0" * 64, "steps": [],
        "error": "", "hint": "", "created_at": now - timedelta(minutes=1), **values,
    }  # fmt: skip
    with desk.database.session() as session:
        session.add(RunRow(**row))
    return str(row["id"])


def test_a_run_that_a_killed_operator_never_sent_was_never_done(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    run_id = write_row(desk, victim)
    with node.actor():
        desk.delivery.reconcile()
        desk.delivery.reconcile()
    run = desk.runs.get(ADMIN, run_id)
    assert run.state is RunState.FAILED
    assert "nothing was done" in run.error
    assert desk.events(run_id) == ["run.finished"]
    assert Path(f"/proc/{victim['pid']}").exists()


def test_a_run_in_doubt_is_asked_for_and_never_sent_again(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    now = datetime.now(UTC)
    sent = {"state": "unknown", "sent_at": now}
    with node.actor():
        desk.runs.actor_of(ADMIN, "web-1")
        inst = desk.runs.client.instance(node.id)
        fresh = write_row(
            desk, victim, **sent, ticket_expires_at=now + timedelta(seconds=30), instance=inst
        )
        over = write_row(
            desk, victim, **sent, ticket_expires_at=now - timedelta(seconds=121), instance=inst
        )
        restarted = write_row(
            desk, victim, **sent, ticket_expires_at=now + timedelta(seconds=30), instance="old"
        )
        desk.delivery.reconcile()
    states = {x: desk.runs.get(ADMIN, x).state for x in (fresh, over, restarted)}
    assert states == {
        fresh: RunState.UNKNOWN, over: RunState.LOST, restarted: RunState.LOST
    }  # fmt: skip
    assert desk.events(over) == ["run.finished"]
    assert desk.events(fresh) == []
    assert Path(f"/proc/{victim['pid']}").exists()


def test_a_run_that_was_not_sent_yet_is_withdrawn(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    run_id = write_row(desk, victim, created_at=datetime.now(UTC))
    with node.actor():
        assert desk.runs.cancel(ADMIN, run_id).state is RunState.CANCELLED
        desk.delivery.dispatch(run_id)
        desk.delivery.reconcile()
    assert desk.events(run_id) == ["run.cancel-requested", "run.finished"]
    assert Path(f"/proc/{victim['pid']}").exists()
    with pytest.raises(ConflictError, match="ended already"):
        desk.runs.cancel(ADMIN, run_id)


def test_a_run_under_way_is_cancelled_on_its_node(desk: Any, node: RealNode) -> None:
    code = (
        "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    )
    with node.actor(), subprocess.Popen(["python3", "-Ic", code], stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        it.stdout.readline()
        ticks = Path(f"/proc/{it.pid}/stat").read_text().rpartition(")")[2].split()[19]
        params = signal({"pid": it.pid, "start_ticks": int(ticks)})
        run = submit(desk, params, planned(desk, params))
        until(lambda: desk.runs.get(ADMIN, run.id).state is RunState.RUNNING, what="it runs")
        desk.runs.cancel(ADMIN, run.id)
        done = desk.ended(run.id)
        it.kill()
    assert done.state is RunState.CANCELLED
    assert desk.events(run.id) == ["run.requested", "run.cancel-requested", "run.finished"]


def test_a_run_on_a_removed_node_is_lost(
    desk: Any, node: RealNode, victim: dict[str, int]
) -> None:
    run_id = write_row(desk, victim, state="running", sent_at=datetime.now(UTC), instance="x")
    with desk.database.session() as session:
        session.execute(update(Node).values(removed_at=datetime.now(UTC)))
    desk.delivery.reconcile()
    run = desk.runs.get(ADMIN, run_id)
    assert run.state is RunState.LOST
    assert "removed" in run.error


def test_a_node_that_plans_something_else_is_not_believed(
    tmp_path: Path, desk: Any, signer: Any, victim: dict[str, int]
) -> None:
    node = RealNode(tmp_path / "liar", signer)
    plan = (
        b'{"action": "process.signal", "resource": "process/999999", "danger": "safe",'
        b' "steps": [], "digest": "' + b"0" * 64 + b'"}'
    )

    def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        start("200 OK", [("Replay-Nonce", new_run_id()), ("Narthex-Instance", "one")])
        if environ["PATH_INFO"].endswith("manifest"):
            offered = ", ".join(
                '{"name": "process.signal", "title": "", "summary": "", "danger": "safe",'
                ' "permission": "", "timeout_seconds": 1,'
                ' "params": {"properties": {"pid": 1, "start_ticks": 1, "signal": 1}}}'
                for _ in range(1)
            )
            return [
                f'{{"version": "1", "node": "{node.id}", "instance": "one", "boot_id": "",'
                f' "policy": {{}}, "queries": [], "actions": [{offered}]}}'.encode()
            ]
        return [plan]

    with node.front(app):
        node.enter(desk.database)
        with pytest.raises(NotUnderstoodError, match="something else"):
            desk.runs.plan(ADMIN, "web-1", NAME, signal(victim))
