"""Golden messages of protocol 1: the node sends them, the operator's tests accept them.

``REGENERATE=1`` writes them anew: within version 1 a diff may only add.
"""

import datetime as dt
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.exporter.actions.conftest import PretendedFacts, pretended

from narthex_exporter.actions import CATALOGUE as ACTIONS
from narthex_exporter.actor.engine import BusyError
from narthex_exporter.actor.execution import Execution
from narthex_exporter.actor.plans import make_plan
from narthex_exporter.actor.policy import parse_policy
from narthex_exporter.actor.problems import InvalidError, as_problem
from narthex_exporter.actor.runner import Runner
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.contract.steps import DBusCall
from narthex_exporter.contract.wire import (
    AuditReply,
    FieldError,
    Manifest,
    Run,
    RunState,
    StepRecord,
    describe_action,
    describe_query,
)
from narthex_exporter.queries import CATALOGUE as QUERIES

GOLDEN = Path(__file__).parents[2] / "wire" / "v1"
RUN_ID = "019ab0c4-5f00-7000-8000-000000000001"
COMMENT = f"n1 0a1b2c3d {RUN_ID} 1900000000 shop"
FACTS = pretended(
    {
        "units": [
            {
                "name": "nginx.service",
                "description": "A web server",
                "unit_file_state": "enabled",
                "fragment_path": "/usr/lib/systemd/system/nginx.service",
                "main_pid": 4242,
                "required_by": ["app.service"],
                "result": "success",
            }
        ],
        "listeners": [
            {
                "protocol": "tcp",
                "address": "0.0.0.0",  # noqa: S104 - as it is told
                "port": 80,
                "pid": 4242,
                "comm": "nginx",
                "unit": "nginx.service",
                "first_seen_seconds": 1767323045.0,
            },
        ],
        "connections": [
            {
                "protocol": "tcp",
                "local_address": "10.0.0.1",
                "local_port": 80,
                "peer_address": "10.0.0.9",
                "peer_port": 40000,
                "pid": 4242,
                "comm": "nginx",
                "unit": "nginx.service",
            },
        ],
        "always_allow": [["10.0.0.5/32", 19100]],
        "nft": [
            "table inet narthex { # handle 1",
            "\tchain guard { # handle 1",
            "\t\ttype filter hook prerouting priority -150; policy accept;",
            f'\t\tip saddr 10.0.0.0/24 tcp dport 80 accept comment "{COMMENT}" # handle 2',
            '\t\tdrop comment "narthex default" # handle 3',
            "\t}",
            "}",
        ],
        "processes": [
            {
                "pid": 4242,
                "start_ticks": 777,
                "comm": "nginx",
                "cmdline": "nginx\x00--token=abc",
                "owner_unit": "nginx.service",
                "cpu_ratio": 0.25,
            }
        ],
    }
)
NGINX = {"unit": "nginx.service"}
CONTAINERS = pretended(
    {
        "containers": [
            {
                "name": "shop-web-1", "project": "shop", "service": "web",
                "created_seconds": 1.7e9, "started_seconds": 1.7e9, "networks": ["shop_default"],
                "ports": [{"protocol": "tcp", "port": 80, "host_address": "10.0.0.1",
                           "host_port": 8080}],
                "mounts": [{"kind": "volume", "source": "data", "target": "/d"}],
            }
        ],
        "images": [{"id": "sha256:" + "1" * 64, "tags": ["web:1"], "used_by": ["shop-web-1"]}],
        "volumes": [{"name": "data", "size_bytes": 10, "used_by": ["shop-web-1"]}],
        "networks": [{"name": "shop_default", "subnets": ["172.20.0.0/16"]}],
        "projects": [{"name": "shop", "services": [
            {"name": "web", "containers": ["shop-web-1"], "running": 1}]}],
        "files": {"/srv/shop/compose.yaml": "services: {}\n"},
        "inspect": {"Config": {"Env": ["DB_PASSWORD=hunter2", "TZ=UTC"], "Cmd": ["web"]}},
        "logs": [{"container": "shop-web-1", "stream": "stderr", "at_seconds": 1.7e9,
                  "text": "hello"}],
    }
)  # fmt: skip


