"""An operator in a stranger's hands, with every key: the node's own policy still holds.

SECURITY.md's tests 24 and 25.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.exporter.actions.conftest import pretended
from tests.exporter.actor.conftest import Enrolled, Reply, Rig, Sleeper, running, started

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.actor.audit import verify
from narthex_exporter.contract.tickets import Approval
from narthex_exporter.contract.wire import new_run_id

POLICY = """\
version: 1
mode: manage
danger: {process: reversible, service: disruptive}
service: {deny: ["ssh*", "systemd-*", "dbus*", "narthex-*"], allow: ["nginx.service", "app-*"]}
process: {protect_users: [root], protect_comm: [sshd]}
require_approvals: {disruptive: 2}
"""
UNITS = [
    {"name": "nginx.service", "aliases": ["www.service"], "main_pid": 1},
    {"name": "app-ssh.service", "aliases": ["ssh.service", "sshd.service"]},
    {"name": "ssh.socket", "triggers": ("ssh.service",)},
    {"name": "app-alias.service", "aliases": ["dbus.service"]},
    {"name": "systemd-logind.service"},
    {"name": "cron.service"},
]
SERVICE_VERBS = sorted(name for name in CATALOGUE if name.startswith("service."))
# Denied, denied by another name, triggering what is denied, and not on the list.
FORBIDDEN_UNITS = (
    "ssh.service", "sshd.service", "app-ssh.service", "dbus.service", "app-alias.service",
    "ssh.socket", "systemd-logind.service", "cron.service",
)  # fmt: skip


@pytest.fixture
def strict(enrolled: Enrolled) -> Iterator[Rig]:
    """An actor that believes to have systemd with these units; processes are the real ones."""
    enrolled.write_policy(POLICY)
    with running(enrolled) as rig:
        facts = pretended({"units": UNITS})
        real = rig.actor.engine.facts

        class Mixed:
            def __getattr__(self, name: str) -> Any:
                return getattr(facts if name == "units" else real, name)

        rig.actor.engine.facts = Mixed()
        rig.actor.engine.needs = {"systemd": lambda: ""}
        yield rig


def attempts(sleeper: Sleeper) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """List what is tried: an action, its parameters, and claims that are made up for it."""
    own = sleeper.named
    # Above the family's ceiling, whatever the signal.
    signals = ("TERM", "KILL", "INT", "QUIT", "HUP", "USR1", "STOP", "CONT")
    made: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("process.signal", {**own, "signal": signal}, {}) for signal in signals
    ]
    # Of a user that is protected: this machine's tests run as root.
    made += [("process.renice", {**own, "nice": nice}, {}) for nice in (-20, 0, 5, 19)]
    made += [(verb, {"unit": unit}, {}) for verb in SERVICE_VERBS[:6] for unit in FORBIDDEN_UNITS]
    return [
        *made[:57],
        # An allowed unit without, with too few, and with doubled and invented approvals.
        ("service.restart", {"unit": "nginx.service"}, {}),
        ("service.restart", {"unit": "nginx.service"}, {"apr": approved("user:1", "user:2")}),
        ("service.stop", {"unit": "nginx.service"}, {"apr": approved("user:2", "user:2")}),
    ]


def approved(*users: str) -> tuple[Approval, ...]:
    return tuple(Approval(user=user, at=int(time.time()), id=user) for user in users)


def attempt(rig: Rig, name: str, params: dict[str, Any], claims: dict[str, Any]) -> Reply:
    """Ask for a run at once: who holds the keys needs no plan but its digest."""
    plan = rig.client.plan(name, **params)
    digest = plan.json().get("digest", "0" * 64)
    body = {"params": params, "plan": digest, "reason": "mine"}
    target = f"/api/v1/actions/{name}/runs"
    return rig.client.call("POST", target, body, act=name, op=new_run_id(), **claims)


def policy_rows(rig: Rig) -> int:
    return sum(
        row["event"] == "request.refused" and row["reason"] == "policy"
        and row.get("act") in CATALOGUE for row in rig.audit_rows
    )  # fmt: skip


def refuse_all(rig: Rig, tried: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> None:
    for name, params, claims in tried:
        before = policy_rows(rig)
        body = {"params": params, "plan": "0" * 64, "reason": "mine"}
        if claims or params.get("unit") == "nginx.service":
            reply = attempt(rig, name, params, claims)
        else:
            target = f"/api/v1/actions/{name}/runs"
            reply = rig.client.call("POST", target, body, act=name, op=new_run_id(), **claims)
        assert reply.status == 403, (name, params, reply.body)
        assert reply.json()["type"] == "policy-refused"
        assert policy_rows(rig) == before + 1, (name, params)


@pytest.mark.skipif(os.geteuid() != 0, reason="the sleeper must be root's: run as root")
def test_24_sixty_operations_that_the_policy_forbids_are_refused_and_written_down(
    strict: Rig, sleeper: Sleeper
) -> None:
    tried = attempts(sleeper)
    assert len(tried) == 60
    assert len({json.dumps(one[:2]) for one in tried}) >= 58
    nice = os.getpriority(os.PRIO_PROCESS, sleeper.pid)
    refuse_all(strict, tried)
    assert policy_rows(strict) == 60
    assert [row for row in strict.audit_rows if row["event"] == "run.accepted"] == []
    assert sleeper.process.poll() is None
    assert os.getpriority(os.PRIO_PROCESS, sleeper.pid) == nice
    verify(strict.enrolled.home / "actor" / "audit.jsonl")


def test_24_no_request_of_the_protocol_changes_the_policy(strict: Rig) -> None:
    file = strict.enrolled.config.policy_file
    before = file.read_bytes()
    wider = {"version": 1, "mode": "manage", "danger": {"process": "destructive"}}
    for method in ("GET", "POST", "PUT", "DELETE"):
        for path in (
            "/api/v1/policy",
            "/api/v1/files/etc/narthex/policy.yaml",
            "/api/v1/manifest",
        ):
            reply = strict.client.call(method, path, wider, act="manifest")
            assert reply.status in {200, 400, 401, 404, 405}, (method, path, reply.body)
    assert file.read_bytes() == before
    manifest = strict.client.call("GET", "/api/v1/manifest", act="manifest").json()
    assert manifest["policy"]["danger"]["process"] == "reversible"


# Parameters that are valid for each action; what they name need not exist.
VALID: dict[str, dict[str, Any]] = {
    "process.signal": {"signal": "TERM"},
    "process.renice": {"nice": 5},
}


@pytest.mark.parametrize("mode", ["read-only", "off"])
def test_25_a_mode_below_manage_refuses_every_action(enrolled: Enrolled, mode: str) -> None:
    enrolled.write_policy(f"version: 1\nmode: {mode}\ndanger: {{process: destructive}}\n")
    with running(enrolled) as rig, started() as sleeper:
        rig.actor.engine.needs = {"systemd": lambda: ""}
        wanted = {"read-only": 200, "off": 403}[mode]
        assert rig.client.query("host.info").status == wanted
        refused = 0
        for name, action in sorted(CATALOGUE.items()):
            fields = action.params.model_json_schema()["properties"]
            params = {
                **({"unit": "nginx.service"} if "unit" in fields else {}),
                **(sleeper.named if "pid" in fields else {}),
                **VALID.get(name, {}),
            }
            try:
                action.params.model_validate(params)
            except ValueError:
                params = example_of(fields)
            for kind, body in (
                ("plans", {"params": params}),
                ("runs", {"params": params, "plan": "0" * 64}),
            ):
                target = f"/api/v1/actions/{name}/{kind}"
                reply = rig.client.call("POST", target, body, act=name)
                assert reply.status in {403, 422}, (name, reply.body)
                refused += reply.status == 403
        assert refused >= 2 * len(
            {n for n in CATALOGUE if n.split(".")[0] in {"process", "service"}}
        )
        assert sleeper.process.poll() is None
        assert [row for row in rig.audit_rows if row["event"] == "run.accepted"] == []


def example_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Make parameters from the examples that are declared with them."""
    return {name: one["examples"][0] for name, one in fields.items() if one.get("examples")}
