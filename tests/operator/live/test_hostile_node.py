"""SECURITY.md 97: what a node that lies can do to the operator and to the browser."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.operator.live.conftest import People
from wsproto.events import CloseConnection

from narthex_exporter.transport.server import UPGRADE
from narthex_exporter.transport.websocket import WebSocket, accept
from narthex_operator.services.bridge import _MESSAGES_AT_ONCE, _MESSAGES_PER_SECOND
from realnode import RealNode
from realoperator import Operator
from wsclient import Client as Talk

Start = Callable[..., Any]
EVIL = '"><img src=x onerror=alert(1)></td></table><script>alert(1)</script>\x1b]8;;x\x07'


def row(**changes: Any) -> dict[str, Any]:
    return {
        "pid": 7, "start_ticks": 8, "ppid": 1, "user": "u", "comm": "c", "cmdline": "c",
        "state": "S", "nice": 0, "threads": 1, "rss_bytes": 1, "cpu_seconds": 0.0,
        "cpu_ratio": 0.1, "started_at": "2026-11-24T10:00:00Z", "is_kernel_thread": False,
        "is_ours": False, "owner_unit": "", "owner_container": "", **changes,
    }  # fmt: skip


def told(*rows: dict[str, Any], **more: Any) -> str:
    return json.dumps({"data": {"rows": rows, "order": ["7-8"], "total": 1, **more}})


def _tiny_without_end(socket: WebSocket) -> None:
    while socket.closed is None:
        while socket.has_room and socket.closed is None:
            socket.send('{"data":{"rows":[]}}')
        socket.wait(0.1)
        socket.messages()


def _raw(data: bytes) -> Callable[[WebSocket], None]:
    def say(socket: WebSocket) -> None:
        socket.wire.put(data)
        _listen(socket)

    return say


def _say(*messages: str | bytes) -> Callable[[WebSocket], None]:
    def say(socket: WebSocket) -> None:
        for message in messages:
            socket.send(message)
        _listen(socket)

    return say


def _listen(socket: WebSocket) -> None:
    while socket.closed is None:
        socket.wait(0.2)
        socket.messages()


class Liar:
    """An exporter whose follow says what a test wants; all else is the real one's."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.says: Callable[[WebSocket], None] = _listen
        self.status = 101

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if not environ["RAW_URI"].startswith("/api/v1/follow/"):
            found: Iterable[bytes] = self.real(environ, start)
            return found
        if self.status != 101:
            start(f"{self.status} No", [("Content-Type", "text/html"), ("Content-Length", "3")])
            return [b"<b>"]
        if self.says is not _wrong_accept:
            self.says(accept(environ))
        else:
            environ[UPGRADE].take([("Sec-WebSocket-Accept", "bm9uc2Vuc2U=")])
        return []


def _wrong_accept(_socket: WebSocket) -> None:
    """Stand for an answer that no WebSocket gives."""


@pytest.fixture(scope="module")
def liar(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Liar]:
    signer = operator.parts.core.signer
    folder = tmp_path_factory.mktemp("liar") / "node"
    node = RealNode(folder, signer, id="liar-aaaaaa", name="liar")
    app = Liar(node._exporter())
    with node.front(app), node.actor():
        node.enter(operator.parts.core.database)
        yield app


def ended(talk: Talk) -> tuple[list[Any], CloseConnection]:
    messages = []
    while not isinstance(found := talk.message(), CloseConnection):
        messages.append(json.loads(found))
    return messages, found


WRONG: dict[str, Callable[[WebSocket], None]] = {
    "HTML": _say("<html><script>alert(1)</script>"),
    "a million brackets": _say("[" * 60_000),
    "bytes": _say(b"\0" * 1000),
    "another shape": _say('{"data": {"rows": [{"pid": "x"}]}}'),
    "ten gigabytes in one frame": _raw(
        b"\x81\x7f" + (10 << 30).to_bytes(8, "big") + b"x" * 90_000
    ),
    "no frames at all": _raw(b"HTTP/1.1 200 OK\r\n\r\n" * 100),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_97_what_is_not_understood_ends_the_stream(people: People, liar: Liar, name: str) -> None:
    liar.says = WRONG[name]
    talk = people().open(node="liar", limit=1)
    messages, close = ended(talk)
    assert messages == []
    assert close.code == 1011
    assert "<" not in (close.reason or "")


def test_97_hostile_text_stays_text(people: People, liar: Liar) -> None:
    liar.says = _say(
        told(row(comm=EVIL, cmdline=EVIL, user=EVIL, owner_container=EVIL, state=EVIL))
    )
    shown = people().open(node="liar", limit=1).json()["rows"][0]
    assert "<img" not in shown
    assert "<script" not in shown
    assert "\x1b" not in shown
    assert "&lt;img" in shown


def test_97_a_problem_of_a_node_s_own_is_cut_short(people: People, liar: Liar) -> None:
    problem = {"type": "x", "title": "y", "status": 400, "detail": EVIL * 500}
    liar.says = _say(json.dumps({"problem": problem}))
    message = people().open(node="liar", limit=1).json()["problem"]["message"]
    assert len(message) == 500


def test_97_a_flood_waits_at_the_node_and_costs_nobody_else(people: People, liar: Liar) -> None:
    liar.says = _tiny_without_end
    before, began = _resident(), time.monotonic()
    flooded = people().open(node="liar", limit=1)
    other = people().open(limit=1)
    other.json()
    seen, until = 0, time.monotonic() + 3
    while time.monotonic() < until:
        flooded.json()
        seen += 1
    assert seen <= _MESSAGES_AT_ONCE + (time.monotonic() - began) * _MESSAGES_PER_SECOND
    began = time.monotonic()
    other.json()
    assert time.monotonic() - began < 10
    assert _resident() - before < 50 << 20


def test_97_a_browser_that_does_not_read_costs_a_bounded_buffer(
    people: People, liar: Liar
) -> None:
    liar.says = _tiny_without_end
    before = _resident()
    talks = [people().open(node="liar", limit=1) for _ in range(4)]
    time.sleep(2)
    assert _resident() - before < 50 << 20
    assert all(talk.json() is not None for talk in talks)


@pytest.mark.parametrize("kind", ["html", "no websocket", "server fault"])
def test_97_what_is_no_handshake_is_told_in_our_words(
    people: People, liar: Liar, kind: str
) -> None:
    liar.says = _wrong_accept
    liar.status = {"html": 200, "no websocket": 101, "server fault": 500}[kind]
    try:
        browser = people()
        ticket = browser.ticket(node="liar", limit=1)
        talk, _ = browser.ask(["narthex.v1", f"ticket.{ticket}"])
        messages, close = ended(talk)
    finally:
        liar.status = 101
    assert "liar" in messages[0]["problem"]["message"]
    assert "<" not in messages[0]["problem"]["message"]
    assert close.code == 1008


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