class Now:
    """A clock that moves one second at each look."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> dt.datetime:
        self.seconds += 1
        return dt.datetime(2026, 1, 2, 3, 4, self.seconds, tzinfo=dt.UTC)


class Calls:
    """Systemd as it answers a restart, or fails it."""

    def __init__(self, *, state: RunState, output: str) -> None:
        self.answer = (state, int(state is not RunState.SUCCEEDED), output)

    def call(
        self, step: DBusCall, *, timeout_seconds: float, cancelled: threading.Event
    ) -> tuple[RunState, int, str]:
        del step, timeout_seconds, cancelled
        return self.answer


def manifest() -> Manifest:
    policy = parse_policy(b"version: 1\nmode: manage\ndanger: {service: safe}", name="golden")
    return Manifest(
        version="0.1.0",
        node="n-1",
        instance="5d4fc01e0d296d93c03aa198180a2c93",
        boot_id="036a1267-80f1-4b19-8f6c-345eaf4619dc",
        policy=policy.summary(),
        actions=tuple(describe_action(one) for _, one in sorted(ACTIONS.items())),
        queries=tuple(
            describe_query(
                one, unavailable="systemd is not running" if "systemd" in one.needs else ""
            )
            for _, one in sorted(QUERIES.items())
        ),
    )


def run(state: RunState, output: str) -> Run:
    action, now = ACTIONS["service.restart"], Now()
    params = action.params.model_validate(NGINX)
    plan = make_plan(action, params, FACTS)
    caller = Calls(state=state, output=output)
    accepted = Run(
        id=RUN_ID,
        action=action.name,
        resource=params.resource,
        state=RunState.QUEUED,
        params=params.model_dump(mode="json"),
        steps=tuple(StepRecord(text=one.describe(), state=RunState.QUEUED) for one in plan.steps),
        accepted_at=now(),
    )
    execution = Execution(
        run=accepted,
        plan=plan,
        params=params,
        facts=FACTS,
        runner=Runner(start_ticks=lambda _pid: None, dbus=caller, clock=lambda: 0.0),
        tell=lambda _run: None,
        clock=lambda: 0.0,
        now=now,
    )
    if state is RunState.CANCELLED:
        execution.cancelled.set()
    return execution.carry_out()


def query(name: str, params: dict[str, Any], facts: PretendedFacts = FACTS) -> Any:
    return QUERIES[name].read(QUERIES[name].params.model_validate(params), facts)


def told(name: str, **params: Any) -> Callable[[], BaseModel]:
    """Ask a node with containers."""
    return lambda: query(name, params, CONTAINERS)


MESSAGES: dict[str, Callable[[], BaseModel]] = {
    "audit": lambda: AuditReply(seq=7, head="a" * 64),
    "manifest": manifest,
    "plan": lambda: make_plan(
        ACTIONS["service.restart"],
        ACTIONS["service.restart"].params.model_validate(NGINX),
        FACTS,
    ).reply(),
    "problem-busy": lambda: as_problem(
        BusyError(f"run {RUN_ID} is acting on x", run=RUN_ID, hint="wait for its end")
    ),
    "problem-invalid": lambda: as_problem(
        InvalidError((FieldError(path="params.unit", message="Field required"),))
    ),
    "problem-refused": lambda: as_problem(RefusedError("nginx.service is masked", hint="unmask")),
    "query-compose.file": told("compose.file", project="shop", file="/srv/shop/compose.yaml"),
    "query-compose.get": told("compose.get", project="shop"),
    "query-compose.list": told("compose.list"),
    "query-container-network.list": told("container-network.list"),
    "query-container.get": told("container.get", container="shop-web-1"),
    "query-container.list": told("container.list"),
    "query-container.logs": told("container.logs", containers=["shop-web-1"]),
    "query-image.list": told("image.list"),
    "query-volume.list": told("volume.list"),
    "query-firewall.export": lambda: query("firewall.export", {}),
    "query-firewall.get": lambda: query("firewall.get", {}),
    "query-port.connections": lambda: query("port.connections", {}),
    "query-port.list": lambda: query("port.list", {}),
    "query-host.info": lambda: query("host.info", {}),
    "query-process.get": lambda: query("process.get", {"pid": 4242}),
    "query-process.list": lambda: query("process.list", {}),
    "query-service.get": lambda: query("service.get", NGINX),
    "query-service.list": lambda: query("service.list", {}),
    "run-cancelled": lambda: run(RunState.CANCELLED, ""),
    "run-failed": lambda: run(RunState.FAILED, "systemd's job ended with: failed"),
    "run-succeeded": lambda: run(RunState.SUCCEEDED, "job done"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_node_sends_the_golden_message(name: str) -> None:
    sent = MESSAGES[name]().model_dump(mode="json")
    file = GOLDEN / f"{name}.json"
    if os.environ.get("REGENERATE") == "1":
        file.write_text(json.dumps(sent, indent=2) + "\n")
    assert sent == json.loads(file.read_text()), "REGENERATE=1, and read the diff"


@pytest.mark.parametrize("name", MESSAGES)
def test_a_reader_ignores_what_a_newer_node_adds(name: str) -> None:
    message = MESSAGES[name]()
    sent = message.model_dump(mode="json")
    read = type(message).model_validate({**sent, "added_later": 1})
    assert read.model_dump(mode="json") == sent


def test_every_golden_message_is_sent() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(MESSAGES)
