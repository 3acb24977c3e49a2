"""Live streams from a node to a browser: SECURITY.md 31, 32 and 97."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.operator.live.conftest import ADMIN, Browser, People
from wsproto.events import AcceptConnection, CloseConnection

from narthex_operator.db.models import Node, User
from narthex_operator.services import live
from realnode import RealNode
from realoperator import Operator

EVIL = (
    "https://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:{port}",
    "https://127.0.0.1:{port}.evil.example", "https://127.0.0.1:{port}/", "https://localhost:{port}",
    "https://127.0.0.1:{port}0", "HTTPS://127.0.0.1:{port}", "{own}, {own}", "{own} {own}",
    "file://", "https://user@127.0.0.1:{port}", "https://[::1]:{port}",
)  # fmt: skip


def closing(talk: Any, *, seconds: float = 20.0) -> tuple[CloseConnection, float]:
    """Read until the stream is closed; tells how, and how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        found = talk.message()
        if isinstance(found, CloseConnection):
            return found, time.monotonic() - began
    raise AssertionError("it was not closed")


def test_the_busiest_processes_reach_the_browser_as_rows(people: People) -> None:
    talk = people().open(limit=20)
    rows: list[str] = []
    told: dict[str, Any] = {}
    while not told.get("order"):
        told = talk.json()
        rows += told["rows"]
    assert 1 <= len(told["order"]) <= 20
    assert all("<tr data-row=" in row for row in rows)
    assert f'data-row="{told["order"][0]}"' in "".join(rows)
    assert "process.signal" in rows[0]


def test_a_viewer_may_watch_but_gets_no_levers(people: People) -> None:
    told = people("viewer").open(limit=5).json()
    assert 'aria-disabled="true"' in told["rows"][0]


@pytest.mark.parametrize("origin", EVIL)
def test_31_no_other_origin_opens_a_stream(people: People, origin: str) -> None:
    browser = people()
    evil = origin.format(port=browser.origin.rpartition(":")[2], own=browser.origin)
    ticket = browser.ticket()
    talk, answer = browser.ask(["narthex.v1", f"ticket.{ticket}"], origin=evil)
    assert talk.refusal(answer)[0] == 403
    # It was not even looked at: the page itself can still use it.
    assert isinstance(browser.ask(["narthex.v1", f"ticket.{ticket}"])[1], AcceptConnection)


def _spent(browser: Browser, other: Browser) -> str:
    ticket = browser.ticket()
    browser.ask(["narthex.v1", f"ticket.{ticket}"])
    return ticket


def _foreign(browser: Browser, other: Browser) -> str:
    return other.ticket()


def _another_session_s(browser: Browser, other: Browser) -> str:
    row = browser.accounts.session(browser.token, address="127.0.0.1")[1].user
    again = browser.accounts.sign_in(
        row.name, "a long pass phrase of mine", address="127.0.0.1", user_agent="tests"
    )
    return Browser(browser.operator, again, browser.stack).ticket()


TICKETS: dict[str, Callable[[Browser, Browser], str]] = {
    "reused": _spent,
    "another user's": _foreign,
    "another session's": _another_session_s,
    "made up": lambda _browser, _other: "A" * 43,
    "empty": lambda _browser, _other: "",
}


@pytest.mark.parametrize("kind", TICKETS)
def test_31_no_other_ticket_opens_a_stream(people: People, kind: str) -> None:
    browser, other = people(), people("operator")
    ticket = TICKETS[kind](browser, other)
    for _ in range(2):  # and trying again does not help
        talk, answer = browser.ask(["narthex.v1", f"ticket.{ticket}"])
        assert talk.refusal(answer) == (403, "denied")


def test_31_a_ticket_of_31_seconds_opens_nothing(
    people: People, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = people()
    service = operator.parts.services.live
    assert isinstance(service, live.LiveService)
    early, late = browser.ticket(), browser.ticket()
    monkeypatch.setattr(service, "clock", lambda: time.monotonic() + 29.0)
    assert isinstance(browser.ask(["narthex.v1", f"ticket.{early}"])[1], AcceptConnection)
    monkeypatch.setattr(service, "clock", lambda: time.monotonic() + 31.0)
    talk, answer = browser.ask(["narthex.v1", f"ticket.{late}"])
    assert talk.refusal(answer)[0] == 403


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"origin": None}, 403),
        ({"cookie": None}, 401),
        ({"cookie": "x" * 43}, 401),
        ({"path": "/live/ws?ticket={ticket}", "protocols": ["narthex.v1"]}, 403),
        ({"path": "/live/ws?access_token={ticket}", "protocols": []}, 403),
        ({"protocols": []}, 403),
        ({"protocols": ["ticket.{ticket}"]}, 403),
        ({"protocols": ["narthex.v1", "ticket.{ticket}", "ticket.{ticket}"]}, 403),
        ({"protocols": ["narthex.v1", "{ticket}"]}, 403),
        ({"path": "/live/tickets"}, 405),
    ],
)
def test_31_a_ticket_counts_only_where_it_belongs(
    people: People, more: dict[str, Any], status: int
) -> None:
    browser = people()
    ticket = browser.ticket()
    names = more.pop("protocols", ["narthex.v1", "ticket.{ticket}"])
    if "path" in more:
        more["path"] = more["path"].format(ticket=ticket)
    talk, answer = browser.ask([name.format(ticket=ticket) for name in names], **more)
    assert talk.refusal(answer)[0] == status


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "A" * 43},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_31_no_other_site_gets_a_ticket(people: People, headers: dict[str, str]) -> None:
    status, _ = people().post({"node": "web-1", "name": "process.top"}, **headers)
    assert status == 403


