"""Real firewall changes by the shipped actor: kept once confirmed, else brought back."""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.exporter.sources.namespaces import TRY, Helper, Namespace, namespace, served
from tests.lab.conftest import POLICY, Lab

from narthex_exporter.actions.firewalltable import FILE, UNIT
from narthex_exporter.contract.wire import new_run_id

pytestmark = pytest.mark.systemd

HERE, THERE = "10.9.0.1", "10.9.0.2"
FIREWALL_POLICY = POLICY.replace(
    "service: disruptive}", "service: disruptive, firewall: disruptive}"
)
SECONDS = 15
LIMIT_SECONDS = 65


@dataclass
class Outside:
    """A neighbour of the machine: where the operator would be."""

    helper: Helper

    def reaches(self, port: int) -> bool:
        question = {"tries": [(THERE, HERE, "tcp", port)], "seconds": 0.5}
        found: bool = self.helper.ask(question)[f"{THERE} tcp {port}"]
        return found


@pytest.fixture(scope="module")
def outside(lab: Lab) -> Iterator[Outside]:
    inside = Namespace(lab.machine.init)
    with namespace() as other:
        wire = ("ip", "link", "add", "wan0", "type", "veth", "peer", "eth0", "netns")
        inside.run(*wire, str(other.pid))
        for one, address, name in ((inside, HERE, "wan0"), (other, THERE, "eth0")):
            one.run("ip", "addr", "add", f"{address}/24", "dev", name)
            one.run("ip", "link", "set", name, "up")
            one.run("ip", "link", "set", "lo", "up")
        with served(inside, "t19100", "t8080"), other.helper(TRY) as helper:
            yield Outside(helper)
        inside.run("ip", "link", "del", "wan0")


@pytest.fixture(autouse=True)
def policy(lab: Lab) -> Iterator[None]:
    text = FIREWALL_POLICY + f"firewall: {{rollback_seconds: {SECONDS}}}\n"
    lab.enrolled.write_policy(text)
    lab.machine.run("systemctl", "reload-or-restart", "narthex-actor.service")
    yield
    lab.enrolled.write_policy(POLICY)
    lab.machine.run("systemctl", "reload-or-restart", "narthex-actor.service")


def begin(lab: Lab, name: str, /, **params: Any) -> str:
    planned = lab.client.plan(name, **params)
    assert planned.status == 200, planned.body
    run_id = new_run_id()
    digest = planned.json()["digest"]
    reply = lab.client.submit(name, plan=digest, run_id=run_id, **params)
    assert reply.status == 202, reply.body
    deadline = time.monotonic() + 20
    while (state := lab.client.get(run_id).json())["state"] in {"queued", "running"}:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    assert state["state"] == "confirming", state["steps"][0]["output"]
    return run_id


def ruleset(lab: Lab) -> str:
    return lab.machine.run("nft", "list", "ruleset")


def test_a_confirmed_rule_is_kept_over_a_reboot(lab: Lab, outside: Outside) -> None:
    run_id = begin(lab, "firewall.set-default-policy", policy="drop")
    assert not outside.reaches(8080)
    target = f"/api/v1/runs/{run_id}/confirm"
    assert lab.client.call("POST", target, {}, act="run", op=run_id).status == 202
    assert lab.client.wait(run_id)["state"] == "succeeded"
    run_id = begin(lab, "firewall.open-port", port=8080, source=f"{THERE}/32", comment="shop")
    assert outside.reaches(8080)
    target = f"/api/v1/runs/{run_id}/confirm"
    assert lab.client.call("POST", target, {}, act="run", op=run_id).status == 202
    run = lab.client.wait(run_id)
    assert (run["state"], run["after"]["reachable_from"]) == ("succeeded", f"{THERE}/32")
    rules = lab.client.query("firewall.get").json()["rules"]
    (mine,) = [one for one in rules if one["owner"] == "narthex"]
    assert (mine["run"], mine["comment"], mine["action"]) == (run_id, "shop", "accept")
    # What a boot does: nothing is there, and the unit that was enabled is started.
    assert lab.machine.run("systemctl", "is-enabled", UNIT) == "enabled"
    before = ruleset(lab)
    lab.machine.run("nft", "flush", "ruleset")
    lab.machine.run("systemctl", "restart", UNIT)
    assert ruleset(lab) == before
    (port,) = [
        one for one in lab.client.query("port.list").json()["ports"]
        if one["port"] == 8080 and "::" not in one["address"]
    ]  # fmt: skip
    assert (port["reach"], port["networks"]) == ("networks", [f"{THERE}/32"])
    lab.machine.run("nft", "delete", "table", "inet", "narthex")
    lab.machine.run("systemctl", "disable", "--now", UNIT)
    lab.machine.run("rm", FILE)


@pytest.mark.parametrize("fault", ["alive", "stopped", "killed"])
def test_79_a_rule_that_cuts_the_operator_is_brought_back(
    lab: Lab, outside: Outside, fault: str
) -> None:
    assert outside.reaches(19100)
    before = ruleset(lab)
    run_id = begin(lab, "firewall.deny-source", source=f"{THERE}/32")
    cut_at = time.monotonic()
    assert not outside.reaches(19100)
    pids = [
        int(lab.machine.show(unit, "MainPID"))
        for unit in ("narthex-actor.service", f"narthex-job-{run_id}.service")
    ]
    number = {"alive": 0, "stopped": signal.SIGSTOP, "killed": signal.SIGKILL}[fault]
    for pid in pids if number else []:
        lab.machine.run("kill", f"-{int(number)}", str(pid))
    while not outside.reaches(19100):
        assert time.monotonic() - cut_at < LIMIT_SECONDS
    assert ruleset(lab) == before
    if fault == "stopped":
        for pid in pids:
            lab.machine.run("kill", f"-{int(signal.SIGCONT)}", str(pid))
    assert lab.client.wait(run_id)["state"] == "reverted"
    assert not (lab.machine.root / FILE.lstrip("/")).exists()
