"""The server as an HTTP server: what it takes, what it refuses, what it leaves behind."""

import contextlib
import socket
import threading
import time
from typing import Any

import pytest

from narthex_exporter.transport.server import Limits, ListenError, listen_tcp, listen_unix

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def read_all(sock: socket.socket) -> bytes:
    found = b""
    try:
        while chunk := sock.recv(65536):
            found += chunk
    except ConnectionResetError:
        pass
    return found


def ask(site: Any, data: bytes) -> bytes:
    with site.connect() as sock:
        sock.sendall(data)
        return read_all(sock)


def test_a_request_is_answered(site: Any) -> None:
    reply = ask(site(tls=False), CLOSE)
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.endswith(b"\r\n\r\nhello")


def test_a_connection_serves_many_requests(site: Any) -> None:
    place = site(tls=False)
    with place.connect() as sock:
        for _ in range(5):
            sock.sendall(GET)
            assert sock.recv(65536).endswith(b"hello")
    assert len(place.app.seen) == 5


def test_pipelined_requests_are_answered_in_order(site: Any) -> None:
    place = site(tls=False)
    reply = ask(place, GET.replace(b"/ ", b"/1 ") + GET.replace(b"/ ", b"/2 ") + CLOSE)
    assert reply.count(b"hello") == 3
    assert [seen["PATH_INFO"] for seen in place.app.seen] == ["/1", "/2", "/"]


def test_head_has_headers_and_no_body(site: Any) -> None:
    reply = ask(site(tls=False), CLOSE.replace(b"GET", b"HEAD"))
    assert b"content-length: 5" in reply.lower()
    assert reply.endswith(b"\r\n\r\n")


def test_no_content_ends_the_reply(site: Any) -> None:
    reply = ask(site(tls=False), CLOSE.replace(b"/ ", b"/nothing "))
    assert reply.startswith(b"HTTP/1.1 204")


def test_a_body_is_read_in_whole(site: Any) -> None:
    place = site(tls=False)
    body = b"x" * 300_000
    head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n"
    assert b" 200 " in ask(place, head + body)
    assert place.app.bodies == [body]


def test_expect_is_answered_before_the_body_comes(site: Any) -> None:
    place = site(tls=False)
    with place.connect() as sock:
        sock.sendall(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"ok")
        assert b"HTTP/1.1 200" in read_all(sock)
    assert place.app.bodies == [b"ok"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nAuthorization: y\r\n\r\n", 400),
        (b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 200_000, 413),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n", 400),
    ],
)
def test_a_wrong_request_is_refused_in_words(site: Any, data: bytes, status: int) -> None:
    place = site(tls=False)
    reply = ask(place, data)
    assert reply.startswith(f"HTTP/1.1 {status} ".encode()), reply[:200]
    assert not place.app.seen


def test_a_header_with_an_underscore_cannot_pass_for_another(site: Any) -> None:
    place = site(tls=False)
    ask(place, CLOSE[:-2] + b"Narthex_Ticket: forged\r\n\r\n")
    assert "HTTP_NARTHEX_TICKET" not in place.app.seen[0]


def test_the_raw_target_stays_as_it_was_sent(site: Any) -> None:
    place = site(tls=False)
    ask(place, CLOSE.replace(b"/ ", b"/a%2Fb/../c?x=%20 "))
    assert place.app.seen[0]["RAW_URI"] == "/a%2Fb/../c?x=%20"
    assert place.app.seen[0]["PATH_INFO"] == "/a/b/../c"


@pytest.mark.parametrize("path", [b"/fault", b"/missing-file"])
def test_an_applications_mistake_costs_its_own_request(site: Any, path: bytes) -> None:
    place = site(tls=False)
    assert ask(place, CLOSE.replace(b"/ ", path + b" ")).startswith(b"HTTP/1.1 500 ")
    assert b" 200 " in ask(place, CLOSE)


def test_a_reply_that_breaks_off_does_not_look_whole(site: Any) -> None:
    reply = ask(site(tls=False), CLOSE.replace(b"/ ", b"/late-fault "))
    assert b"half" in reply
    assert not reply.endswith(b"0\r\n\r\n")


def test_a_stream_flows_as_it_is_made(site: Any) -> None:
    place = site(tls=False)
    with place.connect() as sock:
        sock.sendall(CLOSE.replace(b"/ ", b"/stream "))
        first = b""
        while b"first\n" not in first:
            first += sock.recv(65536)
        assert b"second" not in first
        place.app.go_on.set()
        assert read_all(sock).endswith(b"second\n\r\n0\r\n\r\n")
    assert place.app.closed.wait(2)


def test_a_streams_source_is_closed_when_the_reader_leaves(site: Any) -> None:
    place = site(tls=False)
    with place.connect() as sock:
        sock.sendall(CLOSE.replace(b"/ ", b"/stream "))
        assert sock.recv(65536)
    place.app.go_on.set()
    assert place.app.closed.wait(2)


