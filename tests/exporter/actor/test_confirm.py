"""Commit-confirm: a change is kept once confirmed, and brought back otherwise, whatever dies."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actor.conftest import Enrolled, Reply, Rig, running
from tests.exporter.actor.jobcatalogue import CATALOGUE
from tests.exporter.actor.test_jobs import PROGRAM, begin, job_of, state_of, until


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    one = Enrolled(tmp_path / "node")
    one.config = replace(one.config, program=PROGRAM)
    return one


@pytest.fixture
def bench(enrolled: Enrolled) -> Iterator[Rig]:
    with running(enrolled, catalogue=CATALOGUE) as one:
        yield one


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules"
    path.write_text("old\n")
    return path


def change(rig: Rig, file: Path, **params: Any) -> str:
    run_id = begin(rig, "process.guarded", path=str(file), content="new\n", **params)
    until(lambda: state_of(rig, run_id) in {"confirming", "failed", "reverted"})
    return run_id


def confirm(rig: Rig, run_id: str) -> Reply:
    target = f"/api/v1/runs/{run_id}/confirm"
    return rig.client.call("POST", target, {}, act="run", op=run_id)


def kept(file: Path) -> bool:
    return Path(f"{file}.kept").exists()


def reverted(file: Path) -> bool:
    return Path(f"{file}.reverted").exists()


def test_the_plan_shows_the_diff_the_guard_and_how_to_undo_it(bench: Rig, file: Path) -> None:
    plan = bench.client.plan("process.guarded", path=str(file), content="new\n").json()
    assert "-old\n+new\n" in plan["diff"]
    assert plan["confirm_seconds"] == 30.0
    assert plan["undo"]["params"] == {"path": str(file), "content": "old\n"}
    assert plan["steps"][0]["text"].startswith("bring it back in 30 s unless it is confirmed")


def test_a_confirmed_change_is_kept_and_what_follows_is_done(bench: Rig, file: Path) -> None:
    run_id = change(bench, file)
    assert (file.read_text(), kept(file)) == ("new\n", False)
    assert confirm(bench, run_id).status == 202
    run = bench.client.wait(run_id)
    assert (run["state"], file.read_text(), kept(file)) == ("succeeded", "new\n", True)
    assert run["undo"] == {
        "action": "process.guarded", "params": {"path": str(file), "content": "old\n"},
    }  # fmt: skip
    assert not reverted(file)
    assert confirm(bench, run_id).status == 202  # the same again is no error
    events = [row["event"] for row in bench.audit_rows if row.get("op") == run_id]
    assert events == ["run.accepted", "run.confirmed", "run.finished"]


def test_what_nobody_confirms_is_brought_back(bench: Rig, file: Path) -> None:
    run = bench.client.wait(change(bench, file, seconds=3))
    assert (run["state"], file.read_text()) == ("reverted", "old\n")
    assert "did not confirm" in run["error"]
    assert reverted(file)
    assert not kept(file)
    assert confirm(bench, run["id"]).json()["type"] == "not-confirmable"


def test_a_step_that_fails_under_the_guard_brings_everything_back(bench: Rig, file: Path) -> None:
    run = bench.client.wait(change(bench, file, then="echo wrong; exit 3"))
    assert (run["state"], file.read_text()) == ("reverted", "old\n")
    assert "wrong" in run["error"]


def test_a_step_that_cannot_even_begin_is_told_as_brought_back_too(bench: Rig, file: Path) -> None:
    run = bench.client.wait(change(bench, file, program="no-such-program"))
    assert (run["state"], file.read_text()) == ("reverted", "old\n")
    assert "there is no program no-such-program" in run["error"]
    assert run["error"].endswith("it was brought back")


def test_a_cancelled_change_is_brought_back(bench: Rig, file: Path) -> None:
    run_id = change(bench, file)
    bench.client.call("DELETE", f"/api/v1/runs/{run_id}", act="run", op=run_id)
    assert bench.client.wait(run_id)["state"] == "reverted"
    assert file.read_text() == "old\n"


def test_79_the_timer_needs_neither_actor_nor_job(enrolled: Enrolled, file: Path) -> None:
    with running(enrolled, catalogue=CATALOGUE) as rig:
        run_id = change(rig, file, seconds=3)
        job = job_of(run_id)
        os.kill(job, signal.SIGSTOP)
    try:
        until(lambda: reverted(file), seconds=15)
        assert file.read_text() == "old\n"
    finally:
        os.kill(job, signal.SIGCONT)
    with running(enrolled, catalogue=CATALOGUE) as rig:
        assert rig.client.wait(run_id)["state"] == "reverted"


def test_a_job_killed_while_it_waits_is_brought_back_by_the_actor(bench: Rig, file: Path) -> None:
    run_id = change(bench, file)
    began = time.monotonic()
    os.kill(job_of(run_id), signal.SIGKILL)
    run = bench.client.wait(run_id)
    assert (run["state"], file.read_text()) == ("reverted", "old\n")
    assert time.monotonic() - began < 10


def test_a_run_that_does_not_wait_cannot_be_confirmed(bench: Rig) -> None:
    run = bench.client.wait(begin(bench, "process.script", script="true"))
    reply = confirm(bench, run["id"])
    assert (reply.status, reply.json()["type"]) == (409, "not-confirmable")
