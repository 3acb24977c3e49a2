"""Open a WebSocket to a node: bounded in time and size until it speaks, and after."""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from narthex_exporter.transport.websocket import (
    Patience,
    WebSocket,
    answers,
    client_headers,
    client_key,
)
from narthex_exporter.transport.wires import Wire
from narthex_operator.clients.exchange import (
    Bounds,
    Endpoint,
    ExchangeError,
    Reply,
    connect,
    explained,
    read_bounded,
)


@dataclass(slots=True)
class _Deadline:
    """Cuts a socket when the time is over: a timeout alone bounds one read, not the whole."""

    seconds: float
    passed: bool = field(default=False, init=False)
    _timer: threading.Timer | None = field(default=None, init=False)

    def guard(self, sock: socket.socket) -> None:
        """Begin to watch the time."""
        self._timer = threading.Timer(self.seconds, self._cut, (sock,))
        self._timer.daemon = True
        self._timer.start()

    def _cut(self, sock: socket.socket) -> None:
        self.passed = True
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    def lift(self) -> None:
        """Let the socket live on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()


_ACCEPT: Final = "sec-websocket-accept"


def open_stream(
    endpoint: Endpoint,
    target: str,
    *,
    headers: Mapping[str, str],
    bounds: Bounds,
    patience: Patience | None = None,
) -> tuple[Reply, WebSocket | None]:
    """Ask for a WebSocket: gives the reply, and the conversation if it is 101.

    Raises ExchangeError.
    """
    began = time.monotonic()
    sock = connect(endpoint, bounds)
    sock.settimeout(bounds.total_seconds)
    deadline = _Deadline(max(0.05, bounds.total_seconds - (time.monotonic() - began)))
    deadline.guard(sock)
    key = client_key()
    opened: WebSocket | None = None
    try:
        response = _ask(sock, endpoint, target, {**headers, **dict(client_headers(key))})
        found = {name.lower(): value for name, value in response.getheaders()}
        body = b""
        if response.status == http.client.SWITCHING_PROTOCOLS:
            _check_answer(key, found.get(_ACCEPT, ""))
            wire = Wire(sock, first=_rest(sock, response))
            opened = WebSocket(wire, client=True, patience=patience)
        else:
            body = read_bounded(response, bounds.reply_bytes)
        if deadline.passed:
            raise TimeoutError
        return Reply(status=response.status, headers=found, body=body), opened
    except (OSError, http.client.HTTPException, ValueError) as error:
        opened = None
        late = deadline.passed or isinstance(error, TimeoutError)
        why = f"no answer within {bounds.total_seconds:g} s" if late else explained(error)
        raise ExchangeError(why, sent=True) from error
    finally:
        deadline.lift()
        if opened is None:
            sock.close()


def _ask(
    sock: socket.socket, endpoint: Endpoint, target: str, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
    connection.sock = sock
    connection.request("GET", endpoint.prefix + target, headers={**headers})
    return connection.getresponse()


def _check_answer(key: str, accepted: str) -> None:
    if not answers(key, accepted):
        raise ValueError("it speaks something else than WebSocket")


def _rest(sock: socket.socket, response: http.client.HTTPResponse) -> bytes:
    """Take what was read behind the headers already."""
    sock.setblocking(False)
    try:
        return response.fp.peek()
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
