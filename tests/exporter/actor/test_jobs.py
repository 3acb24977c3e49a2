"""Runs in processes of their own: they outlive the actor, and their results are not lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.exporter.actor.conftest import Enrolled, Rig, running
from tests.exporter.actor.jobcatalogue import CATALOGUE, REPOSITORY

from narthex_exporter.actor import jobs as jobs_module
from narthex_exporter.contract.wire import new_run_id

# The program starts beside the tests' own modules, which an isolated interpreter would not find.
PROGRAM = (
    sys.executable, "-c",
    (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import runpy;"
        "runpy.run_module('tests.exporter.actor.jobprogram', run_name='__main__')"
    ),
)  # fmt: skip


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    one = Enrolled(tmp_path / "node")
    one.config = replace(one.config, program=PROGRAM)
    return one


@pytest.fixture
def bench(enrolled: Enrolled) -> Iterator[Rig]:
    with running(enrolled, catalogue=CATALOGUE) as one:
        yield one


def until(true: Callable[[], Any], *, seconds: float = 10.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found


def begin(rig: Rig, name: str, /, **params: Any) -> str:
    planned = rig.client.plan(name, **params)
    assert planned.status == 200, planned.body
    run_id = new_run_id()
    reply = rig.client.submit(name, plan=planned.json()["digest"], run_id=run_id, **params)
    assert reply.status == 202, reply.body
    return run_id


def job_of(run_id: str) -> int:
    """Find the process of a run's job."""

    def look() -> int:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = entry.read_bytes().split(b"\0")
                if b"carry-out" in words and run_id.encode() in words:
                    return int(entry.parent.name)
        return 0

    found: int = until(look)
    return found


def state_of(rig: Rig, run_id: str) -> str:
    state: str = rig.client.get(run_id).json()["state"]
    return state


def test_a_job_runs_beside_the_actor_and_tells_its_output_while_it_runs(bench: Rig) -> None:
    run_id = begin(bench, "process.script", script="echo first; sleep 2; echo second")
    live = until(lambda: (bench.client.get(run_id).json()["steps"] or [{}])[0].get("output"))
    assert live.strip() == "first"
    run = bench.client.wait(run_id)
    assert (run["state"], run["steps"][0]["output"].split()) == ("succeeded", ["first", "second"])
    assert [row["event"] for row in bench.audit_rows if row.get("op") == run_id] == [
        "run.accepted", "run.finished",
    ]  # fmt: skip


def test_a_job_outlives_its_actor_and_its_result_is_told_by_the_next(
    enrolled: Enrolled, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    with running(enrolled, catalogue=CATALOGUE) as first:
        script = f"echo x >> {proof}; sleep 1.5; echo done"
        run_id = begin(first, "process.script", script=script)
        until(proof.exists)
    with running(enrolled, catalogue=CATALOGUE) as second:
        assert state_of(second, run_id) == "running"
        busy = second.client.plan("process.script", script=script).json()["digest"]
        reply = second.client.submit(
            "process.script", plan=busy, run_id=new_run_id(), script=script
        )
        assert (reply.status, reply.json()["run"]) == (409, run_id)
        run = second.client.wait(run_id)
        assert (run["state"], run["steps"][0]["output"].strip()) == ("succeeded", "done")
        events = [row["event"] for row in second.audit_rows if row.get("op") == run_id]
        assert events == ["run.accepted", "run.finished"]
    assert proof.read_text() == "x\n"


def test_a_job_that_ends_while_no_actor_runs_is_told_by_the_next(
    enrolled: Enrolled, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    with running(enrolled, catalogue=CATALOGUE) as first:
        run_id = begin(first, "process.script", script=f"echo x >> {proof}; sleep 0.5")
        until(proof.exists)
        job = job_of(run_id)
    until(lambda: not Path(f"/proc/{job}").exists())
    with running(enrolled, catalogue=CATALOGUE) as second:
        assert state_of(second, run_id) == "succeeded"
        rows = [row["event"] for row in second.audit_rows if row.get("op") == run_id]
        assert rows == ["run.accepted", "run.finished"]
    with running(enrolled, catalogue=CATALOGUE) as third:
        rows = [row["event"] for row in third.audit_rows if row.get("op") == run_id]
        assert rows == ["run.accepted", "run.finished"]


def test_76_a_job_that_is_killed_is_lost_and_never_a_success(bench: Rig, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    run_id = begin(bench, "process.script", script=f"echo x >> {proof}; sleep 60")
    until(proof.exists)
    job = job_of(run_id)
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(job)], capture_output=True, text=True, check=False
    ).stdout.split()
    os.kill(job, signal.SIGKILL)
    run = bench.client.wait(run_id)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(child), signal.SIGKILL)
    assert run["state"] == "lost"
    assert "its outcome is not known" in run["error"]
    assert run["hint"] == "look at its state before running it again"
    assert run["steps"][0]["state"] == "lost"


def test_a_job_is_cancelled(bench: Rig) -> None:
    run_id = begin(bench, "process.script", script="sleep 60")
    until(lambda: state_of(bench, run_id) == "running")
    reply = bench.client.call("DELETE", f"/api/v1/runs/{run_id}", act="run", op=run_id)
    assert reply.status == 202
    assert bench.client.wait(run_id)["state"] == "cancelled"


def test_a_job_ends_at_its_time_limit_with_all_its_group(bench: Rig, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sh -c 'echo $$ > {pid}; exec sleep 60' & wait"
    run = bench.client.wait(begin(bench, "process.brief", script=script))
    assert (run["state"], "took too long" in run["error"]) == ("timed_out", True)
    until(lambda: not Path(f"/proc/{pid.read_text().strip()}").exists())


def test_77_what_a_job_prints_takes_no_memory_of_the_actor(bench: Rig) -> None:
    run = bench.client.wait(
        begin(
            bench, "process.script",
            script="echo first; yes 0123456789abcdef | head -c 100000000; echo; echo last",
        )
    )  # fmt: skip
    (step,) = run["steps"]
    assert (run["state"], step["truncated"], len(step["output"]) < 1_100_000) == (
        "succeeded", True, True,
    )  # fmt: skip
    assert (step["output"].split()[0], step["output"].split()[-1]) == ("first", "last")


def test_a_job_is_judged_again_by_the_policy_of_the_node(
    bench: Rig, enrolled: Enrolled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The policy may change between acceptance and the job's own start."""
    start = jobs_module.Jobs.start

    def narrowed(*arguments: Any) -> None:
        enrolled.write_policy("version: 1\nmode: read-only\n")
        start(*arguments)

    monkeypatch.setattr(jobs_module.Jobs, "start", narrowed)
    run = bench.client.wait(begin(bench, "process.script", script=f"touch {tmp_path}/proof"))
    assert (run["state"], "read-only" in run["error"]) == ("failed", True)
    assert not (tmp_path / "proof").exists()


def test_a_job_that_cannot_be_started_did_nothing(enrolled: Enrolled, tmp_path: Path) -> None:
    enrolled.config = replace(enrolled.config, program=("/nonexistent/python",))
    with running(enrolled, catalogue=CATALOGUE) as rig:
        run = rig.client.wait(begin(rig, "process.script", script=f"touch {tmp_path}/proof"))
    assert (run["state"], run["error"].startswith("nothing was done")) == ("failed", True)
    assert not (tmp_path / "proof").exists()
