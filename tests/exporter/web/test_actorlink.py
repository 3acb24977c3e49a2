"""Requests to /api reach the actor's socket as they were sent, and its replies come back."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.transport.identity import Role

OPERATOR = Role.OPERATOR


class Actor:
    """A Unix socket that remembers what it was sent and answers with given bytes."""

    def __init__(self, path: Path) -> None:
        self.received = b""
        self.replies: list[bytes] = []
        self.go_on = threading.Event()
        self.gone = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(8)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(5)
                data = sock.recv(1 << 20)
                head, _, body = data.partition(b"\r\n\r\n")
                length = next(
                    (
                        int(x[16:])
                        for x in head.split(b"\r\n")
                        if x.startswith(b"Content-Length: ")
                    ),
                    0,
                )
                while len(body) < length:
                    body += sock.recv(1 << 20)
                self.received = head + b"\r\n\r\n" + body
                for number, reply in enumerate(self.replies):
                    if number:
                        self.go_on.wait(5)
                    sock.sendall(reply)
                if len(self.replies) > 2:
                    self._until_gone(sock)

    def _until_gone(self, sock: socket.socket) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                sock.sendall(b"1\r\n\n\r\n")
            except OSError:
                self.gone.set()
                return
            time.sleep(0.02)

    def close(self) -> None:
        self.go_on.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(6)


@pytest.fixture
def actor(tmp_path: Path) -> Iterator[Actor]:
    found = Actor(tmp_path / "actor.sock")
    yield found
    found.close()


def whole(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_request_passes_byte_by_byte(site: Any, actor: Actor) -> None:
    actor.replies = [whole("202 Accepted", "Location: /api/v1/runs/1", body=b"{}")]
    body = bytes(range(256)) * 20
    target = "/api/v1/actions/a%2Fb/../runs?x=%20&y"
    answer = site.ask(
        target,
        role=OPERATOR,
        method="POST",
        body=body,
        headers={
            "Narthex-Ticket": "the.ticket.itself",
            "Content-Type": "application/json",
            "Cookie": "a=b",
            "X-Forwarded-For": "1.2.3.4",
            "Authorization": "Bearer x",
        },
    )
    head, _, passed = actor.received.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == f"POST {target} HTTP/1.1".encode()
    assert passed == body
    lines = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert lines == {b"host", b"connection", b"narthex-ticket", b"content-type", b"content-length"}
    assert b"Narthex-Ticket: the.ticket.itself" in head
    assert (answer.status, answer.body) == (202, b"{}")
    assert answer.headers["Location"] == "/api/v1/runs/1"


def test_a_reply_keeps_what_the_protocol_names_and_nothing_more(site: Any, actor: Actor) -> None:
    kept = {
        "Replay-Nonce": "n1",
        "Narthex-Instance": "i1",
        "ETag": '"e"',
        "Content-Type": "application/json",
    }
    sent = [
        f"{name}: {value}" for name, value in {**kept, "Set-Cookie": "x", "Server": "y"}.items()
    ]
    actor.replies = [whole("200 OK", *sent, body=b"[]")]
    answer = site.ask("/api/v1/manifest", role=OPERATOR)
    assert {name: answer.headers[name] for name in kept} == kept
    assert not answer.headers["Set-Cookie"]
    assert not answer.headers["Server"]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_replies_without_a_body_pass(site: Any, actor: Actor, status: str) -> None:
    actor.replies = [f"HTTP/1.1 {status}\r\nReplay-Nonce: n\r\n\r\n".encode()]
    answer = site.ask("/api/v1/nonce", role=OPERATOR, headers={"If-None-Match": '"e"'})
    assert (answer.status, answer.headers["Replay-Nonce"]) == (int(status[:3]), "n")
    assert b'If-None-Match: "e"' in actor.received


def test_events_flow_as_they_come(site: Any, actor: Actor) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    actor.replies = [head + b"6\r\nfirst\n\r\n", b"7\r\nsecond\n\r\n0\r\n\r\n"]
    files = site.authority.leaf(OPERATOR, "asker")
    with contextlib.closing(site.connect(files)) as connection:
        connection.request("GET", "/api/v1/runs/1/events")
        reply = connection.getresponse()
        assert reply.read1(100) == b"first\n"
        actor.go_on.set()
        assert reply.read() == b"second\n"


def test_a_reader_that_leaves_is_told_to_the_actor(site: Any, actor: Actor) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n"
    actor.replies = [head, b"", b""]
    files = site.authority.leaf(OPERATOR, "asker")
    with contextlib.closing(site.connect(files)) as connection:
        connection.request("GET", "/api/v1/runs/1/events")
        assert connection.getresponse().read1(100) == b"first\n"
    actor.go_on.set()
    assert actor.gone.wait(4)


def test_an_actor_that_is_off_is_told_with_what_to_do(site: Any) -> None:
    answer = site.ask("/api/v1/manifest", role=OPERATOR)
    assert answer.status == 503
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["type"] == "actor-off"
    assert "systemctl enable" in answer.json["hint"]


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nX" * 9000])
def test_an_actor_that_breaks_off_is_told_as_unknown(
    site: Any, actor: Actor, reply: bytes
) -> None:
    actor.replies = [reply]
    answer = site.ask("/api/v1/manifest", role=OPERATOR)
    assert (answer.status, answer.json["type"]) == (502, "actor-broken")


def test_a_reply_cut_short_does_not_look_whole(site: Any, actor: Actor) -> None:
    actor.replies = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"]
    import http.client

    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        site.ask("/api/v1/manifest", role=OPERATOR)
