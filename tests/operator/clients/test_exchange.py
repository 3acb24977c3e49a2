"""One exchange: bounded, and honest about whether anything was sent."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from narthex_operator.clients.exchange import Bounds, Endpoint, ExchangeError, Line, exchange
from narthex_operator.clients.prometheus import prometheus_client
from narthex_operator.errors import UnreachableError
from rig import until

Peer = Callable[[socket.socket], None]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def peer(behave: Peer) -> Iterator[Endpoint]:
    """Let something answer one connection as it likes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(5)
                with contextlib.suppress(OSError):
                    behave(sock)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Endpoint(host="127.0.0.1", port=listener.getsockname()[1])
    finally:
        listener.close()
        thread.join(6)


def heard(sock: socket.socket) -> bytes:
    return sock.recv(65536)


def whole(sock: socket.socket) -> None:
    heard(sock)
    sock.sendall(OK + b"Content-Length: 2\r\n\r\n{}")


def endless(sock: socket.socket) -> None:
    heard(sock)
    sock.sendall(OK + b"Content-Length: 10737418240\r\n\r\n")
    block = bytes(1 << 20)
    while True:
        sock.sendall(block)


def dripping(sock: socket.socket) -> None:
    heard(sock)
    for byte in OK * 100:
        sock.sendall(bytes([byte]))
        time.sleep(0.05)


def dripping_body(sock: socket.socket) -> None:
    heard(sock)
    sock.sendall(OK + b"Content-Length: 100000\r\n\r\n")
    while True:
        sock.sendall(b"x")
        time.sleep(0.05)


def silent(sock: socket.socket) -> None:
    heard(sock)
    time.sleep(1.5)


def cut(sock: socket.socket) -> None:
    heard(sock)


def short(sock: socket.socket) -> None:
    heard(sock)
    sock.sendall(OK + b"Content-Length: 200\r\n\r\n{}")


def noise(sock: socket.socket) -> None:
    heard(sock)
    sock.sendall(b"\x00\x01 not http at all\r\n\r\n")


