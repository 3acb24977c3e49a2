"""WebSockets: what is taken over, what is refused, and what a hostile peer costs."""

import contextlib
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.exporter.transport.conftest import Builder, Site, read_all
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from narthex_exporter.transport.identity import Role
from narthex_exporter.transport.server import Limits
from narthex_exporter.transport.websocket import (
    GOING_AWAY,
    HandshakeError,
    Patience,
    WebSocket,
    accept,
    offered,
)
from narthex_exporter.transport.wires import ROOM_BYTES
from wsclient import Client


@dataclass
class Talker:
    """Echoes at /echo, sends without end at /flood, answers all else with hello."""

    patience: Patience = field(default_factory=Patience)
    ended: list[WebSocket] = field(default_factory=list)
    most_unsent: int = 0

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] not in {"/echo", "/flood"}:
            start("200 OK", [("Content-Length", "5")])
            return [b"hello"]
        names = offered(environ)
        try:
            chosen = names[0] if names else ""
            socket = accept(environ, protocol=chosen, patience=self.patience)
        except HandshakeError as error:
            start(f"{error.status} No", [("Content-Length", "0")])
            return []
        self._talk(socket, environ, flood=environ["PATH_INFO"] == "/flood")
        return []

    def _talk(self, socket: WebSocket, environ: dict[str, Any], *, flood: bool) -> None:
        stopping = environ["narthex.upgrade"].stopping
        while socket.closed is None:
            if stopping.is_set():
                socket.close(GOING_AWAY, "the server stops")
            while flood and socket.has_room and socket.closed is None:
                socket.send(b"x" * 32_768)
            self.most_unsent = max(self.most_unsent, len(socket.wire.out))
            socket.wait(1.0, reads=socket.has_room)
            for message in socket.messages():
                socket.send(message)
        socket.finish()
        self.ended.append(socket)


def unix(place: Site) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(str(place.unix))
    return sock


@pytest.fixture
def talker() -> Talker:
    return Talker()


@pytest.fixture
def place(site: Builder, talker: Talker) -> Site:
    return site(tls=False, app=talker)


@pytest.fixture
def client(place: Site) -> Iterator[Client]:
    with contextlib.closing(place.connect()) as sock:
        yield Client(sock)


