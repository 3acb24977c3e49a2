"""What every request passes: identity, permission, cross-site checks, headers, plain errors."""

import http.client
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from narthex_operator.pipeline import COOKIE, HEADERS, MAX_BODY_BYTES
from narthex_operator.services.access import local_actor
from realoperator import Operator

ADMIN = local_actor("tests")
PASSWORD = "a long pass phrase of mine"
SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def visitor(operator: Operator) -> Iterator[requests.Session]:
    """A browser without a session."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(operator.config.pki_dir / "ca.pem")
        yield session


@pytest.fixture(scope="module")
def viewer(operator: Operator) -> str:
    """A viewer's session token; the first password is changed already."""
    accounts = operator.parts.core.accounts
    first = accounts.add_user(ADMIN, name="vera", role="viewer", password=None)
    token = accounts.sign_in("vera", first, address="127.0.0.1", user_agent="tests")
    actor, _ = accounts.session(token, address="127.0.0.1")
    return accounts.change_password(actor, token, old=first, new=PASSWORD)


@pytest.fixture(scope="module")
def newcomer(operator: Operator) -> str:
    """The session of somebody who must change the password."""
    accounts = operator.parts.core.accounts
    first = accounts.add_user(ADMIN, name="nina", role="admin", password=None)
    return accounts.sign_in("nina", first, address="127.0.0.1", user_agent="tests")


def visit(
    operator: Operator, visitor: requests.Session, method: str, path: str, **more: Any
) -> requests.Response:
    url = operator.config.web.external_url + path
    return visitor.request(method, url, timeout=10, allow_redirects=False, **more)


def csrf_of(operator: Operator, token: str) -> str:
    return operator.parts.core.accounts.session(token, address="127.0.0.1")[1].csrf


def origin(operator: Operator) -> str:
    return operator.config.web.external_url


VISITS = [
    ("GET", "/", 303),
    ("GET", "/sign-in", 200),
    ("GET", "/nowhere", 404),
    ("GET", "/static/panel/x/nothing.js", 404),
    ("GET", "/static/panel/0.1.0/../../../../etc/passwd", 404),
    ("POST", "/", 405),
    ("OPTIONS", "/", 405),
    ("TRACE", "/", 405),
    ("GET", "/api/v1/nodes", 401),
    ("GET", "/api/v1/nowhere", 404),
    ("GET", "/api//v1/nodes", 404),
    ("GET", "/api/v1//nodes", 404),
    ("DELETE", "/api/v1/nodes", 405),
    ("GET", "/api/v1/openapi.json", 200),
    ("GET", "/api/v1/sd/prometheus", 401),
    ("POST", "/api/v1/alertmanager/webhook", 401),
    ("GET", "/metrics", 401),
    ("GET", "/-/healthy", 200),
    ("GET", "/-/ready", 200),
    ("GET", "/pki/ca.pem", 200),
    ("GET", "/live/fleet", 401),
    ("POST", "/sign-in", 403),
    ("POST", "/api/v1/enrolment/certificates", 415),
]


@pytest.mark.parametrize(("method", "path", "status"), VISITS)
def test_every_answer_to_a_stranger_carries_the_headers(
    operator: Operator, visitor: requests.Session, method: str, path: str, status: int
) -> None:
    reply = visit(operator, visitor, method, path)
    assert reply.status_code == status, reply.text
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS
    assert reply.headers["X-Request-ID"]
    assert "Cache-Control" in reply.headers
    assert "Traceback" not in reply.text
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    if path.startswith(("/api", "/live", "/metrics")) and status >= 400:
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert reply.json()["status"] == status


def test_a_browser_is_led_to_sign_in_and_back(
    operator: Operator, visitor: requests.Session
) -> None:
    reply = visit(operator, visitor, "GET", "/logs?node=web-1")
    assert reply.status_code == 303
    assert reply.headers["Location"] == "/sign-in?next=/logs%3Fnode%3Dweb-1"