def test_stop_lets_a_request_finish_and_cuts_the_idle(site: Any) -> None:
    place = site(tls=False)
    with place.connect() as busy, place.connect() as idle:
        idle.sendall(GET)
        assert idle.recv(65536)
        busy.sendall(CLOSE.replace(b"/ ", b"/slow "))
        while len(place.app.seen) < 2:
            time.sleep(0.01)
        threading.Timer(0.3, place.app.go_on.set).start()
        place.server.stop(drain_seconds=5)
        assert b" 200 " in read_all(busy)
        assert read_all(idle) == b""
    with pytest.raises(ConnectionRefusedError):
        place.connect()


def test_a_unix_socket_serves_too(site: Any) -> None:
    place = site()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(place.unix))
        sock.sendall(CLOSE)
        assert read_all(sock).endswith(b"hello")
    assert place.unix.stat().st_mode & 0o777 == 0o600


def test_a_unix_socket_in_use_is_not_taken(site: Any) -> None:
    with pytest.raises(ListenError, match="in use"):
        listen_unix(site().unix)


def test_a_taken_port_is_told_by_number(site: Any) -> None:
    place = site(tls=False)
    with pytest.raises(ListenError, match=str(place.port)) as caught:
        listen_tcp("127.0.0.1", place.port)
    assert "ss -ltnp" in caught.value.hint


def test_connections_are_bounded_by_peer(site: Any) -> None:
    place = site(tls=False, limits=Limits(connections_per_peer=3))
    held = [place.connect() for _ in range(3)]
    try:
        for sock in held:
            sock.sendall(GET)
            assert sock.recv(65536)
        with place.connect() as refused:
            assert read_all(refused) == b""
        with place.connect(source="127.0.0.2") as other:
            other.sendall(CLOSE)
            assert read_all(other).endswith(b"hello")
    finally:
        for sock in held:
            sock.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_silent_connections_do_not_shut_out_their_own_address(
    site: Any, besieged: Any, family: int
) -> None:
    place = site(tls=False)

    def connect() -> socket.socket:
        sock = socket.socket(family)
        unix = family == socket.AF_UNIX
        sock.connect(str(place.unix) if unix else ("127.0.0.1", place.port))
        sock.settimeout(10)
        return sock

    times = []
    with besieged(place, connect) as siege, connect() as kept:
        kept.sendall(GET)
        assert kept.recv(65536)
        before = siege.opened
        for _ in range(20):
            start = time.monotonic()
            with connect() as sock:
                sock.sendall(CLOSE)
                assert read_all(sock).endswith(b"hello")
            times.append(time.monotonic() - start)
            time.sleep(0.05)
        # Who has sent a request is not the one to make room.
        kept.sendall(GET)
        assert kept.recv(65536).endswith(b"hello")
        assert siege.opened - before > 64  # more than there are places
    assert max(times) < 1


def test_a_connection_that_made_room_starts_no_request(site: Any) -> None:
    place = site(tls=False, limits=Limits(connections_per_peer=1))
    with place.connect() as old:
        old.sendall(b"GET /old HTTP/1.1\r\n")
        while not place.server.connections:
            time.sleep(0.01)
        with place.connect() as new:
            new.sendall(CLOSE)
            assert read_all(new).endswith(b"hello")
        with contextlib.suppress(ConnectionError):
            old.sendall(b"Host: a\r\n\r\n")
        assert read_all(old) == b""
    assert [seen["PATH_INFO"] for seen in place.app.seen] == ["/"]


@pytest.mark.parametrize(
    "start", [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"]
)
def test_a_peer_that_stalls_is_cut(site: Any, start: bytes) -> None:
    place = site(tls=False, limits=Limits(header_seconds=0.3))
    began = time.monotonic()
    with place.connect() as sock:
        sock.sendall(start)
        assert read_all(sock) == b""
    assert time.monotonic() - began < 2


def test_a_peer_that_drips_headers_is_cut(site: Any) -> None:
    place = site(tls=False, limits=Limits(header_seconds=0.5))
    with place.connect() as sock:
        began = time.monotonic()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            while time.monotonic() - began < 5:
                sock.sendall(b"G")
                time.sleep(0.05)
    assert time.monotonic() - began < 2
    assert not place.app.seen


def test_a_kept_connection_is_cut_when_it_idles(site: Any) -> None:
    place = site(tls=False, limits=Limits(idle_seconds=0.3))
    with place.connect() as sock:
        sock.sendall(GET)
        assert sock.recv(65536)
        began = time.monotonic()
        assert read_all(sock) == b""
    assert time.monotonic() - began < 2


def test_a_reader_that_does_not_read_is_cut(site: Any) -> None:
    def app(environ: dict[str, Any], start: Any) -> list[bytes]:
        start("200 OK", [])
        return [b"x" * (64 << 20)]

    place = site(tls=False, limits=Limits(send_seconds=0.3), app=app)
    with place.connect() as sock:
        sock.sendall(CLOSE)
        deadline = time.monotonic() + 5
        while place.server.connections == 0:
            time.sleep(0.01)
        while place.server.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert place.server.connections == 0
