"""Runs: carried out once, locked, bounded, told truthfully (SECURITY.md 26, 58, 72 to 74)."""

import json
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actor.conftest import (
    MANAGE,
    Client,
    Enrolled,
    Rig,
    Sleeper,
    actor_process,
    running,
    started,
    until_listening,
)
from typing_extensions import override

from narthex_exporter.actions import process as process_actions
from narthex_exporter.actor import execution
from narthex_exporter.actor.audit import verify_all
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Catalogue, Danger, Params, action
from narthex_exporter.contract.steps import Look, Outcome, RunProgram, Step
from narthex_exporter.contract.wire import new_run_id
from narthex_exporter.errors import UnavailableError


class WaitParams(Params):
    seconds: float
    name: str = "a"

    @property
    @override
    def resource(self) -> str:
        return f"wait/{self.name}"


PLANNED: list[float] = []


@action(name="process.wait", title="Wait", danger=Danger.SAFE)
def wait(params: WaitParams, _facts: Facts) -> Generator[Step, Outcome | None, None]:
    """Wait."""
    yield RunProgram(argv=("sleep", "--", str(params.seconds)))


@action(name="process.overrun", title="Overrun", danger=Danger.SAFE, timeout_seconds=0.3)
def overrun(params: WaitParams, _facts: Facts) -> Generator[Step, Outcome | None, None]:
    """Wait for longer than allowed."""
    yield RunProgram(argv=("sleep", "--", str(params.seconds)))


@action(name="process.look", title="Look", danger=Danger.SAFE)
def look(params: WaitParams, _facts: Facts) -> Generator[Step | Look, Outcome | None, None]:
    """Try, and go by how it went."""
    outcome = yield Look(step=RunProgram(argv=("test", "-d", f"/{params.name}")))
    if outcome is not None and outcome.code == 0:
        yield RunProgram(argv=("echo", "there"))
    else:
        yield RunProgram(argv=("echo", "missing"))