def many_headers(sock: socket.socket) -> None:
    heard(sock)
    sock.sendall(OK + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n")


def long_header(sock: socket.socket) -> None:
    heard(sock)
    sock.sendall(OK + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n")


def test_a_whole_reply_is_read() -> None:
    with peer(whole) as endpoint:
        reply = exchange(endpoint, "GET", "/")
    assert (reply.status, reply.media_type, reply.body) == (200, "application/json", b"{}")


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (endless, "larger than 1 MiB"),
        (silent, "within 1 s"),
        (dripping, "within 1 s"),
        (dripping_body, "within 1 s"),
        (cut, "closed the connection"),
        (short, "not whole"),
        (noise, "not whole HTTP"),
        (many_headers, "not whole HTTP"),
        (long_header, "not whole HTTP"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_hostile_reply_ends_the_exchange_in_time(behave: Peer, words: str) -> None:
    bounds = Bounds(total_seconds=1.0, reply_bytes=1 << 20)
    began = time.monotonic()
    with peer(behave) as endpoint:
        with pytest.raises(ExchangeError, match=words) as told:
            exchange(endpoint, "GET", "/", bounds=bounds)
        assert time.monotonic() - began < 2.0
    assert told.value.sent


def test_a_read_that_times_out_before_the_deadline_says_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine the socket's own timeout comes first.
    monkeypatch.setattr(
        "narthex_operator.clients.exchange._Wire.hurry", lambda wire: wire.sock.settimeout(0.5)
    )
    with (
        peer(silent) as endpoint,
        pytest.raises(ExchangeError, match=r"no whole reply within 0\.5 s"),
    ):
        exchange(endpoint, "GET", "/", bounds=Bounds(total_seconds=0.5))


def test_where_nothing_listens_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ExchangeError, match="nothing listens") as told:
        exchange(Endpoint(host="127.0.0.1", port=port), "GET", "/")
    assert not told.value.sent


def test_proxies_and_passwords_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", f"{tmp_path}/netrc")
    said: list[bytes] = []

    def note(sock: socket.socket) -> None:
        said.append(heard(sock))
        sock.sendall(OK + b"Content-Length: 2\r\n\r\n{}")

    with peer(note) as endpoint:
        exchange(endpoint, "GET", "/x")
    assert said[0].startswith(b"GET /x HTTP/1.1\r\n")
    assert b"authorization" not in said[0].lower()


@pytest.mark.parametrize(
    "body",
    [b"[]", b"nonsense", b"[" * 100_000, b'{"data": {"result": [{"metric": 1}]}}', b"\xff"],
)
def test_a_service_that_answers_nonsense_is_named(body: bytes) -> None:
    def answer(sock: socket.socket) -> None:
        heard(sock)
        sock.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with peer(answer) as endpoint:
        client = prometheus_client(f"http://127.0.0.1:{endpoint.port}")
        with pytest.raises(UnreachableError, match=r"Prometheus .* something else"):
            client.instant("up")


@contextlib.contextmanager
def host(behave: Callable[[socket.socket, int], object]) -> Iterator[Endpoint]:
    """Let something answer every connection as it likes; it is told which one it is, from 1."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        number = 0
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                number += 1
                with sock, contextlib.suppress(OSError):
                    sock.settimeout(5)
                    behave(sock, number)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Endpoint(host="127.0.0.1", port=listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(6)


def say(sock: socket.socket, number: int) -> None:
    sock.sendall(OK + b"Content-Length: 1\r\n\r\n%d" % number)


def kept_open(sock: socket.socket, number: int) -> None:
    while heard(sock):
        say(sock, number)


def one_each(sock: socket.socket, number: int) -> None:
    heard(sock)
    say(sock, number)


def hung_up_on_the_second(sock: socket.socket, number: int) -> None:
    heard(sock)
    say(sock, number)
    heard(sock)


def test_a_line_carries_several_exchanges_on_one_connection() -> None:
    with host(kept_open) as endpoint, Line(endpoint) as line:
        assert [line.exchange("GET", "/").body for _ in range(3)] == [b"1"] * 3


def test_a_fresh_exchange_has_a_connection_that_carried_nothing() -> None:
    with host(kept_open) as endpoint, Line(endpoint) as line:
        assert line.exchange("GET", "/").body == b"1"
        assert line.exchange("GET", "/", fresh=True).body == b"2"
        assert line.exchange("GET", "/").body == b"2"


def test_a_line_that_was_hung_up_on_is_replaced_before_anything_is_sent() -> None:
    with host(one_each) as endpoint, Line(endpoint) as line:
        assert line.exchange("GET", "/").body == b"1"
        until(lambda: line._wire is not None and not line._wire.idle(), what="it has hung up")
        assert line.exchange("POST", "/", body=b"{}").body == b"2"


def test_a_request_that_is_cut_on_a_kept_line_is_not_sent_again() -> None:
    with host(hung_up_on_the_second) as endpoint, Line(endpoint) as line:
        assert line.exchange("GET", "/").body == b"1"
        with pytest.raises(ExchangeError, match="closed the connection") as told:
            line.exchange("POST", "/", body=b"{}")
    assert told.value.sent


def test_bytes_that_nobody_asked_for_make_a_line_useless() -> None:
    def chatty(sock: socket.socket, number: int) -> None:
        heard(sock)
        say(sock, number)
        time.sleep(0.05)
        sock.sendall(OK + b"Content-Length: 4\r\n\r\nevil")
        heard(sock)

    with host(chatty) as endpoint, Line(endpoint) as line:
        assert line.exchange("GET", "/").body == b"1"
        until(lambda: line._wire is not None and not line._wire.idle(), what="it has said more")
        assert line.exchange("GET", "/").body == b"2"


def test_a_request_that_cannot_be_written_was_not_sent() -> None:
    with host(kept_open) as endpoint, Line(endpoint) as line:
        with pytest.raises(ExchangeError) as told:
            line.exchange("GET", "/", headers={"X": "a\r\nEvil: b"})
        assert not told.value.sent
        assert line.exchange("GET", "/").status == 200


def test_who_reads_nothing_is_late() -> None:
    done = threading.Event()
    with host(lambda *_: done.wait(20)) as endpoint, Line(endpoint) as line:
        with pytest.raises(ExchangeError, match=r"within 0\.5 s") as told:
            line.exchange("POST", "/", body=bytes(32 << 20), bounds=Bounds(total_seconds=0.5))
        # It still reads nothing: nothing but the deadline ended this.
        assert not done.is_set()
        done.set()
    assert told.value.sent