def frame(opcode: int, payload: bytes, *, final: bool = True, length: int | None = None) -> bytes:
    """Write a masked frame by hand; ``length`` may lie."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", size)
    return head + b"\0\0\0\0" + payload


def test_messages_go_both_ways_with_the_protocol_that_was_offered(client: Client) -> None:
    answer = client.ask(subprotocols=["narthex.v1"])
    assert isinstance(answer, AcceptConnection)
    assert (answer.subprotocol, answer.extensions) == ("narthex.v1", [])
    client.send(TextMessage(data="grüße"))
    assert client.message() == "grüße"
    client.send(BytesMessage(data=b"\0\xff" * 30_000))
    assert client.message() == b"\0\xff" * 30_000
    client.send(Ping(payload=b"there?"))
    pong = next(event for event in client.events() if isinstance(event, Pong))
    assert pong.payload == b"there?"
    client.send(CloseConnection(code=1000))
    assert client.close_code() == 1000


def test_messages_go_over_tls_however_large_the_records(
    site: Builder, authority: Any, talker: Talker
) -> None:
    place = site(app=talker)
    with contextlib.closing(place.secure(authority.leaf(Role.OPERATOR, "peer"))) as sock:
        client = Client(sock)
        client.ask()
        for size in (1, 16_384, 16_385, 65_536):
            client.send(BytesMessage(data=os.urandom(16) * (size // 16) + b"z" * (size % 16)))
            assert len(client.message()) == size


def test_what_came_with_the_request_is_not_lost(client: Client) -> None:
    asked = client.connection.send(Request(host="localhost", target="/echo"))
    client.sock.sendall(asked + frame(1, b"early"))
    assert isinstance(next(client.events()), AcceptConnection)
    assert client.message() == "early"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "%%%"}, 400),
        ({"Upgrade": "h2c"}, 426),
        ({"Connection": "close"}, 426),
    ],
)
def test_what_is_no_handshake_is_answered_with_http(
    client: Client, change: dict[str, str], status: int
) -> None:
    headers = {
        "Host": "x", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", **change,
    }  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    client.sock.sendall(f"GET /echo HTTP/1.1\r\n{lines}\r\n".encode())
    assert client.sock.recv(65536).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_path_that_takes_no_websocket_answers_as_ever(client: Client) -> None:
    answer = client.ask("/hello")
    assert isinstance(answer, RejectConnection)
    assert answer.status_code == 200


def test_deflate_is_never_agreed_to(client: Client) -> None:
    key = b"Sec-WebSocket-Extensions", b"permessage-deflate; client_max_window_bits"
    answer = client.ask(extra_headers=[key])
    assert isinstance(answer, AcceptConnection)
    assert answer.extensions == []


HOSTILE = {
    "ten gigabytes announced": (frame(2, b"x" * 70_000, length=10 << 30), 1009),
    "a message in too many parts": (
        frame(2, b"x" * 40_000, final=False) + frame(0, b"x" * 40_000), 1009,
    ),
    "text that is not UTF-8": (frame(1, b"\xff\xfe"), 1007),
    "an unknown opcode": (frame(3, b""), 1002),
    "a frame without a mask": (b"\x81\x01x", 1002),
    "a long ping": (frame(9, b"x" * 126), 1002),
    "a flood of pings": (frame(9, b"") * 300, 1008),
    "a close that lies": (frame(8, struct.pack(">H", 5)), 1002),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_peer_is_sent_away(client: Client, talker: Talker, name: str) -> None:
    raw, code = HOSTILE[name]
    client.ask()
    client.sock.sendall(raw)
    assert client.close_code() == code
    with contextlib.suppress(OSError):
        read_all(client.sock)
    deadline = time.monotonic() + 3
    while not talker.ended and time.monotonic() < deadline:
        time.sleep(0.02)
    assert talker.ended


def test_a_peer_that_does_not_read_costs_a_bounded_buffer_and_nobody_s_time(
    site: Builder,
) -> None:
    talker = Talker(Patience(stalled_seconds=1.5))
    place = site(tls=False, app=talker)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            Client(stack.enter_context(contextlib.closing(place.connect()))).ask("/flood")
        other = Client(stack.enter_context(contextlib.closing(place.connect())))
        other.ask()
        slowest = 0.0
        for _ in range(50):
            began = time.monotonic()
            other.send(TextMessage(data="still served"))
            assert other.message() == "still served"
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 0.5
        deadline = time.monotonic() + 10
        while len(talker.ended) < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(talker.ended) == 20
    assert talker.most_unsent < ROOM_BYTES + 65_536


def test_a_silent_peer_is_asked_and_then_given_up(site: Builder) -> None:
    talker = Talker(Patience(ping_seconds=0.3, dead_seconds=1.0))
    place = site(tls=False, app=talker)
    with contextlib.closing(place.connect()) as sock:
        client = Client(sock)
        client.ask()
        assert any(isinstance(event, Ping) for event in itertools.islice(client.events(), 1))
        began = time.monotonic()
        assert read_all(sock) in {b"", b"\x89\x00", b"\x89\x00\x89\x00"}
        assert time.monotonic() - began < 3


def test_only_so_many_are_open_at_once_in_all_and_by_peer(site: Builder, talker: Talker) -> None:
    place = site(tls=False, app=talker, limits=Limits(upgrades=3, upgrades_per_peer=2))
    with contextlib.ExitStack() as stack:

        def opened(how: Callable[[], socket.socket]) -> Event:
            return Client(stack.enter_context(contextlib.closing(how()))).ask()

        kinds = [type(opened(place.connect)) for _ in range(3)]
        kinds += [type(opened(lambda: unix(place))) for _ in range(2)]
        refused = opened(place.connect)
        assert kinds == [
            AcceptConnection, AcceptConnection, RejectConnection,
            AcceptConnection, RejectConnection,
        ]  # fmt: skip
        assert isinstance(refused, RejectConnection)
        assert refused.status_code == 503
    deadline = time.monotonic() + 3
    while place.server.upgrades and time.monotonic() < deadline:
        time.sleep(0.02)
    assert place.server.upgrades == 0


def test_a_server_that_stops_says_goodbye(client: Client, place: Site) -> None:
    client.ask()
    stopped = threading.Thread(target=place.server.stop)
    began = time.monotonic()
    stopped.start()
    assert client.close_code() == GOING_AWAY
    client.sock.close()
    stopped.join()
    assert time.monotonic() - began < 3