@pytest.mark.parametrize(
    "authorization",
    ["Basic YTpi", "Bearer", "Bearer ", "Bearer x", "Bearer nok_000000000000_" + "A" * 43, "x"],
)
def test_a_wrong_token_is_nobody(
    operator: Operator, visitor: requests.Session, authorization: str
) -> None:
    reply = visit(
        operator, visitor, "GET", "/api/v1/nodes", headers={"Authorization": authorization}
    )
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_tokens_of_parts_open_only_their_own_doors(operator: Operator) -> None:
    doors = {
        "sd.token": {"/api/v1/sd/prometheus": 200, "/metrics": 200, "/api/v1/nodes": 200,
                     "/api/v1/audit": 403, "/api/v1/logs": 403},
        "webhook.token": {"/api/v1/sd/prometheus": 403, "/metrics": 403, "/api/v1/nodes": 403},
    }  # fmt: skip
    for name, paths in doors.items():
        for path, status in paths.items():
            reply = operator.call("GET", path, headers=operator.secret(name))
            assert reply.status_code == status, (name, path)


def test_machines_take_no_cookie(
    operator: Operator, visitor: requests.Session, viewer: str
) -> None:
    reply = visit(operator, visitor, "GET", "/metrics", cookies={COOKIE: viewer})
    assert reply.status_code == 401


def test_a_viewer_may_see_and_not_act(
    operator: Operator, visitor: requests.Session, viewer: str
) -> None:
    visitor.cookies.set(COOKIE, viewer)
    assert visit(operator, visitor, "GET", "/api/v1/nodes").status_code == 200
    headers = {**SAME, "X-CSRF-Token": csrf_of(operator, viewer)}
    denied = visit(operator, visitor, "POST", "/api/v1/nodes", headers=headers, json={"name": "x"})
    assert denied.status_code == 403
    assert "node:write" in denied.json()["detail"]
    rows = operator.call("GET", "/api/v1/audit?event=permission.denied").json()["items"]
    assert rows[0]["actor_name"] == "vera"
    assert rows[0]["details"]["what"] == "POST /api/v1/nodes"


CROSS_SITE: list[tuple[dict[str, str], str, int]] = [
    ({"Sec-Fetch-Site": "same-origin"}, "right", 303),
    ({"Sec-Fetch-Site": "none"}, "right", 303),
    ({"Sec-Fetch-Site": "same-origin"}, "none", 403),
    ({"Sec-Fetch-Site": "cross-site"}, "right", 403),
    ({"Sec-Fetch-Site": "same-site"}, "right", 403),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "own"}, "right", 403),
    ({"Origin": "own"}, "right", 303),
    ({"Origin": "own"}, "none", 403),
    ({"Origin": "https://evil.example"}, "right", 403),
    ({"Origin": "null"}, "right", 403),
    ({}, "right", 403),
]


@pytest.mark.parametrize(("headers", "token", "status"), CROSS_SITE)
@pytest.mark.parametrize("where", ["header", "form"])
def test_only_the_panel_itself_may_change_something(
    operator: Operator,
    visitor: requests.Session,
    viewer: str,
    headers: dict[str, str],
    token: str,
    status: int,
    where: str,
) -> None:
    visitor.cookies.set(COOKIE, viewer)
    sent = {k: origin(operator) if v == "own" else v for k, v in headers.items()}
    form = {"language": "en", "theme": "dark"}
    if token == "right" and where == "header":
        sent["X-CSRF-Token"] = csrf_of(operator, viewer)
    elif token == "right":
        form["csrf_token"] = csrf_of(operator, viewer)
    reply = visit(operator, visitor, "POST", "/settings/preferences", headers=sent, data=form)
    assert reply.status_code == status, reply.text


def test_another_session_s_token_is_refused(
    operator: Operator, visitor: requests.Session, viewer: str, newcomer: str
) -> None:
    visitor.cookies.set(COOKIE, viewer)
    headers = {**SAME, "X-CSRF-Token": csrf_of(operator, newcomer)}
    reply = visit(operator, visitor, "POST", "/settings/preferences", headers=headers, data={})
    assert reply.status_code == 403


def test_sign_in_is_not_done_for_somebody_by_another_site(
    operator: Operator, visitor: requests.Session
) -> None:
    form = {"name": "vera", "password": PASSWORD}
    evil = {"Sec-Fetch-Site": "cross-site"}
    assert visit(operator, visitor, "POST", "/sign-in", data=form, headers=evil).status_code == 403
    good = visit(operator, visitor, "POST", "/sign-in", data=form, headers=SAME)
    assert good.status_code == 303
    cookie = good.headers["Set-Cookie"]
    for part in (f"{COOKIE}=", "Secure", "HttpOnly", "SameSite=Lax", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_the_api_takes_json_only(operator: Operator, content_type: str) -> None:
    reply = operator.call(
        "POST", "/api/v1/nodes", data=b'{"name": "x"}', headers={"Content-Type": content_type}
    )
    assert reply.status_code == 415


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"name": "a", "name": "b", "address": "c"}', 400),
        (b"[" * 10_000, 400),
        (b"\xff", 400),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"name": "a", "address": "127.0.0.1:1", "more": 1}', 422),
        (b'{"name": "A B", "address": "127.0.0.1:1"}', 422),
        (b" " * (MAX_BODY_BYTES + 1), 413),
    ],
)
def test_a_wrong_body_is_told_and_changes_nothing(
    operator: Operator, body: bytes, status: int
) -> None:
    before = operator.call("GET", "/api/v1/nodes").json()
    reply = operator.call(
        "POST", "/api/v1/nodes", data=body, headers={"Content-Type": "application/json"}
    )
    assert reply.status_code == status
    assert operator.call("GET", "/api/v1/nodes").json() == before


