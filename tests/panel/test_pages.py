"""Every page, for every role."""

import html
import os
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.panel.fakes import World
from tests.panel.world import Row
from typing_extensions import override

from narthex_exporter.contract.wire import RunState
from narthex_operator.services.access import Role
from narthex_operator.services.views import NodeState
from narthex_panel.pages import PAGES

GOLDEN = Path(__file__).parent / "golden_pages.txt"
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
FRAGMENT = {"HX-Request": "true"}
CSRF = {"csrf_token": "csrf-token"}
SIGNAL = "/nodes/web-1/actions/process.signal"
WHICH = {"pid": "4242", "start_ticks": "424200"}

ADDRESSES = (
    ("/add-node", "node:write"),
    ("/nodes/web-1/overview", "node:read"),
    ("/nodes/web-1/charts.json?minutes=360", "node:read"),
    ("/nodes/web-1/remove", "node:write"),
    ("/nodes/web-1/processes", "query:process.list"),
    ("/nodes/web-1/services", "query:service.list"),
    ("/nodes/web-1/services/nginx.service", "query:service.get"),
    ("/nodes/web-1/services/no.service", "query:service.get"),
    ("/nodes/web-1/programs", "query:supervisor.list"),
    ("/nodes/web-1/programs/shop:web_0", "query:supervisor.list"),
    ("/nodes/web-1/programs/no:no", "query:supervisor.list"),
    ("/nodes/web-1/containers", "query:container.list"),
    ("/nodes/web-1/containers/docker/shop-web-1", "query:container.get"),
    ("/nodes/web-1/containers/docker/none", "query:container.get"),
    ("/nodes/web-1/containers/images", "query:image.list"),
    ("/nodes/web-1/containers/volumes", "query:volume.list"),
    ("/nodes/web-1/containers/networks", "query:container-network.list"),
    ("/nodes/web-1/containers/compose", "query:compose.list"),
    ("/nodes/web-1/compose/docker/shop", "query:compose.get"),
    ("/nodes/web-1/compose/docker/none", "query:compose.get"),
    ("/nodes/web-1/ports", "query:port.list"),
    ("/nodes/web-1/ports/ruleset", "query:firewall.export"),
    ("/nodes/web-1/terminal/web", "node:read"),
    ("/nodes/web-1/logs", "log:read"),
    ("/nodes/web-1/alerts", "alert:read"),
    ("/nodes/web-1/runs", "node:read"),
    ("/nodes/web-1/policy", "node:read"),
    ("/nodes/web-1/policy?role=viewer", "node:read"),
    ("/approvals", "run:read"),
    ("/approvals/0190-p", "run:read"),
    ("/approvals/0190-q", "run:read"),
    ("/runs/0190-d", "run:read"),
    ("/runs/0190-e", "run:read"),
    ("/runs/0190-f", "run:read"),
    ("/alerts", "alert:read"),
    ("/alerts/history", "alert:read"),
    ("/alerts/a1", "alert:read"),
    ("/alerts/a1/silence", "alert:silence"),
    ("/runbooks/NodeDown", "alert:read"),
    ("/logs?q=timed&regex=1", "log:read"),
    ("/runs", "run:read"),
    ("/runs/0190-a", "run:read"),
    ("/fleet-runs", "run:read"),
    ("/fleet-runs/0190-f", "run:read"),
    ("/fleet-runs/0190-g", "run:read"),
    ("/fleet-runs/0190-h", "run:read"),
    ("/schedules", "schedule:read"),
    ("/schedules/nightly", "schedule:read"),
    ("/schedules/paused", "schedule:read"),
    ("/add-schedule?action=service.restart", "schedule:write"),
    ("/nodes/web-1/labels", "node:write"),
    ("/audit", "audit:read"),
    ("/audit?node=web-1&event=run.finished", "audit:read"),
    ("/settings", ""),
    ("/password", ""),
)


