import time
from typing import Any

import pytest
from tests.lab.conftest import Lab

from narthex_exporter.contract.wire import new_run_id

pytestmark = pytest.mark.systemd

KILL = ("systemctl", "kill", "--kill-whom=main", "--signal=KILL")

SLEEPER = """\
[Unit]
Description=A service of the lab
[Service]
ExecStart=/bin/sleep infinity
ExecReload=/bin/true
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture
def sleeper(lab: Lab) -> str:
    lab.machine.unit("lab-sleeper.service", SLEEPER)
    lab.machine.run("systemctl", "start", "lab-sleeper.service")
    return "lab-sleeper.service"


def states(run: dict[str, Any]) -> tuple[str, str]:
    return run["state"], run["after"]["active_state"]


def test_the_actor_starts_when_its_socket_is_used(lab: Lab) -> None:
    assert lab.client.raw("GET", "/api/v1/nonce").status == 204
    assert lab.machine.show("narthex-actor.service", "ActiveState") == "active"


def test_services_are_listed_with_their_states(lab: Lab, sleeper: str) -> None:
    reply = lab.client.query("service.list").json()
    found = {unit["name"]: unit for unit in reply["units"]}
    assert found[sleeper]["active_state"] == "active"
    assert found[sleeper]["description"] == "A service of the lab"
    assert reply["total"] == len(found)
    types = {name.rpartition(".")[2] for name in found}
    assert types == {"service"}


def test_a_node_with_systemd_says_so(lab: Lab) -> None:
    assert lab.client.query("host.info").json()["systemd_unavailable"] == ""
    manifest = lab.client.call("GET", "/api/v1/manifest", act="manifest").json()
    available = {action["name"]: action["available"] for action in manifest["actions"]}
    assert available["service.restart"]


def test_a_restart_gives_the_service_a_new_process(lab: Lab, sleeper: str) -> None:
    before = lab.machine.show(sleeper, "MainPID")
    run = lab.client.run("service.restart", unit=sleeper)
    assert states(run) == ("succeeded", "active"), run
    assert lab.machine.show(sleeper, "MainPID") != before
    assert [step["output"] for step in run["steps"]] == ["job done"]


def test_stop_and_start_undo_each_other(lab: Lab, sleeper: str) -> None:
    assert states(lab.client.run("service.stop", unit=sleeper)) == ("succeeded", "inactive")
    assert lab.machine.show(sleeper, "ActiveState") == "inactive"
    assert states(lab.client.run("service.start", unit=sleeper)) == ("succeeded", "active")
    assert lab.machine.show(sleeper, "ActiveState") == "active"


def test_a_reload_keeps_the_process(lab: Lab, sleeper: str) -> None:
    before = lab.machine.show(sleeper, "MainPID")
    assert states(lab.client.run("service.reload", unit=sleeper)) == ("succeeded", "active")
    assert lab.machine.show(sleeper, "MainPID") == before


@pytest.mark.parametrize(
    ("do", "undo", "done"),
    [
        ("service.enable", "service.disable", "enabled"),
        ("service.mask", "service.unmask", "masked"),
    ],
)
def test_a_unit_file_state_is_changed_and_changed_back(
    lab: Lab, sleeper: str, do: str, undo: str, done: str
) -> None:
    assert lab.client.run(do, unit=sleeper)["after"]["unit_file_state"] == done
    assert lab.machine.show(sleeper, "UnitFileState") == done
    assert lab.client.run(undo, unit=sleeper)["after"]["unit_file_state"] == "disabled"
    assert lab.machine.show(sleeper, "UnitFileState") == "disabled"


def test_a_masked_service_is_not_started(lab: Lab, sleeper: str) -> None:
    lab.client.run("service.mask", unit=sleeper)
    try:
        reply = lab.client.plan("service.start", unit=sleeper)
        assert (reply.status, reply.json()["hint"]) == (409, "unmask it first")
    finally:
        lab.client.run("service.unmask", unit=sleeper)


def test_a_service_that_fails_to_start_tells_its_journal(lab: Lab) -> None:
    text = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo cannot bind port 80; exit 3'\n"
    lab.machine.unit("lab-broken.service", text)
    run = lab.client.run("service.start", unit="lab-broken.service")
    assert states(run) == ("failed", "failed")
    assert "cannot bind port 80" in run["steps"][0]["output"]
    detail = lab.client.query("service.get", unit="lab-broken.service").json()
    assert (detail["unit"]["result"], detail["unit"]["exit_status"]) == ("exit-code", 3)
    assert any("cannot bind port 80" in line for line in detail["journal"])
    assert states(lab.client.run("service.reset-failed", unit="lab-broken.service")) == (
        "succeeded",
        "inactive",
    )


def test_a_service_that_dies_right_after_its_start_is_no_success(lab: Lab) -> None:
    lab.machine.unit("lab-dies.service", "[Service]\nExecStart=/bin/sh -c 'echo dying; exit 1'\n")
    run = lab.client.run("service.start", unit="lab-dies.service")
    assert states(run) == ("failed", "failed")
    assert run["error"] == "lab-dies.service was started, and failed (exit-code)"
    assert "dying" in run["steps"][0]["output"]


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("lab-nowhere.service", "there is no unit lab-nowhere.service"),
        ("narthex-actor.service", "is part of Narthex"),
        ("systemd-poweroff.service", "changes the state of the whole system"),
        ("lab-alias.service", "is another name of lab-sleeper.service"),
    ],
)
def test_a_unit_that_must_not_be_stopped_is_refused(
    lab: Lab, sleeper: str, unit: str, words: str
) -> None:
    alias = lab.machine.root / "run/systemd/system/lab-alias.service"
    if not alias.is_symlink():
        alias.symlink_to(sleeper)
        lab.machine.run("systemctl", "daemon-reload")
    reply = lab.client.plan("service.stop", unit=unit)
    assert reply.status == 409
    assert words in reply.json()["detail"]


def test_a_protected_unit_is_refused_and_so_are_its_processes(lab: Lab) -> None:
    lab.machine.unit("lab-protected.service", SLEEPER)
    lab.machine.run("systemctl", "start", "lab-protected.service")
    assert lab.client.plan("service.stop", unit="lab-protected.service").status == 403
    pid = int(lab.machine.show("lab-protected.service", "MainPID"))
    found = lab.client.query("process.get", pid=pid).json()["process"]
    assert found["owner_unit"] == "lab-protected.service"
    reply = lab.client.plan("process.signal", pid=pid, start_ticks=found["start_ticks"])
    assert reply.status == 403
    assert "lab-protected.service" in reply.json()["detail"]


def test_a_process_of_a_service_suggests_to_restart_the_service(lab: Lab, sleeper: str) -> None:
    pid = int(lab.machine.show(sleeper, "MainPID"))
    found = lab.client.query("process.get", pid=pid).json()["process"]
    plan = lab.client.plan("process.signal", pid=pid, start_ticks=found["start_ticks"]).json()
    assert any(sleeper in note and "service.restart" in note for note in plan["notes"])


def start_slowly(lab: Lab, name: str, *, write: bool = True) -> str:
    if write:
        lab.machine.unit(name, "[Service]\nType=oneshot\nExecStart=/bin/sleep 300\n")
    planned = lab.client.plan("service.start", unit=name).json()
    run_id = new_run_id()
    reply = lab.client.submit("service.start", plan=planned["digest"], run_id=run_id, unit=name)
    assert reply.status == 202
    deadline = time.monotonic() + 10
    while lab.machine.show(name, "ActiveState") != "activating":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return run_id


def test_a_start_that_takes_long_can_be_cancelled(lab: Lab) -> None:
    run_id = start_slowly(lab, "lab-slow.service")
    assert lab.client.call("DELETE", f"/api/v1/runs/{run_id}", act="run", op=run_id).status == 202
    # What systemd had begun goes on, and the result says so.
    assert states(lab.client.wait(run_id)) == ("cancelled", "activating")
    lab.machine.run("systemctl", "stop", "lab-slow.service")


def kill_actor(lab: Lab) -> None:
    """Kill the actor, and wait until the next one is there."""
    pid = int(lab.machine.show("narthex-actor.service", "MainPID"))
    lab.machine.run(*KILL, "narthex-actor.service")
    # Until it is gone, its socket still takes connections, to no end.
    deadline = time.monotonic() + 10
    while int(lab.machine.show("narthex-actor.service", "MainPID")) in {0, pid}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_75_a_run_outlives_an_actor_that_is_killed_or_restarted(lab: Lab) -> None:
    """SECURITY #75, for systemd's own work: the transient unit sees it through."""
    lab.machine.unit(
        "lab-long.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sleep 4\n",
    )
    run_id = start_slowly(lab, "lab-long.service", write=False)
    kill_actor(lab)
    assert lab.client.get(run_id).json()["state"] == "running"
    lab.machine.run("systemctl", "restart", "narthex-actor.service")
    run = lab.client.wait(run_id)
    assert states(run) == ("succeeded", "active")
    assert [step["output"] for step in run["steps"]] == ["job done"]
    unit = f"narthex-job-{run_id}.service"
    deadline = time.monotonic() + 10
    while lab.machine.show(unit, "LoadState") != "not-found":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_76_a_run_whose_job_is_killed_is_lost_and_tells_what_is(lab: Lab) -> None:
    run_id = start_slowly(lab, "lab-lost.service")
    unit = f"narthex-job-{run_id}.service"
    lab.machine.run(*KILL, unit)
    run = lab.client.wait(run_id)
    assert run["state"] == "lost"
    assert run["after"]["active_state"] == "activating"
    lab.machine.run("systemctl", "stop", "lab-lost.service")


def test_92_an_actor_that_crashes_again_and_again_leaves_its_jobs_alone(lab: Lab) -> None:
    run_id = start_slowly(lab, "lab-crash.service")
    for _ in range(5):
        kill_actor(lab)
    assert lab.client.get(run_id).json()["state"] == "running"
    assert lab.client.call("DELETE", f"/api/v1/runs/{run_id}", act="run", op=run_id).status == 202
    assert lab.client.wait(run_id)["state"] == "cancelled"
    lab.machine.run("systemctl", "stop", "lab-crash.service")
