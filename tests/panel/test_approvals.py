"""The pages of approvals, of a node's policy, and what a run's page says of both."""

import pytest
from flask.testing import FlaskClient
from tests.panel.fake_approvals import DIGEST
from tests.panel.fakes import World

from narthex_operator.services.access import Role

CSRF = {"csrf_token": "csrf-token"}


def test_what_waits_is_counted_in_the_navigation_for_who_can_approve(
    client: FlaskClient, world: World
) -> None:
    assert '<span class="nav-count" title="1 waits for you">1</span>' in client.get("/").text
    world.role = Role.VIEWER
    assert "nav-count" not in client.get("/").text


def test_a_person_approves_the_exact_plan_and_takes_it_back(
    client: FlaskClient, world: World
) -> None:
    page = client.get("/approvals/0190-p").text
    for shown in (
        "RestartUnit(nginx.service", "23 connections are open", "+worker 4;",
        "the certificate was", "nginx.service", f'value="{DIGEST}"',
    ):  # fmt: skip
        assert shown in page
    wrong = client.post("/approvals/0190-p/approve", data={**CSRF, "plan": "0" * 64})
    assert "is not the plan" in wrong.text
    assert world.approvals == {}
    done = client.post("/approvals/0190-p/approve", data={**CSRF, "plan": DIGEST})
    assert (done.status_code, done.headers["Location"]) == (303, "/runs/0190-p")
    page = client.get("/approvals/0190-p").text
    assert "Take my approval back" in page
    assert "1 of 2" in page
    client.post("/approvals/0190-p/withdraw", data=CSRF)
    assert world.approvals == {"0190-p": []}


def test_whoever_asked_is_told_why_they_cannot_approve(client: FlaskClient, world: World) -> None:
    page = client.get("/approvals/0190-q").text
    assert "whoever asked for a run cannot approve it" in page
    assert "/approvals/0190-q/approve" not in page
    refused = client.post("/approvals/0190-q/approve", data={**CSRF, "plan": DIGEST})
    assert "whoever asked" in refused.text
    assert world.approvals == {}


def test_a_request_is_rejected_with_a_reason(client: FlaskClient, world: World) -> None:
    assert "must say why" in client.post("/approvals/0190-p/reject", data=CSRF).text
    client.post("/approvals/0190-p/reject", data={**CSRF, "reason": "not today"})
    assert world.rejected == {"0190-p": "not today"}


def test_who_may_not_run_it_can_neither_approve_nor_reject(
    client: FlaskClient, world: World
) -> None:
    world.role = Role.VIEWER
    page = client.get("/approvals/0190-p").text
    assert "/approve" not in page
    assert "/reject" not in page


def test_the_policy_says_what_each_role_can_do_here_and_why_not(
    client: FlaskClient, world: World
) -> None:
    page = client.get("/nodes/web-1/policy").text
    assert "ssh*, systemd-*, dbus*" in page
    assert "30/min" in page
    assert "permission action:" not in page
    viewer = client.get("/nodes/web-1/policy?role=viewer").text
    assert "the permission action:service.restart is missing" in viewer
    assert "0 actions of" in viewer
    world.systemd = False
    assert "systemd is not running" in client.get("/nodes/web-1/policy").text
    world.actor_off = True
    assert "Nobody can do anything on this node now" in client.get("/nodes/web-1/policy").text


@pytest.mark.parametrize(("role", "status"), [(Role.ADMIN, 303), (Role.OPERATOR, 403)])
def test_an_admin_narrows_what_is_sent_to_a_node(
    client: FlaskClient, world: World, role: Role, status: int
) -> None:
    world.role = role
    form = {**CSRF, "service": "safe", "process": ""}
    assert client.post("/nodes/web-1/ceiling", data=form).status_code == status
    world.role = Role.OPERATOR
    page = client.get("/nodes/web-1/policy").text
    narrowed = "this operator sends at most what is safe of the service actions" in page
    assert narrowed is (status == 303)
    assert ("form-select" in page.partition("What can be done here")[0]) is False


def test_a_run_says_how_long_it_waits_and_what_was_brought_back(client: FlaskClient) -> None:
    waits = client.get("/runs/0190-d").text
    assert "Waits for confirmation" in waits
    assert 'data-time="left"' in waits
    assert "ssh port 22: refused" in waits
    assert "The node brought everything back" in client.get("/runs/0190-e").text


def test_a_run_is_undone_by_the_plan_of_its_undo(client: FlaskClient, world: World) -> None:
    page = client.get("/runs/0190-f").text
    assert '"/nodes/web-1/actions/service.start?unit=nginx.service"' in page
    world.role = Role.VIEWER
    assert "service.start" not in client.get("/runs/0190-f").text
