"""Drop-ins, timers, limits, started programs and users' units, on a real systemd."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.lab.conftest import Lab

pytestmark = pytest.mark.systemd

SLEEPER = "[Unit]\nDescription=A unit of the lab\n[Service]\nExecStart=/bin/sleep infinity\n"
# Started without PAM and logind, which the lab has not.
MANAGER = "[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n"
RUNTIME_DIR = """\
[Service]
ExecStart=
ExecStart=/bin/sh -c 'mkdir -p /run/user/%i; chown %i:1000 /run/user/%i; chmod 700 /run/user/%i'
ExecStop=
"""


@pytest.fixture
def unit(lab: Lab) -> str:
    name = "lab-unit.service"
    lab.machine.unit(name, SLEEPER)
    lab.machine.run("systemctl", "start", name)
    return name


def succeeded(run: dict[str, Any]) -> dict[str, Any]:
    assert run["state"] == "succeeded", (run["error"], run["steps"])
    return run


def undone(lab: Lab, run: dict[str, Any]) -> dict[str, Any]:
    return succeeded(lab.client.run(run["undo"]["action"], **run["undo"]["params"]))


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_drop_in_is_written_takes_effect_and_is_undone(lab: Lab, unit: str) -> None:
    content = "[Unit]\nDescription=Changed by a drop-in\n"
    run = succeeded(lab.client.run("service.edit-drop-in", unit=unit, name="lab", content=content))
    assert [step["state"] for step in run["steps"]] == ["succeeded"] * 3
    assert lab.machine.show(unit, "Description") == "Changed by a drop-in"
    detail = lab.client.query("service.get", unit=unit).json()
    assert {"path": f"/etc/systemd/system/{unit}.d/lab.conf", "content": content,
            "drop_in": "lab"} in detail["files"]  # fmt: skip
    undone(lab, run)
    assert lab.machine.show(unit, "Description") == "A unit of the lab"


def test_a_drop_in_is_shown_as_a_diff_and_undone_by_its_old_text(lab: Lab, unit: str) -> None:
    for nice in (3, 4):
        content = f"[Service]\nNice={nice}\n"
        plan = lab.client.plan(
            "service.edit-drop-in", unit=unit, name="nice", content=content
        ).json()
        run = lab.client.run("service.edit-drop-in", unit=unit, name="nice", content=content)
    assert "-Nice=3\n+Nice=4\n" in plan["diff"]
    assert any(unit in offer["params"].values() for offer in plan["offers"])
    undone(lab, run)
    assert lab.machine.show(unit, "Nice") == "3"
    succeeded(lab.client.run("service.remove-drop-in", unit=unit, name="nice"))
    assert lab.machine.show(unit, "Nice") == "0"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[Service]\nMemoryMax=banana\n", "Invalid memory limit 'banana'"),
        ("[Service]\nNoSuchThing=1\n", "Unknown key 'NoSuchThing'"),
        ("[Service]\nExecStart=\n", "lab-unit.service"),
        ("nonsense\n", "Assignment outside of section"),
    ],
)
def test_a_drop_in_that_systemd_does_not_accept_is_not_written(
    lab: Lab, unit: str, content: str, words: str
) -> None:
    reply = lab.client.plan("service.edit-drop-in", unit=unit, name="bad", content=content)
    assert reply.status == 409
    assert words in reply.json()["detail"]
    assert not (lab.machine.root / f"etc/systemd/system/{unit}.d/bad.conf").exists()


def test_a_drop_in_needs_to_be_named_by_the_policy(lab: Lab, unit: str) -> None:
    old = lab.enrolled.config.policy_file.read_text()
    try:
        lab.enrolled.write_policy(old.replace("  - service.edit-drop-in\n", ""))
        lab.machine.run("systemctl", "reload", "narthex-actor")
        wait_for(lambda: _status(lab, unit) == 403)
        succeeded(lab.client.run("service.set-property", unit=unit, tasks_max="77"))
    finally:
        lab.enrolled.write_policy(old)
        lab.machine.run("systemctl", "reload", "narthex-actor")
    wait_for(lambda: _status(lab, unit) == 200)


def _status(lab: Lab, unit: str) -> int:
    content = "[Service]\nNice=1\n"
    return lab.client.plan("service.edit-drop-in", unit=unit, name="x", content=content).status


def test_what_an_administrator_changed_is_reverted(lab: Lab) -> None:
    # A unit of the vendor's, which no test starts.
    unit = "systemd-tmpfiles-clean.service"
    content = "[Unit]\nDescription=Mine\n"
    lab.client.run("service.edit-drop-in", unit=unit, name="mine", content=content)
    assert lab.machine.show(unit, "Description") == "Mine"
    run = succeeded(lab.client.run("service.revert", unit=unit))
    assert lab.machine.show(unit, "Description") != "Mine"
    undone(lab, run)
    assert lab.machine.show(unit, "Description") == "Mine"
    succeeded(lab.client.run("service.revert", unit=unit))


def test_limits_hold_at_once_and_are_undone(lab: Lab, unit: str) -> None:
    first = succeeded(
        lab.client.run("service.set-property", unit=unit, cpu_quota="50%", memory_max="200M")
    )
    assert lab.machine.show(unit, "CPUQuotaPerSecUSec") == "500ms"
    assert lab.machine.show(unit, "MemoryMax") == str(200 << 20)
    second = succeeded(lab.client.run("service.set-property", unit=unit, cpu_quota="75%"))
    undone(lab, second)
    assert lab.machine.show(unit, "CPUQuotaPerSecUSec") == "500ms"
    undone(lab, first)
    assert lab.machine.show(unit, "CPUQuotaPerSecUSec") == "infinity"
    assert lab.machine.show(unit, "MemoryMax") == "infinity"


def test_a_timer_is_made_elapses_is_changed_and_removed(lab: Lab) -> None:
    # Its words must reach the program as they are: no shell, variable nor specifier.
    timer = {
        "name": "lab-tick",
        "user": "alice",
        "command": ["/usr/bin/printf", "%s|", "$HOME", 'a "b"', "c\\d", "%h", "; id", "'"],
        "calendar": "*-*-* *:*:0/2",
    }
    plan = lab.client.plan("service.create-timer", **timer).json()
    assert sum(note.startswith("run ") for note in plan["notes"]) == 5
    run = succeeded(lab.client.run("service.create-timer", **timer))
    listed = lab.client.query("service.list", type="timer", match="lab-tick").json()["units"]
    assert listed[0]["next_elapse"] is not None
    wanted = '$HOME|a "b"|c\\d|%h|; id|\'|'
    wait_for(lambda: wanted in _logged(lab, "lab-tick.service"))
    assert lab.machine.show("lab-tick.service", "User") == "alice"
    assert lab.machine.show("lab-tick.service", "NoNewPrivileges") == "yes"

    slow = {**timer, "calendar": "yearly", "persistent": True}
    edited = succeeded(lab.client.run("service.edit-timer", **slow))
    assert "*-01-01" in lab.machine.show("lab-tick.timer", "TimersCalendar")
    undone(lab, edited)
    assert "*-01-01" not in lab.machine.show("lab-tick.timer", "TimersCalendar")

    removed = undone(lab, run)
    assert lab.machine.show("lab-tick.timer", "LoadState") == "not-found"
    undone(lab, removed)
    assert lab.machine.show("lab-tick.timer", "ActiveState") == "active"
    succeeded(lab.client.run("service.remove-timer", name="lab-tick"))
    left = [path.name for path in (lab.machine.root / "etc/systemd/system").rglob("lab-tick*")]
    assert left == []


def _logged(lab: Lab, unit: str) -> str:
    return "\n".join(lab.client.query("service.journal", unit=unit).json()["lines"])


def test_a_program_is_started_as_a_user_with_its_words_as_they_are(lab: Lab) -> None:
    words = ["$HOME", "${PATH}", "%h", "a b", "; id", "--help", "-x"]
    run = succeeded(
        lab.client.run(
            "process.start", name="lab-words", user="alice", working_directory="/tmp",  # noqa: S108
            command=["/usr/bin/env", "sh", "-c", 'echo "$(id -un) $(pwd) $A"; printf "<%s>" "$@"',
                     "sh", *words],
            environment=["A=b c; $d %h"], memory_max_mib=64, cpu_quota_percent=50,
        )
    )  # fmt: skip
    assert run["undo"] == {"action": "service.stop", "params": {"unit": "run-lab-words.service"}}
    wait_for(lambda: "alice /tmp b c; $d %h" in _logged(lab, "run-lab-words.service"))
    wanted = "".join(f"<{word}>" for word in words)
    assert wanted in _logged(lab, "run-lab-words.service")


def test_a_started_program_cannot_become_root_and_is_stopped_by_undo(lab: Lab) -> None:
    run = succeeded(
        lab.client.run("process.start", name="lab-long", user="alice",
                       command=["/bin/sleep", "300"])
    )  # fmt: skip
    assert run["after"]["active_state"] == "active"
    status = (lab.machine.root / f"proc/{run['after']['main_pid']}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Uid:\t1000" in status
    undone(lab, run)
    assert not Path(lab.machine.root / f"proc/{run['after']['main_pid']}").exists()


@pytest.mark.parametrize(
    ("user", "words"),
    [("root", "root is root"), ("bob", "is in the group docker"), ("nobody1", "no user nobody1")],
)
def test_a_user_who_can_become_root_starts_nothing(lab: Lab, user: str, words: str) -> None:
    reply = lab.client.plan("process.start", name="lab-no", user=user, command=["/bin/true"])
    assert reply.status == 409
    assert words in reply.json()["detail"]


def test_a_program_that_does_not_start_says_so(lab: Lab) -> None:
    run = lab.client.run("process.start", name="lab-none", user="alice", command=["/no/such"])
    assert run["state"] == "failed"
    assert "/no/such" in str(run)


def test_what_owns_a_process_is_restarted(lab: Lab, unit: str) -> None:
    pid = int(lab.machine.show(unit, "MainPID"))
    found = lab.client.query("process.get", pid=pid).json()["process"]
    succeeded(lab.client.run("process.restart", pid=pid, start_ticks=found["start_ticks"]))
    assert int(lab.machine.show(unit, "MainPID")) not in {0, pid}


def test_a_unit_is_told_with_all_that_it_is(lab: Lab, unit: str) -> None:
    lab.machine.unit(unit, f"{SLEEPER}Environment=API_TOKEN=hunter2 PLAIN=seen\n")
    lab.machine.run("systemctl", "restart", unit)
    found = lab.client.query("service.get", unit=unit).json()
    assert "hunter2" not in str(found)
    assert found["environment"] == ["API_TOKEN=***", "PLAIN=seen"]
    assert "sysinit.target" in found["relations"]["Requires"]
    assert found["commands"] == ["ExecStart: /bin/sleep infinity"]
    assert [one["comm"] for one in found["processes"]] == ["sleep"]


def test_a_condition_that_is_not_met_is_told(lab: Lab) -> None:
    condition = "[Unit]\nConditionPathExists=/no\n[Service]\nExecStart=/bin/true\n"
    lab.machine.unit("lab-never.service", condition)
    # Who wants it keeps it loaded, with what became of its conditions.
    lab.machine.unit("lab-wants.service", f"[Unit]\nWants=lab-never.service\n{SLEEPER}")
    lab.machine.run("systemctl", "start", "lab-wants.service", "lab-never.service")
    found = lab.client.query("service.get", unit="lab-never.service").json()
    assert found["unmet"] == [{"name": "ConditionPathExists", "argument": "/no"}]
    lab.machine.run("systemctl", "stop", "lab-wants.service")


def test_units_of_every_type_are_listed_failed_ones_first(lab: Lab) -> None:
    lab.machine.unit("lab-fails.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
    lab.machine.run("systemctl", "start", "lab-fails.service", check=False)
    units = lab.client.query("service.list", type="all").json()["units"]
    assert units[0]["active_state"] == "failed"
    kinds = {unit["name"].rpartition(".")[2] for unit in units}
    assert {"service", "socket", "timer", "target", "mount", "slice"} <= kinds
    failed = lab.client.query("service.list", state="failed").json()["units"]
    assert "lab-fails.service" in {unit["name"] for unit in failed}
    lab.machine.run("systemctl", "reset-failed", "lab-fails.service")


@pytest.fixture
def users_unit(lab: Lab) -> str:
    lab.machine.write("/etc/systemd/system/user@.service.d/lab.conf", MANAGER)
    lab.machine.write("/etc/systemd/system/user-runtime-dir@.service.d/lab.conf", RUNTIME_DIR)
    lab.machine.write("/run/systemd/user/lab-own.service", SLEEPER)
    lab.machine.run("systemctl", "daemon-reload")
    lab.machine.run("systemctl", "start", "user@1000.service")
    return "lab-own.service"


def test_a_unit_of_a_user_is_started_and_stopped_by_their_own_systemd(
    lab: Lab, users_unit: str
) -> None:
    run = succeeded(lab.client.run("service.start", unit=users_unit, user="alice"))
    assert run["resource"] == f"service/alice/{users_unit}"
    assert run["after"]["active_state"] == "active"
    listed = lab.client.query("service.list", user="alice", match="lab-own").json()["units"]
    assert [one["active_state"] for one in listed] == ["active"]
    detail = lab.client.query("service.get", unit=users_unit, user="alice").json()
    pid = detail["unit"]["main_pid"]
    assert [one["pid"] for one in detail["processes"]] == [pid]
    process = lab.client.query("process.get", pid=pid).json()["process"]
    assert (process["user"], process["owner_user_unit"]) == ("alice", users_unit)
    succeeded(lab.client.run("process.restart", pid=pid, start_ticks=process["start_ticks"]))
    assert not (lab.machine.root / f"proc/{pid}").exists()
    succeeded(lab.client.run("service.stop", unit=users_unit, user="alice"))
    succeeded(lab.client.run("service.daemon-reload", user="alice"))
    # The system's own systemd knows nothing of it.
    assert lab.client.query("service.get", unit=users_unit).json()["unit"] is None


def test_a_user_cannot_lead_us_to_the_systems_own_systemd(lab: Lab, users_unit: str) -> None:
    private = lab.machine.root / "run/user/1000/systemd/private"
    private.rename(private.with_name("kept"))
    private.symlink_to("/run/systemd/private")
    try:
        reply = lab.client.plan("service.start", unit="lab-unit.service", user="alice")
        assert reply.status == 503
        assert "belongs to user 0, not to 1000" in reply.json()["detail"]
    finally:
        private.unlink()
        private.with_name("kept").rename(private)


def test_a_user_without_a_systemd_is_told(lab: Lab) -> None:
    reply = lab.client.query("service.list", user="bob")
    assert reply.status == 409
    assert "bob has no systemd running" in reply.json()["detail"]
