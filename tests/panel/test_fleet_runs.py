"""Running on many nodes, and schedules, through the pages."""

from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.panel.fakes import World
from tests.panel.test_pages import CSRF, FRAGMENT, faults

from narthex_operator.services.access import Role

NODES = [f"{number:016x}" for number in (1, 2, 3)]


def test_an_action_is_chosen_planned_and_run_on_the_selected_nodes(
    client: FlaskClient, world: World
) -> None:
    empty = client.post("/fleet-runs/new", data={**CSRF, "node": NODES}, headers=FRAGMENT)
    assert "On 3 nodes." in empty.text
    assert "Show what will be done" not in empty.text
    data: dict[str, Any] = {**CSRF, "node": NODES, "action": "service.restart"}
    chosen = client.post("/fleet-runs/new", data=data, headers=FRAGMENT)
    assert 'name="unit"' in chosen.text
    assert 'name="canary"' in chosen.text
    data |= {"chosen": "1", "unit": "nginx.service", "canary": "1", "batch": "10%"}
    planned = client.post("/fleet-runs/new", data=data, headers=FRAGMENT)
    assert "RestartUnit" in planned.text
    assert "2 nodes the same:" in planned.text
    assert "1 node refuses:" in planned.text
    assert "Go on without the nodes that refuse" in planned.text
    for page in (empty, chosen, planned):
        assert faults(page.text) == []
    form = {**CSRF, "plan": "d" * 64, "canary": "1", "batch": "10%", "leave_out_refused": "1"}
    refused = client.post("/fleet-runs", data=form, headers=FRAGMENT)
    assert "must say why" in refused.text
    done = client.post("/fleet-runs", data={**form, "reason": "now"}, headers=FRAGMENT)
    assert done.headers["HX-Redirect"] == "/fleet-runs/0190-f"
    (sent,) = world.submitted
    assert (sent["strategy"].canary, sent["strategy"].batch, sent["left_out"]) == (1, "10%", True)


@pytest.mark.parametrize("wrong", [{"batch": "x"}, {"canary": "-1"}, {"parallel": "1000"}])
def test_a_wrong_strategy_is_told(client: FlaskClient, wrong: dict[str, str]) -> None:
    data = {**CSRF, "node": NODES, "action": "service.restart", "unit": "a.service",
            "chosen": "1", **wrong}  # fmt: skip
    page = client.post("/fleet-runs/new", data=data, headers=FRAGMENT)
    assert page.status_code == 200
    assert next(iter(wrong)) in page.text
    assert "notice-bad" in page.text


def test_a_halted_one_can_go_on_skip_its_gate_or_be_cancelled(
    client: FlaskClient, world: World
) -> None:
    page = client.get("/fleet-runs/0190-g").text
    assert "Halted" in page
    assert "1 of 12 nodes failed" in page
    for path, form in (("resume", {}), ("resume", {"skip_gate": "1"}), ("cancel", {})):
        reply = client.post(f"/fleet-runs/0190-g/{path}", data={**CSRF, **form})
        assert reply.status_code == 303
    assert world.submitted == [
        {"resume": "0190-g", "skip_gate": False},
        {"resume": "0190-g", "skip_gate": True},
        {"cancel": "0190-g"},
    ]


def test_the_failed_can_be_tried_again(client: FlaskClient) -> None:
    assert "Retry the failed" in client.get("/fleet-runs/0190-h").text
    page = client.post("/fleet-runs/0190-h/retry", data=CSRF, headers=FRAGMENT)
    assert "RestartUnit" in page.text
    assert 'name="plan"' in page.text


def test_who_may_only_look_is_offered_nothing(client: FlaskClient, world: World) -> None:
    world.role = Role.VIEWER
    page = client.get("/fleet-runs/0190-g").text
    assert "Let it go on" not in page
    assert "Run now" not in client.get("/schedules/nightly").text
    assert client.post("/schedules/nightly/run", data=CSRF).status_code == 403
    data = {**CSRF, "node": NODES, "action": "service.restart", "unit": "a.service", "chosen": "1"}
    assert client.post("/fleet-runs/new", data=data, headers=FRAGMENT).status_code == 403


def test_a_schedule_is_added_switched_run_and_removed(client: FlaskClient, world: World) -> None:
    form = {**CSRF, "action": "service.restart", "name": "nightly", "on": "@web",
            "cron": "0 3 * * *", "unit": "nginx.service", "reason": "x"}  # fmt: skip
    assert client.post("/add-schedule", data=form).headers["Location"] == "/schedules/nightly"
    spec = world.submitted[0]["schedule"]
    assert (spec.on, spec.params, spec.timezone) == ("@web", {"unit": "nginx.service"}, "UTC")
    wrong = client.post("/add-schedule", data={**form, "name": "Nightly!"})
    assert "notice-bad" in wrong.text
    for path in ("run", "switch", "remove"):
        assert client.post(f"/schedules/nightly/{path}", data=CSRF).status_code == 303
    assert world.submitted[1:] == [
        {"run_now": "nightly"}, {"change": "nightly", "enabled": False}, {"remove": "nightly"},
    ]  # fmt: skip
    assert "anna may not act any more" in client.get("/schedules/paused").text


def test_labels_are_edited_as_lines(client: FlaskClient, world: World) -> None:
    assert "env=prod" in client.get("/nodes/web-1/labels").text
    form = {**CSRF, "group": "web", "labels": "env=test\n\n role = db \n"}
    reply = client.post("/nodes/web-1/labels", data=form, headers=FRAGMENT)
    assert reply.headers["HX-Redirect"] == "/nodes/web-1/overview"
    assert world.submitted == [{"labels": {"env": "test", "role": "db"}, "group": "web"}]
    wrong = client.post("/nodes/web-1/labels", data={**form, "labels": "name=x"})
    assert "this name is taken" in wrong.text