def test_unknown_and_doubled_query_parameters_are_told(operator: Operator) -> None:
    assert operator.call("GET", "/api/v1/runs?lmit=1").status_code == 422
    assert operator.call("GET", "/api/v1/runs?limit=1&limit=2").status_code == 422
    wrong = operator.call("GET", "/api/v1/runs?limit=many").json()
    assert wrong["errors"][0]["path"] == "query.limit"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("audit?before=-1", "before"),
        (f"audit?before={2**63}", "before"),
        ("audit?before=1" + "0" * 400, "before"),
        ("logs?end=0001-01-01T00:00:00Z", "end"),
        ("logs?end=0001-01-01T00:00:00%2B14:00", "end"),
        ("logs?start=1969-12-31T23:59:59Z", "start"),
        ("logs?start=9999-12-31T23:59:59-14:00", "start"),
        ("logs?end=2262-04-12T00:00:00Z", "end"),
        ("logs?end=2026-01-01T00:00:00", "end"),
    ],
)
def test_a_number_or_instant_that_cannot_be_is_named(
    operator: Operator, query: str, field: str
) -> None:
    reply = operator.call("GET", f"/api/v1/{query}")
    assert reply.status_code == 422
    assert [error["path"] for error in reply.json()["errors"]] == [f"query.{field}"]


def test_the_furthest_number_and_instants_are_taken(operator: Operator) -> None:
    for before in (0, 2**63 - 1):
        assert operator.call("GET", f"/api/v1/audit?before={before}").status_code == 200
    late = operator.call("GET", "/api/v1/logs?end=2262-01-01T00:00:00Z")
    assert late.status_code == 200, late.text
    early = operator.call("GET", "/api/v1/logs?end=1970-01-01T00:00:00Z")
    assert (early.status_code, early.json()["type"]) == (422, "invalid")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
def test_a_foreign_host_name_is_refused(operator: Operator, host: str) -> None:
    url = urlsplit(operator.config.web.external_url)
    context = ssl.create_default_context(cafile=str(operator.config.pki_dir / "ca.pem"))
    connection = http.client.HTTPSConnection(url.hostname or "", url.port, context=context)
    connection.putrequest("GET", "/api/v1/openapi.json", skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    reply = connection.getresponse()
    assert reply.status == 400
    reply.read()
    connection.close()


def test_the_first_password_must_be_changed_before_anything_else(
    operator: Operator, visitor: requests.Session, newcomer: str
) -> None:
    visitor.cookies.set(COOKIE, newcomer)
    led = visit(operator, visitor, "GET", "/")
    assert (led.status_code, led.headers["Location"]) == (303, "/password")
    assert visit(operator, visitor, "GET", "/password").status_code == 200
    told = visit(operator, visitor, "GET", "/api/v1/nodes")
    assert told.status_code == 403
    assert told.json()["type"] == "password-due"


def test_a_fault_of_ours_is_told_without_its_insides(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_more: object) -> None:
        raise RuntimeError("secret insides")

    monkeypatch.setattr(type(operator.parts.core.audit), "list", fail)
    reply = operator.call("GET", "/api/v1/audit")
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert reply.headers["X-Request-ID"] in reply.json()["hint"]
    assert {name: reply.headers.get(name) for name in HEADERS} == HEADERS


def test_get_changes_nothing(operator: Operator, visitor: requests.Session, viewer: str) -> None:
    visitor.cookies.set(COOKIE, viewer)
    before = operator.parts.core.audit.head()
    for path in ("/", "/alerts", "/logs", "/settings", "/nodes/x", "/api/v1/nodes"):
        visit(operator, visitor, "GET", path)
    assert operator.parts.core.audit.head() == before