class Checker(HTMLParser):
    """Refuse what the content security policy refuses, and unlabelled controls."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.ids: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "style" in found or tag == "style":
            self.faults.append(f"inline style: {tag} {found}")
        if tag == "script" and "src" not in found:
            self.faults.append("inline script")
        self.faults += [f"{tag} {name}" for name in found if name.startswith(("on", "hx-on"))]
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "img" and "alt" not in found:
            self.faults.append("image without a text")

    def finish(self) -> list[str]:
        twice = {one for one in self.ids if self.ids.count(one) > 1}
        return [*self.faults, *(f"id twice: {one}" for one in twice)]


def faults(html: str) -> list[str]:
    checker = Checker()
    checker.feed(html)
    return checker.finish()


def test_the_list_of_routes_is_the_golden_one() -> None:
    routes = sorted(
        f"{' '.join(route.methods)} {route.rule} {route.permission}\n"
        for page in PAGES
        for route in page.routes
    )
    if os.environ.get("REGENERATE") == "1":
        GOLDEN.write_text("".join(routes))
    assert "".join(routes) == GOLDEN.read_text(), "REGENERATE=1, and read the diff"


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*.md")), ids=lambda path: path.stem)
def test_every_runbook_is_shown_whole(client: FlaskClient, path: Path) -> None:
    page = html.unescape(client.get(f"/runbooks/{path.stem}").text)
    text = re.sub(r"<[^>]+>", "", page)
    for line in path.read_text().splitlines():
        bare = re.sub(r"^(#+|\d+\.|-) ", "", line.strip()).replace("`", "")
        assert bare in text, bare


@pytest.mark.parametrize("name", ["Nothing", "..", "..%2F..%2FREADME", "NodeDown.md", "%00"])
def test_what_is_no_runbook_is_not_found(client: FlaskClient, name: str) -> None:
    assert client.get(f"/runbooks/{name}").status_code in {308, 404}


def test_at_most_eight_pages_stand_in_the_navigation() -> None:
    assert len([page for page in PAGES if page.nav]) <= 8


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("mode", ["full", "empty", "failing"])
def test_a_page_is_shown_to_exactly_who_may_see_it(
    client: FlaskClient, world: World, role: Role, mode: str
) -> None:
    world.role, world.mode = role, mode
    for address, permission in ADDRESSES:
        allowed = not permission or world.actor.may(permission)
        reply = client.get(address)
        if not allowed:
            assert reply.status_code == 403, address
            continue
        # A node or an alert that is not there, and a store that does not answer, are told of.
        assert reply.status_code in ({200} if mode == "full" else {200, 404, 502}), address
        if reply.mimetype == "text/html":
            assert faults(reply.text) == [], address


@pytest.mark.parametrize("language", ["en", "ru"])
def test_pages_say_their_language_and_theme(
    client: FlaskClient, world: World, language: str
) -> None:
    world.language, world.theme = language, "dark"
    text = client.get("/").text
    assert f'<html lang="{language}" data-theme="dark" data-bs-theme="dark">' in text
    assert ("Add a node" in text) is (language == "en")


def test_the_browser_chooses_the_language_of_who_did_not(client: FlaskClient) -> None:
    text = client.get("/", headers={"Accept-Language": "ru-RU,ru;q=0.9,en;q=0.5"}).text
    assert "Добавить узел" in text


def test_a_stale_or_missing_figure_is_never_shown_as_zero_or_as_well(
    client: FlaskClient, world: World
) -> None:
    text = client.get("/").text
    stale = re.search(r'<tr data-row="0{15}4".*?</tr>', text, re.DOTALL)
    down = re.search(r'<tr data-row="0{15}6".*?</tr>', text, re.DOTALL)
    assert stale is not None
    assert down is not None
    assert "Stale since" in stale.group()
    assert "meter-ok" not in stale.group() + down.group()
    assert "0%" not in down.group().replace("80%", "")


def test_without_prometheus_nothing_is_shown_as_well(client: FlaskClient, world: World) -> None:
    world.mode = "failing"
    without = client.get("/nodes/web-2/overview").text
    assert "Figures are missing" in without
    assert "state-ok" not in without


def test_a_viewer_sees_disabled_buttons_with_the_reason(client: FlaskClient, world: World) -> None:
    world.role = Role.VIEWER
    text = client.get("/nodes/web-1/processes").text
    assert "/actions/process.signal" not in text
    assert "You need the permission action:process.signal" in text
    assert 'aria-disabled="true"' in text
    assert "/silence" not in client.get("/alerts").text


def test_what_the_product_itself_runs_has_no_levers(client: FlaskClient) -> None:
    text = client.get("/nodes/web-1/processes").text
    for pid, why in ((900, "part of Narthex"), (2, "thread of the kernel"), (1, "system itself")):
        row = re.search(rf'<tr data-row="{pid}-.*?</tr>', text, re.DOTALL)
        assert row is not None
        assert why in row.group()
        assert "hx-get" not in row.group()


def test_services_say_why_they_are_not_available(client: FlaskClient, world: World) -> None:
    world.systemd = False
    assert "systemd is not running" in client.get("/nodes/web-1/services").text
    world.actor_off = True
    text = client.get("/nodes/web-1/processes").text
    assert "the actor is not enabled on this node" in text
    assert "systemctl enable --now narthex-actor.socket" in text


def test_failed_units_stand_first(client: FlaskClient) -> None:
    text = client.get("/nodes/web-1/services").text
    assert text.index("backup.service") < text.index("nginx.service")


def test_the_node_filters_its_processes(client: FlaskClient) -> None:
    text = client.get("/nodes/web-1/processes?q=postgres").text
    assert 'data-row="811-' in text
    assert 'data-row="4242-' not in text
    assert "1 of 1" in text


def test_a_plan_shows_steps_notes_danger_and_asks_for_the_reason(client: FlaskClient) -> None:
    text = client.get(SIGNAL, query_string={**WHICH, "fixed": ["pid"]}, headers=FRAGMENT).text
    assert "<html" not in text
    assert "Disruptive" in text
    assert "RestartUnit" in text
    assert "required by billing.service" in text
    assert 'name="reason"' in text
    assert 'name="plan" value="d1gest"' in text
    assert 'id="field-signal"' in text
    assert 'id="field-pid"' not in text
    assert faults(text) == []


def test_a_plan_that_misses_a_parameter_asks_for_it(client: FlaskClient) -> None:
    text = client.get("/nodes/web-1/actions/process.renice", query_string=WHICH).text
    assert 'id="field-nice"' in text
    assert 'min="-20"' in text
    assert "Show what will be done" in text
    assert 'name="plan"' not in text


def test_an_action_runs_with_typed_parameters_and_ends_on_the_run(
    client: FlaskClient, world: World
) -> None:
    form = {**CSRF, **WHICH, "signal": "KILL", "reason": "it hangs", "plan": "d1gest"}
    reply = client.post(SIGNAL, data={**form, "run_id": "0190-z"})
    assert (reply.status_code, reply.headers["Location"]) == (303, "/runs/0190-z")
    params = {"pid": 4242, "start_ticks": 424200, "signal": "KILL"}
    assert world.submitted == [
        {"action": "process.signal", "params": params, "reason": "it hangs"}
    ]
    drawer = client.post(SIGNAL, data=form, headers=FRAGMENT)
    assert "data-drawer" in drawer.text
    assert "/live/runs/" in drawer.text


def test_a_refused_run_shows_the_plan_again_with_the_reason(
    client: FlaskClient, world: World
) -> None:
    form = {**CSRF, **WHICH, "signal": "TERM", "reason": " ", "plan": "d1gest"}
    text = client.post(SIGNAL, data=form, headers=FRAGMENT).text
    assert "say why: this action is noticed by users" in text
    assert 'name="plan" value="d1gest"' in text
    assert world.submitted == []


def test_a_wrong_parameter_is_named_beside_the_form(client: FlaskClient) -> None:
    text = client.get(
        "/nodes/web-1/actions/process.renice", query_string={**WHICH, "nice": 40}
    ).text
    assert "some fields are not valid" in text
    assert "<code>params.nice</code> should be at most 19" in text
    assert 'value="40"' in text


def test_an_unknown_action_is_not_found(client: FlaskClient) -> None:
    assert client.get("/nodes/web-1/actions/disk.wipe").status_code == 404


def test_a_failed_term_offers_kill(client: FlaskClient, world: World) -> None:
    form = {**CSRF, **WHICH, "signal": "TERM", "reason": "it hangs", "plan": "d1gest"}
    client.post(SIGNAL, data={**form, "run_id": "0190-z"})
    failed = {"state": RunState.FAILED, "params": {"pid": 4242, "start_ticks": 424200}}
    world.runs["0190-z"] = world.runs["0190-z"].model_copy(update=failed)
    assert "signal=KILL" in client.get("/runs/0190-z").text


def test_signing_in_sets_a_cookie_for_this_origin_alone(client: FlaskClient) -> None:
    client.delete_cookie("__Host-sid", domain="localhost")
    form = {"name": "anna", "password": "correct horse battery", "next": "/logs?q=a"}
    reply = client.post("/sign-in", data=form)
    assert (reply.status_code, reply.headers["Location"]) == (303, "/logs?q=a")
    cookie = reply.headers["Set-Cookie"]
    assert cookie.startswith("__Host-sid=session-token;")
    for wanted in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert wanted in cookie
    assert "Domain" not in cookie


@pytest.mark.parametrize(
    ("name", "status", "says"),
    [("anna", 401, "the name or the password is wrong"), ("locked", 429, "Too many tries")],
)
def test_a_refused_sign_in_says_why(
    client: FlaskClient, name: str, status: int, says: str
) -> None:
    client.delete_cookie("__Host-sid", domain="localhost")
    reply = client.post("/sign-in", data={"name": name, "password": "x"})
    assert reply.status_code == status
    assert says in reply.text
    assert "Set-Cookie" not in reply.headers


@pytest.mark.parametrize(
    ("language", "first", "second"),
    [
        ("en", "Too many tries: wait 90 seconds,", "Too many tries: wait 21 seconds,"),
        ("ru", "попыток: подождите 90 секунд и", "попыток: подождите 21 секунду и"),
    ],
)
def test_whoever_tried_too_often_learns_how_long_to_wait(
    client: FlaskClient, world: World, language: str, first: str, second: str
) -> None:
    world.language = language
    change = {"old": "too often", "new": "a" * 12, "again": "a" * 12, **CSRF}
    reply = client.post("/password", data=change)
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "21")
    assert second in reply.text
    client.delete_cookie("__Host-sid", domain="localhost")
    form = {"name": "locked", "password": "x"}
    reply = client.post("/sign-in", data=form, headers={"Accept-Language": language})
    assert (reply.status_code, reply.headers["Retry-After"]) == (429, "90")
    assert first in reply.text
    assert "Retry-After" not in client.post("/sign-in", data={"name": "anna"}).headers


UP = ("node-up", NodeState.UP, 0.1, 0.1, 0.1, 0.1, 4, 0, "")
UNHEARD = ("node-quiet", NodeState.UP, None, None, None, None, 4, 0, "")
JOINING = ("node-new", NodeState.JOINING, None, None, None, None, None, 0, "")
REMOVED = ("node-gone", NodeState.REMOVED, None, None, None, None, None, 0, "")


@pytest.mark.parametrize(
    ("fleet", "english", "russian"),
    [
        (
            (UP, REMOVED),
            "1 node reports and no alert fires.",
            "1 узел на связи, тревог нет.",
        ),
        (
            (UP,) * 2,
            "All 2 nodes report and no alert fires.",
            "2 узла на связи, тревог нет.",
        ),
        (
            (UP, UP, JOINING, UNHEARD),
            (
                "2 of 4 nodes report and no alert fires; not joined yet: node-new;"
                " no data yet: node-quiet"
            ),
            (
                "Узлы на связи: 2 из 4, тревог нет; ещё не подключены: node-new;"
                " данных пока нет: node-quiet"
            ),
        ),
        (
            (UP, *(JOINING,) * 20),
            (
                "1 of 21 nodes reports and no alert fires; not joined yet: node-new, node-new,"
                " node-new, node-new and 16 more"
            ),
            "Узлы на связи: 1 из 21, тревог нет;",
        ),
        (
            (JOINING,),
            "No node reports yet; not joined yet: node-new",
            "Ни один узел пока не на связи; ещё не подключены: node-new",
        ),
    ],
)
def test_only_nodes_that_report_are_counted_as_such(
    client: FlaskClient, world: World, fleet: Sequence[Row], english: str, russian: str
) -> None:
    world.mode, world.fleet = "quiet", fleet
    for language, said in (("en", english), ("ru", russian)):
        world.language = language
        assert said in client.get("/").text


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/e"],
)
def test_nobody_is_sent_elsewhere_after_signing_in(client: FlaskClient, wanted: str) -> None:
    form = {"name": "anna", "password": "correct horse battery", "next": wanted}
    client.delete_cookie("__Host-sid", domain="localhost")
    assert client.post("/sign-in", data=form).headers["Location"] == "/"


def test_signing_out_ends_the_session(client: FlaskClient, world: World) -> None:
    reply = client.post("/sign-out", data=CSRF)
    assert reply.headers["Location"] == "/sign-in"
    assert world.ended_sessions == {"session-token"}
    assert client.get("/").headers["Location"] == "/sign-in?next=/"


def test_a_new_password_gives_a_new_session(client: FlaskClient, world: World) -> None:
    world.must_change_password = True
    form = {**CSRF, "old": "correct horse battery", "new": "four words here now"}
    differs = client.post("/password", data={**form, "again": "other"})
    assert (differs.status_code, "differ" in differs.text) == (422, True)
    reply = client.post("/password", data={**form, "again": "four words here now"})
    assert reply.headers["Location"] == "/"
    assert reply.headers["Set-Cookie"].startswith("__Host-sid=another-token;")
    again = client.post("/password", data={**form, "again": "four words here now"})
    assert (again.status_code, "the old password is wrong" in again.text) == (422, True)


def test_preferences_take_only_what_is_offered(client: FlaskClient, world: World) -> None:
    client.post("/settings/preferences", data={**CSRF, "language": "ru", "theme": "dark"})
    assert (world.language, world.theme) == ("ru", "dark")
    client.post("/settings/preferences", data={**CSRF, "language": "xx", "theme": "pink"})
    assert (world.language, world.theme) == ("", "system")


def test_a_node_is_added_and_its_line_shown_once(client: FlaskClient) -> None:
    form = {**CSRF, "name": "web-9", "address": "2001:db8::1"}
    text = client.post("/add-node", data=form, headers=FRAGMENT).text
    assert "narthex join https://ops.example:19101" in text
    taken = client.post("/add-node", data={**form, "name": "web-1"}, headers=FRAGMENT).text
    assert "there is a node web-1 already" in taken
    assert 'value="2001:db8::1"' in taken


def test_a_node_is_approved_by_its_id_and_removed_by_its_typed_name(
    client: FlaskClient, world: World
) -> None:
    client.post("/nodes/0000000000000007/approve", data=CSRF, headers=FRAGMENT)
    assert world.approved == {"0000000000000007"}
    wrong = client.post("/nodes/web-1/remove", data={**CSRF, "confirmation": "web-2"})
    assert wrong.status_code == 422
    right = client.post("/nodes/web-1/remove", data={**CSRF, "confirmation": "web-1"})
    assert right.headers["Location"] == "/"


def test_an_alert_is_silenced_with_a_comment_and_unsilenced(
    client: FlaskClient, world: World
) -> None:
    form: dict[str, Any] = {**CSRF, "hours": 4, "comment": "deploying"}
    reply = client.post("/alerts/a3/silence", data=form, headers=FRAGMENT)
    assert reply.headers["HX-Redirect"] == "/alerts"
    silence = world.silenced["a3"]
    assert (silence.ends_at - silence.starts_at).total_seconds() == pytest.approx(4 * 3600, abs=1)
    assert "deploying" in client.get("/alerts").text
    client.post("/silences/s-a3/end", data=CSRF)
    assert world.silenced == {}


def test_a_runbook_that_is_no_web_address_is_no_link(client: FlaskClient, world: World) -> None:
    assert 'href="https://docs.example/runbooks/' in client.get("/alerts/a1").text
    assert "javascript:" not in client.get("/alerts/a1").text


def test_errors_carry_cause_next_step_and_an_id(client: FlaskClient) -> None:
    page = client.get("/nodes/nowhere/overview")
    assert page.status_code == 404
    assert "see the list of nodes" in page.text
    assert page.headers["X-Request-ID"] in page.text
    assert faults(page.text) == []
    part = client.get("/nodes/nowhere/overview", headers=FRAGMENT).text
    assert "<html" not in part


def test_audit_pages_go_back_by_row(client: FlaskClient) -> None:
    filtered = client.get("/audit?event=alert.silenced").text
    assert "run.finished</code>" not in filtered
    first = client.get("/audit").text
    found = re.search(r'href="\?([^"]*before=71[^"]*)"', first)
    assert found is not None
    assert '<td class="cell-number" data-label="#">70</td>' in client.get("/audit?before=71").text


@pytest.mark.parametrize(("role", "place"), [(Role.AUDITOR, "/audit"), (Role.VIEWER, "")])
def test_everybody_lands_where_they_may_look(
    client: FlaskClient, world: World, role: Role, place: str
) -> None:
    world.role = role
    assert client.get("/").headers.get("Location", "") == place


def test_a_compose_file_is_shown_to_be_changed_by_a_plan(client: FlaskClient) -> None:
    address = "/nodes/web-1/compose/docker/shop"
    assert 'name="content"' in client.get(address).text
    form = {**CSRF, "file": "/srv/shop/compose.yaml", "content": "services:\r\n  a: {}\r\n"}
    for do, action in (("edit", "compose.edit"), ("check", "compose.check")):
        text = client.post(address, data={**form, "do": do}, headers=FRAGMENT).text
        assert f'action="/nodes/web-1/actions/{action}"' in text
        assert 'name="content" value="services:\n  a: {}\n"' in text


def test_a_compose_file_is_not_read_for_who_may_only_look(
    client: FlaskClient, world: World
) -> None:
    world.role = Role.VIEWER
    text = client.get("/nodes/web-1/compose/docker/shop").text
    assert "shop-web-1" in text
    assert 'name="content"' not in text
    assert "registry.example.org" not in text


def _cells(page: str, key: str) -> list[str]:
    row = re.search(rf'<tr data-row="{key}".*?</tr>', page, re.DOTALL)
    assert row, key
    found = re.findall(r'data-label="(?:CPU|Memory)"[^>]*>([^<]*)<', row[0])
    return [html.unescape(one).replace("\xa0", " ") for one in found]


def test_containers_show_what_they_use_where_that_is_told(client: FlaskClient) -> None:
    page = client.get("/nodes/web-1/containers", headers=FRAGMENT).text
    assert _cells(page, f"docker-{10:064x}") == ["42%", "268 MiB"]
    # Not told, and not running: neither is a zero.
    assert _cells(page, f"docker-{5:064x}") == ["—", "—"]
    assert _cells(page, f"docker-{14:064x}") == ["—", "—"]


def test_containers_have_no_such_columns_where_the_node_cannot_tell(
    client: FlaskClient, world: World
) -> None:
    world.unanswered["container.stats"] = "this node's version does not know it"
    page = client.get("/nodes/web-1/containers").text
    assert "shop-web-1" in page
    assert 'data-sort-key="cpu"' not in page
    assert _cells(page, f"docker-{10:064x}") == []