def test_31_who_may_not_gets_no_ticket(people: People) -> None:
    assert people("auditor").post({"node": "web-1", "name": "process.top"})[0] == 403
    terminal = {"node": "web-1", "name": "container.exec", "params": {"container": "web"}}
    assert people("viewer").post(terminal)[0] == 403
    # By the role it may; this node's policy says no.
    status, problem = people("operator").post(terminal)
    assert (status, problem["type"]) == (409, "conflict")
    assert "policy" in problem["detail"]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"node": "nowhere", "name": "process.top"}, 404),
        ({"node": "web-1", "name": "process.list"}, 404),
        ({"node": "web-1", "name": "service.stop"}, 404),
        ({"node": "web-1", "name": "process.top", "params": {"limit": 1 << 40}}, 422),
        ({"node": "web-1", "name": "process.top", "user": "root"}, 422),
        ([], 422),
    ],
)
def test_what_is_no_stream_is_told(people: People, asked: Any, status: int) -> None:
    assert people().post(asked)[0] == status


def test_an_api_token_opens_no_stream(operator: Operator, people: People) -> None:
    people()
    reply = operator.call("POST", "/live/tickets", json={"node": "web-1", "name": "process.top"})
    assert reply.status_code == 403


def _sign_out(browser: Browser) -> None:
    browser.accounts.sign_out(browser.token)


def _new_password_by_an_admin(browser: Browser) -> None:
    user = browser.accounts.session(browser.token, address="127.0.0.1")[1].user
    browser.accounts.reset_password(ADMIN, name=user.name)


def _change(browser: Browser, **values: Any) -> None:
    user = browser.accounts.session(browser.token, address="127.0.0.1")[1].user
    with browser.operator.parts.core.database.session() as session:
        row = session.get_one(User, user.id)
        for name, value in values.items():
            setattr(row, name, value)


ENDS: dict[str, tuple[Callable[[Browser], None], str]] = {
    "sign-out": (_sign_out, "signed-out"),
    "reset by an admin": (_new_password_by_an_admin, "signed-out"),
    "user disabled": (lambda browser: _change(browser, disabled=True), "signed-out"),
    "role dropped": (lambda browser: _change(browser, role="auditor"), "query:process.top"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_32_a_stream_ends_within_two_seconds_of_its_right(people: People, kind: str) -> None:
    browser = people.new("operator")
    talk, bystander = browser.open(limit=1), people().open(limit=1)
    end, words = ENDS[kind]
    end(browser)
    close, seconds = closing(talk)
    assert seconds < 2
    assert close.code == 1008
    assert words in (close.reason or "")
    bystander.json()


def test_32_a_node_that_is_locked_or_removed_is_watched_no_more(
    people: People, node: RealNode, operator: Operator
) -> None:
    talk = people().open(limit=1)
    database = operator.parts.core.database

    def lock(reason: str) -> None:
        with database.session() as session:
            session.get_one(Node, node.id).locked_reason = reason

    lock("its key was stolen")
    try:
        close, seconds = closing(talk)
        assert seconds < 2
        assert "locked" in (close.reason or "")
    finally:
        lock("")


def test_32_a_browser_that_leaves_frees_the_node(people: People, operator: Operator) -> None:
    talk = people().open(limit=1)
    talk.json()
    talk.sock.close()
    deadline = time.monotonic() + 5
    while any(_streams()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _streams() -> list[int]:
    """Count the connections of all servers in this process that speak WebSocket."""
    import gc

    from narthex_exporter.transport.server import Server

    return [one.upgrades for one in gc.get_objects() if isinstance(one, Server) and one.upgrades]


def test_who_speaks_on_a_stream_is_cut(people: People) -> None:
    talk = people().open(limit=1)
    talk.sock.sendall(b"\x81\x82\0\0\0\0hi")
    assert closing(talk)[0].code == 1008


def test_a_node_whose_actor_is_off_says_so(people: People, operator: Operator) -> None:
    signer = operator.parts.core.signer
    asleep = RealNode(operator.config.home / "asleep", signer, id="web-2-aaaaaa", name="web-2")
    with asleep.front():
        asleep.enter(operator.parts.core.database)
        status, problem = people().post({"node": "web-2", "name": "process.top"})
    assert (status, problem["type"]) == (503, "actor-off")
