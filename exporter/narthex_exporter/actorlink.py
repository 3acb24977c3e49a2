"""Hand requests on to the actor's socket, unchanged, and its replies back; WebSockets too."""

import http.client
import json
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from narthex_exporter.contract.headers import (
    INSTANCE_HEADER,
    NONCE_HEADER,
    PROBLEM_TYPE,
    TICKET_HEADER,
)
from narthex_exporter.overriding import override
from narthex_exporter.transport.connection import UPGRADE, Upgrade
from narthex_exporter.transport.wires import Wire, tunnel

log = logging.getLogger(__name__)

# Nothing else passes: not a cookie, not a forwarded name, not who the peer is.
_REQUEST_HEADERS: Final = {
    "CONTENT_TYPE": "Content-Type",
    "HTTP_ACCEPT": "Accept",
    "HTTP_IF_NONE_MATCH": "If-None-Match",
    f"HTTP_{TICKET_HEADER.upper().replace('-', '_')}": TICKET_HEADER,
}
_REPLY_HEADERS: Final = (
    "Content-Type",
    "Content-Length",
    "ETag",
    "Location",
    "Retry-After",
    INSTANCE_HEADER,
    NONCE_HEADER,
)
# Beside them, what a WebSocket's handshake is made of.
_HANDSHAKE: Final = {
    "HTTP_SEC_WEBSOCKET_KEY": "Sec-WebSocket-Key",
    "HTTP_SEC_WEBSOCKET_VERSION": "Sec-WebSocket-Version",
    "HTTP_SEC_WEBSOCKET_PROTOCOL": "Sec-WebSocket-Protocol",
}
_ACCEPTED: Final = (
    "Sec-WebSocket-Accept",
    "Sec-WebSocket-Protocol",
    INSTANCE_HEADER,
    NONCE_HEADER,
)
_CHUNK: Final = 65536


@dataclass(slots=True)
class Relay:
    """A reply: status, headers, and the body as it comes."""

    status: int
    headers: list[tuple[str, str]]
    body: Iterator[bytes]
    connection: "_UnixConnection | None" = None

    def __iter__(self) -> Iterator[bytes]:
        return self.body

    def close(self) -> None:
        """Let the actor know that nobody reads on."""
        if self.connection is not None:
            self.connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorLink:
    """The way to the actor. ``silence_seconds`` is how long it may say nothing."""

    socket: Path
    connect_seconds: float = 2.0
    silence_seconds: float = 75.0

    def hand_on(self, environ: dict[str, Any]) -> Relay:
        """Send a request on; an actor that is off or broken is told as a problem (503, 502)."""
        connection = _UnixConnection(self.socket, self.connect_seconds)
        try:
            connection.connect()
        except OSError:
            connection.close()
            return _problem(
                503,
                "actor-off",
                "the actor service is not running on this node",
                "to let the operator act here, run on the node: "
                "systemctl enable --now narthex-actor.socket",
            )
        try:
            return self._ask(connection, environ)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            log.warning("actor.broken", extra={"error": f"{type(error).__name__}: {error}"})
            return _problem(
                502,
                "actor-broken",
                "the actor service broke off before it answered",
                "whether the request took effect is not known: ask for the run by its id",
            )

    def _ask(self, connection: "_UnixConnection", environ: dict[str, Any]) -> Relay:
        body: bytes = environ["wsgi.input"].read()
        connection.putrequest(
            environ["REQUEST_METHOD"],
            environ["RAW_URI"],
            skip_host=True,
            skip_accept_encoding=True,
        )
        upgrade: Upgrade | None = environ.get(UPGRADE)
        connection.putheader("Host", "actor")
        connection.putheader("Connection", "close" if upgrade is None else "Upgrade")
        if upgrade is not None:
            connection.putheader("Upgrade", "websocket")
        for key, name in (_REQUEST_HEADERS | (_HANDSHAKE if upgrade else {})).items():
            if key in environ:
                connection.putheader(name, environ[key])
        if body or environ["REQUEST_METHOD"] not in {"GET", "HEAD", "DELETE"}:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        connection.wait(self.silence_seconds)
        response = connection.getresponse()
        if response.status == HTTPStatus.SWITCHING_PROTOCOLS:
            if upgrade is None:
                raise ValueError("it speaks something else than was asked for")
            headers = _named(response, _ACCEPTED)
            talk = _conversation(upgrade, headers, connection, response)
            return Relay(response.status, headers, talk, connection)
        headers = _named(response, _REPLY_HEADERS)
        return Relay(response.status, headers, _chunks(response), connection)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, connect_seconds: float) -> None:
        super().__init__("actor", timeout=connect_seconds)
        self._path = path

    @override
    def connect(self) -> None:
        """Connect; the socket's file says who may."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))

    def wait(self, seconds: float) -> None:
        """Set how long the other end may say nothing."""
        self.sock.settimeout(seconds)


def _named(response: http.client.HTTPResponse, names: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value) for name in names if (value := response.headers.get(name)) is not None]


def _conversation(
    upgrade: Upgrade,
    headers: list[tuple[str, str]],
    connection: _UnixConnection,
    response: http.client.HTTPResponse,
) -> Iterator[bytes]:
    """Take the peer's connection over and hand bytes on, without a look at them, to the end."""
    sock = connection.sock
    if sock is None:
        raise ConnectionError("the actor closed the connection that it had just taken over")
    sock.setblocking(False)
    # The reader may have read on behind the headers; it is asked for no more than it has.
    first = response.fp.peek() or b""
    tunnel(upgrade.take(headers), Wire(sock, first=first), stopping=upgrade.stopping)
    yield from ()


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Give the body in the pieces in which it comes: events must not wait for each other.

    Where it breaks off, the error passes on, so that our own reply is cut and never looks whole.
    """
    try:
        while chunk := response.read1(_CHUNK):
            yield chunk
        if response.length:
            raise ConnectionError(f"the actor broke off {response.length} bytes early")
    except http.client.HTTPException as error:
        raise ConnectionError(f"the actor broke off: {error}") from error
    finally:
        response.close()


def _problem(status: int, kind: str, title: str, hint: str) -> Relay:
    body = json.dumps({"type": kind, "title": title, "status": status, "hint": hint}).encode()
    headers = [("Content-Type", PROBLEM_TYPE), ("Content-Length", str(len(body)))]
    return Relay(status, headers, iter([body]))
