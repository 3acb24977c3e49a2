"""SECURITY.md 25 and 59: what comes back for good, bad and hostile requests."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.exporter.actor.conftest import Client, Enrolled, Rig, Sleeper, running

from narthex_exporter.actor.facts import NodeFacts
from narthex_exporter.contract.headers import (
    PROBLEM_TYPE,
)
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.contract.wire import (
    Manifest,
    Problem,
    new_run_id,
)
from narthex_exporter.queries import CATALOGUE as QUERIES
from narthex_exporter.sources.systemd import Units

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=200),
    JSON.map(lambda value: json.dumps(value).encode()),
    JSON.map(lambda value: json.dumps({"params": value}).encode()),
    JSON.map(lambda value: json.dumps({"params": value, "plan": value, "reason": ""}).encode()),
    st.fixed_dictionaries({"pid": JSON, "start_ticks": JSON, "signal": JSON}).map(
        lambda params: json.dumps({"params": params, "plan": "x"}).encode()
    ),
    st.integers(1, 50_000).map(lambda depth: b"[" * depth),
    st.text(max_size=50).map(lambda text: json.dumps({"params": {"unit": text}}).encode()),
)
PATHS = st.sampled_from(
    [
        ("process.signal", "/api/v1/actions/process.signal/runs"),
        ("process.signal", "/api/v1/actions/process.signal/plans"),
        ("service.restart", "/api/v1/actions/service.restart/runs"),
        ("process.list", "/api/v1/queries/process.list"),
        ("process.get", "/api/v1/queries/process.get"),
    ]
)


def send(client: Client, act: str, target: str, body: bytes, method: str = "POST") -> Any:
    ticket = client.sign(client.claims(method, target, body, act=act))
    return client.raw(method, target, body, {"Narthex-Ticket": ticket})


@settings(
    max_examples=500,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=BODIES, path=PATHS)
def test_no_body_makes_a_fault_or_an_unwanted_run(
    rig: Rig, body: bytes, path: tuple[str, str]
) -> None:
    reply = send(rig.client, *path, body)
    assert reply.status in {200, 400, 409, 422}
    assert reply.headers["Replay-Nonce"]
    if reply.status != 200:
        assert reply.headers["Content-Type"] == PROBLEM_TYPE
        assert "Traceback" not in reply.body.decode()
    assert not [row for row in rig.audit_rows if row["event"] == "run.accepted"]


@pytest.mark.parametrize(
    "params",
    [
        rb'{"match": "\ud800"}', rb'{"\ud800": 1}', rb'{"match": "\u0000"}', b'{"limit": 1e400}',
        b'{"limit": ' + b"9" * 5000 + b"}", b'{"limit": -0}', b'{"limit": true}', b'{"": {}}',
        b'{"limit": 1, "limit": 2}', b'{"match": "' + b"x" * 100_000 + b'"}',
    ],
)  # fmt: skip
def test_no_odd_json_makes_a_fault(rig: Rig, params: bytes) -> None:
    body = b'{"params": ' + params + b"}"
    reply = send(rig.client, "process.list", "/api/v1/queries/process.list", body)
    assert reply.status in {200, 400, 422}


def test_a_body_that_is_too_long_is_refused(rig: Rig) -> None:
    reply = send(rig.client, "host.info", "/api/v1/queries/host.info", b"x" * ((1 << 20) + 1))
    assert reply.status == 413


@pytest.mark.parametrize(
    ("act", "method", "target", "body", "status", "kind"),
    [
        ("x", "GET", "/api/v1/nowhere", b"", 404, "not-found"),
        ("x", "GET", "/", b"", 404, "not-found"),
        ("x", "PUT", "/api/v1/manifest", b"", 405, "method-not-allowed"),
        ("x.y", "POST", "/api/v1/queries/x.y", b'{"params":{}}', 404, "unknown-query"),
        ("x.y", "POST", "/api/v1/actions/x.y/plans", b'{"params":{}}', 404, "unknown-action"),
        ("__class__", "POST", "/api/v1/queries/__class__", b"{}", 404, "unknown-query"),
        ("host.info", "POST", "/api/v1/queries/host.info", b"", 400, "body-invalid"),
        ("host.info", "POST", "/api/v1/queries/host.info", b"NaN", 400, "body-invalid"),
        ("host.info", "POST", "/api/v1/queries/host.info", b'{"a":1,"a":2}', 400, "body-invalid"),
        ("host.info", "POST", "/api/v1/queries/host.info", b"[]", 422, "params-invalid"),
        ("host.info", "POST", "/api/v1/queries/host.info", b'{"x":1}', 422, "params-invalid"),
        ("service.list", "POST", "/api/v1/queries/service.list", b"{}", 409, "not-available"),
    ],
)  # fmt: skip
def test_a_wrong_request_gets_the_problem_that_names_it(
    rig: Rig, act: str, method: str, target: str, body: bytes, *, status: int, kind: str
) -> None:
    reply = send(rig.client, act, target, body, method)
    problem = Problem.model_validate_json(reply.body)
    assert (reply.status, problem.status, problem.type) == (status, status, kind)
    assert reply.headers["Content-Type"] == PROBLEM_TYPE


def test_invalid_fields_are_named_by_their_paths(rig: Rig) -> None:
    problem = rig.client.plan("process.signal", pid="x", colour="red").json()
    assert sorted(error["path"] for error in problem["errors"]) == [
        "params.colour",
        "params.pid",
        "params.start_ticks",
    ]


def test_every_reply_carries_a_fresh_nonce_and_stays_out_of_caches(rig: Rig) -> None:
    replies = [
        rig.client.raw("GET", "/api/v1/nonce"),
        rig.client.raw("GET", "/nowhere"),
        rig.client.query("host.info"),
        rig.client.query("nowhere.x"),
    ]
    nonces = {reply.headers["Replay-Nonce"] for reply in replies}
    assert len(nonces) == len(replies)
    assert {reply.headers["Cache-Control"] for reply in replies} == {"no-store"}
    assert len({reply.headers["Narthex-Instance"] for reply in replies}) == 1


def test_the_manifest_tells_what_is_possible_here_and_why_not(rig: Rig) -> None:
    reply = rig.client.call("GET", "/api/v1/manifest", act="manifest")
    manifest = Manifest.model_validate_json(reply.body)
    found = {action.name: action for action in manifest.actions}
    assert found["process.signal"].available
    if not Path("/run/systemd/system").is_dir():  # see sd_booted(3)
        assert found["service.restart"].unavailable_reason == "systemd is not running"
    assert manifest.instance == reply.headers["Narthex-Instance"]


def test_an_unchanged_manifest_is_not_sent_again(rig: Rig) -> None:
    tag = rig.client.call("GET", "/api/v1/manifest", act="manifest").headers["ETag"]
    claims = rig.client.claims("GET", "/api/v1/manifest", b"", act="manifest")
    headers = {"Narthex-Ticket": rig.client.sign(claims), "If-None-Match": tag}
    reply = rig.client.raw("GET", "/api/v1/manifest", b"", headers)
    assert (reply.status, reply.body) == (304, b"")


def test_the_events_of_a_run_end_with_its_end(rig: Rig, sleeper: Sleeper) -> None:
    run = rig.client.run("process.signal", **sleeper.named)
    reply = rig.client.call("GET", f"/api/v1/runs/{run['id']}/events", act="run", op=run["id"])
    assert reply.headers["Content-Type"].startswith("application/x-ndjson")
    assert [json.loads(line) for line in reply.body.splitlines()] == [run]


def test_a_run_id_must_be_a_uuid_of_version_7(rig: Rig, sleeper: Sleeper) -> None:
    plan = rig.client.plan("process.signal", **sleeper.named).json()["digest"]
    for run_id in ("", "x", new_run_id().upper(), "0" * 36, new_run_id() + "\n", "../" * 12):
        reply = rig.client.submit("process.signal", plan=plan, run_id=run_id, **sleeper.named)
        assert reply.status == 401


def test_a_bus_that_does_not_answer_is_told_and_is_no_fault(rig: Rig, tmp_path: Path) -> None:
    # A node where systemd runs, and its bus is dead.
    (tmp_path / "bus").write_text("")
    engine = rig.actor.engine
    units = Units(
        run=engine.runner.read,
        stream=engine.runner.stream,
        bus_socket=tmp_path / "bus",
        runtime=tmp_path,
    )
    assert isinstance(engine.facts, NodeFacts)
    engine.facts = dataclasses.replace(engine.facts, units=units)
    engine.needs = {**rig.actor.engine.needs, "systemd": units.unavailable}
    for reply in (
        rig.client.query("service.list"),
        rig.client.plan("service.restart", unit="nginx.service"),
    ):
        assert (reply.status, reply.json()["type"]) == (503, "unavailable")
        assert "cannot reach the system bus" in reply.json()["detail"]


def test_queries_answer_with_their_declared_results(enrolled: Enrolled) -> None:
    with running(enrolled, catalogue=Catalogue(queries=QUERIES)) as rig:
        for name in ("process.list", "host.info"):
            reply = rig.client.query(name)
            assert QUERIES[name].result.model_validate_json(reply.body)
        pid = {"pid": os.getpid()}
        found = rig.client.query("process.get", **pid).json()["process"]
        assert found["is_ours"] is True
        assert rig.client.query("process.get", pid=4_194_304).json()["process"] is None


def test_the_audit_is_read_row_by_row(rig: Rig) -> None:
    head = {"seq": 5, "head": "a" * 64}
    first = rig.client.call("GET", "/api/v1/audit?after=0&limit=1", act="audit", ah=head).json()
    assert [row["event"] for row in first["rows"]] == ["actor.started"]
    assert (first["seq"], first["first"]) == (2, 1)
    rest = rig.client.call("GET", "/api/v1/audit?after=1", act="audit", ah=head).json()
    # The operator's head is written down once, before it is answered.
    assert [(row["event"], row["operator_head"]) for row in rest["rows"]] == [
        ("operator.witnessed", head)
    ]
    assert rest["rows"][-1]["hash"] == rest["head"]
    assert rest["rows"] == rig.audit_rows[1:]


def test_text_that_is_no_unicode_can_be_read_back(rig: Rig) -> None:
    rig.actor.audit.append("test.row", text="\udc80\ud800")
    told = rig.client.call("GET", "/api/v1/audit?after=1", act="audit").json()
    assert told["rows"] == rig.audit_rows[1:]


@pytest.mark.parametrize(
    "query",
    ["after=", "after=-1", "after=x", "after=1&limit=501", "after=1e3", "after=" + "9" * 5000,
     "after=\u0661"],
)  # fmt: skip
def test_a_wrong_place_to_read_on_from_is_named(rig: Rig, query: str) -> None:
    target = f"/api/v1/audit?{quote(query, safe='=&')}"
    reply = rig.client.call("GET", target, act="audit")
    assert (reply.status, reply.json()["type"]) == (422, "params-invalid")