@action(name="process.fickle", title="Fickle", danger=Danger.SAFE)
def fickle(_params: WaitParams, _facts: Facts) -> Generator[Step, Outcome | None, None]:
    """Plan something else each second time, as a node that changes would."""
    PLANNED.append(0)
    yield RunProgram(argv=("true", str(len(PLANNED) // 3)))


@action(name="process.broken", title="Broken", danger=Danger.SAFE)
def broken(params: WaitParams, _facts: Facts) -> Generator[Step, Outcome | None, None]:
    """Have a mistake behind the first step."""
    yield RunProgram(argv=("true",))
    if PLANNED:
        raise KeyError(params.name)


@action(name="process.grim", title="Grim", danger=Danger.DESTRUCTIVE)
def grim(_params: WaitParams, _facts: Facts) -> Generator[Step, Outcome | None, None]:
    """Be worse than the policy allows."""
    raise RefusedError("never reached")
    yield RunProgram(argv=("true",))


ACTIONS = {one.name: one for one in (wait, overrun, look, fickle, broken, grim)}


@pytest.fixture
def bench(enrolled: Enrolled) -> Iterator[Rig]:
    PLANNED.clear()
    with running(enrolled, catalogue=Catalogue(actions=ACTIONS)) as one:
        yield one


def begin(client: Client, name: str, /, **params: Any) -> str:
    plan = client.plan(name, **params).json()["digest"]
    run_id = new_run_id()
    reply = client.submit(name, plan=plan, run_id=run_id, **params)
    assert reply.status == 202, reply.body
    assert reply.headers["Location"] == f"/api/v1/runs/{run_id}"
    return run_id


def test_a_process_is_stopped_and_the_result_is_what_really_happened(
    rig: Rig, sleeper: Sleeper
) -> None:
    run = rig.client.run("process.signal", **sleeper.named)
    assert run["state"] == "succeeded"
    assert run["steps"][0]["output"].startswith("exited in ")
    assert run["after"] == {"exists": False}
    assert sleeper.process.wait(5) == -15
    assert rig.client.get(run["id"]).json() == run


def test_a_run_is_audited_before_and_after(rig: Rig, sleeper: Sleeper) -> None:
    run = rig.client.run("process.renice", **sleeper.named, nice=7)
    assert run["after"]["nice"] == 7
    rows = [row for row in rig.audit_rows if row.get("op") == run["id"]]
    assert [row["event"] for row in rows] == ["run.accepted", "run.finished"]
    assert rows[0]["sub"] == "user:1"
    assert rows[0]["params"] == {**sleeper.named, "nice": 7}
    assert rows[1]["state"] == "succeeded"
    head = rig.client.call("GET", "/api/v1/audit", act="audit").json()
    assert head == {"seq": rig.audit_rows[-1]["seq"], "head": rig.audit_rows[-1]["hash"]}


def test_a_reused_pid_is_refused(rig: Rig, sleeper: Sleeper) -> None:
    reply = rig.client.plan("process.signal", pid=sleeper.pid, start_ticks=sleeper.start_ticks - 1)
    assert (reply.status, reply.json()["type"]) == (409, "refused")
    assert "was reused" in reply.json()["detail"]
    assert sleeper.process.poll() is None


@pytest.mark.parametrize("which", ["init", "actor", "kernel"])
def test_what_must_live_is_not_signalled(rig: Rig, which: str) -> None:
    listed = rig.client.query("process.list", limit=5000).json()["processes"]
    found = {one["pid"]: one for one in listed}
    kernel = next((one["pid"] for one in listed if one["is_kernel_thread"]), 1)
    ours = next(one["pid"] for one in listed if one["is_ours"])
    target = found[{"init": 1, "actor": ours, "kernel": kernel}[which]]
    reply = rig.client.plan(
        "process.signal", pid=target["pid"], start_ticks=target["start_ticks"], signal="KILL"
    )
    assert (reply.status, reply.json()["type"]) == (409, "refused")


def test_one_run_asked_for_a_hundred_times_at_once_is_carried_out_once(bench: Rig) -> None:
    plan = bench.client.plan("process.wait", seconds=0.2).json()["digest"]
    run_id = new_run_id()

    def ask(_: int) -> int:
        return bench.client.submit("process.wait", plan=plan, run_id=run_id, seconds=0.2).status

    with ThreadPoolExecutor(20) as pool:
        found = sorted(pool.map(ask, range(100)))
    assert found == [*[200] * 99, 202]
    assert bench.client.wait(run_id)["state"] == "succeeded"
    assert [row["event"] for row in bench.audit_rows if row.get("op") == run_id] == [
        "run.accepted",
        "run.finished",
    ]


def test_one_run_id_for_another_request_is_a_conflict(bench: Rig) -> None:
    run_id = begin(bench.client, "process.wait", seconds=0)
    plan = bench.client.plan("process.wait", seconds=1).json()["digest"]
    reply = bench.client.submit("process.wait", plan=plan, run_id=run_id, seconds=1)
    assert (reply.status, reply.json()["type"]) == (409, "run-conflict")


def test_two_runs_do_not_act_on_one_resource(bench: Rig) -> None:
    run_id = begin(bench.client, "process.wait", seconds=5)
    plan = bench.client.plan("process.wait", seconds=4).json()["digest"]
    reply = bench.client.submit("process.wait", plan=plan, run_id=new_run_id(), seconds=4)
    assert (reply.status, reply.json()["type"]) == (409, "resource-busy")
    assert reply.json()["run"] == run_id
    other = begin(bench.client, "process.wait", seconds=0, name="b")
    assert bench.client.wait(other)["state"] == "succeeded"
    bench.client.call("DELETE", f"/api/v1/runs/{run_id}", act="run", op=run_id)
    assert bench.client.wait(run_id)["state"] == "cancelled"


def test_a_cancelled_run_stops_at_once(bench: Rig) -> None:
    run_id = begin(bench.client, "process.wait", seconds=30)
    began = time.monotonic()
    reply = bench.client.call("DELETE", f"/api/v1/runs/{run_id}", act="run", op=run_id)
    assert reply.status == 202
    assert bench.client.wait(run_id)["state"] == "cancelled"
    assert time.monotonic() - began < 3


def test_a_run_that_takes_too_long_is_stopped(bench: Rig) -> None:
    run = bench.client.wait(begin(bench.client, "process.overrun", seconds=30))
    assert run["state"] == "timed_out"
    assert "took too long" in run["error"]


@pytest.mark.parametrize(("name", "said"), [("tmp", "there"), ("nowhere", "missing")])
def test_a_plan_that_looks_in_between_goes_by_what_it_finds(
    bench: Rig, name: str, said: str
) -> None:
    plan = bench.client.plan("process.look", seconds=0, name=name).json()
    assert (plan["complete"], len(plan["steps"])) == (False, 1)
    run = bench.client.wait(begin(bench.client, "process.look", seconds=0, name=name))
    assert run["state"] == "succeeded"
    assert run["steps"][1]["output"].strip() == said


def test_what_runs_is_what_was_shown(bench: Rig) -> None:
    reply = bench.client.submit("process.wait", plan="0" * 64, run_id=new_run_id(), seconds=0)
    assert (reply.status, reply.json()["type"]) == (409, "plan-changed")
    run = bench.client.wait(begin(bench.client, "process.fickle", seconds=0))
    assert run["state"] == "failed"
    assert "the node changed while the run began" in run["error"]
    assert [step["state"] for step in run["steps"]] == ["cancelled"]


def test_a_fault_of_ours_ends_its_run_and_is_not_shown(bench: Rig) -> None:
    plan = bench.client.plan("process.broken", seconds=0).json()["digest"]
    PLANNED.append(1)
    run_id = new_run_id()
    reply = bench.client.plan("process.broken", seconds=0)
    assert (reply.status, reply.json()["type"]) == (500, "internal")
    assert "KeyError" not in reply.body.decode()
    PLANNED.clear()
    assert bench.client.submit("process.broken", plan=plan, run_id=run_id, seconds=0).status == 202
    assert bench.client.wait(run_id)["state"] == "succeeded"


def test_without_an_audit_row_nothing_is_done(rig: Rig, sleeper: Sleeper) -> None:
    plan = rig.client.plan("process.signal", **sleeper.named).json()["digest"]
    rig.actor.audit.close()
    reply = rig.client.submit("process.signal", plan=plan, run_id=new_run_id(), **sleeper.named)
    assert (reply.status, reply.json()["type"]) == (503, "unavailable")
    assert sleeper.process.poll() is None
    rig.actor.audit.__post_init__()


def test_an_unknown_run_is_a_problem_in_each_form(rig: Rig) -> None:
    run_id = new_run_id()
    for method, tail in (("GET", ""), ("GET", "/events"), ("DELETE", "")):
        reply = rig.client.call(method, f"/api/v1/runs/{run_id}{tail}", act="run", op=run_id)
        assert (reply.status, reply.json()["type"]) == (404, "unknown-run")


COUNTER = 'trap "echo x >> $0" TERM; while :; do sleep 0.05; done'


def received(file: Path) -> int:
    return len(file.read_text().split()) if file.exists() else 0


def test_an_actor_killed_in_a_run_tells_the_truth_and_never_runs_it_again(
    enrolled: Enrolled, tmp_path: Path
) -> None:
    client = Client(enrolled)
    for index, delay in enumerate((0.0, 0.01, 0.3)):
        count = tmp_path / f"count{index}"
        with started("sh", "-c", COUNTER, str(count)) as target:
            time.sleep(0.1)  # until the trap is set
            with actor_process(enrolled) as process:
                until_listening(enrolled, process)
                run_id = begin(client, "process.signal", **target.named)
                time.sleep(delay)
            with actor_process(enrolled) as process:
                until_listening(enrolled, process)
                run = client.get(run_id).json()
                assert run["state"] == "lost"
                assert run["after"]["exists"] is True
                plan = client.plan("process.signal", **target.named).json()["digest"]
                again = client.submit("process.signal", plan=plan, run_id=run_id, **target.named)
                assert (again.status, again.json()["state"]) == (200, "lost")
            time.sleep(0.15)
            assert received(count) <= 1
    record = enrolled.config.state_dir / "audit.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    events = [row["event"] for row in rows]
    assert events.count("run.accepted") == events.count("run.lost") == 3
    assert verify_all(record) is not None


def test_a_stopped_actor_lets_its_run_finish(enrolled: Enrolled, sleeper: Sleeper) -> None:
    with running(enrolled, catalogue=Catalogue(actions=ACTIONS)) as rig:
        run_id = begin(rig.client, "process.wait", seconds=0.5)
    with running(enrolled) as rig:
        assert rig.client.get(run_id).json()["state"] == "succeeded"


def test_rates_are_kept(enrolled: Enrolled) -> None:
    enrolled.write_policy(MANAGE + "rate: {safe: 2/min}\n")
    with running(enrolled, catalogue=Catalogue(actions=ACTIONS)) as rig:
        for name in ("a", "b"):
            begin(rig.client, "process.wait", seconds=0, name=name)
        plan = rig.client.plan("process.wait", seconds=0, name="c").json()["digest"]
        reply = rig.client.submit(
            "process.wait", plan=plan, run_id=new_run_id(), seconds=0, name="c"
        )
        assert (reply.status, reply.json()["type"]) == (429, "rate-limited")


def test_a_danger_above_the_ceiling_is_refused_and_audited(bench: Rig) -> None:
    reply = bench.client.plan("process.grim", seconds=0)
    assert (reply.status, reply.json()["type"]) == (403, "policy-refused")
    assert bench.audit_rows[-1]["reason"] == "policy"


def test_a_process_that_already_ended_is_not_there(rig: Rig) -> None:
    with started("true") as gone:
        named = gone.named
    reply = rig.client.plan("process.signal", **named)
    assert "there is no process" in reply.json()["detail"]


def test_a_process_that_outlives_its_signal_is_a_failure_that_says_what_to_do(
    enrolled: Enrolled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_actions, "_WAIT_SECONDS", 0.3)
    with running(enrolled) as rig, started("sh", "-c", COUNTER, str(tmp_path / "n")) as stubborn:
        time.sleep(0.1)  # until the trap is set
        run = rig.client.run("process.signal", **stubborn.named)
        assert (run["state"], run["after"]["exists"]) == ("failed", True)
        assert "still alive after 0.3 s" in run["error"]
        assert "send KILL" in run["hint"]
        run = rig.client.run("process.signal", **stubborn.named, signal="KILL")
        assert (run["state"], run["after"]) == ("succeeded", {"exists": False})


def test_what_was_done_stays_done_when_it_cannot_be_looked_at(
    rig: Rig, sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(*_: object, failed: bool) -> None:
        raise UnavailableError("the system bus went away")

    monkeypatch.setattr(execution, "look_after", unreadable)
    run = rig.client.run("process.signal", **sleeper.named)
    assert (run["state"], run["after"]) == ("succeeded", None)
    assert run["hint"] == "its state could not be read again: the system bus went away"


def test_runs_are_kept_for_a_week(rig: Rig, sleeper: Sleeper) -> None:
    old = rig.client.run("process.renice", **sleeper.named, nice=3)["id"]
    store, week = rig.actor.store, 7 * 86_400
    store.prune(before=time.time() - week)
    assert rig.client.get(old).status == 200
    store.prune(before=time.time() + 1)
    assert rig.client.get(old).status == 404
