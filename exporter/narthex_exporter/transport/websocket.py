"""Speak WebSocket (RFC 6455) on a connection that an application took over, or as a client.

wsproto knows the protocol; here are the limits: messages of at most 64 KiB, no compression, few
control frames, pings for a silent peer, and a bounded buffer for one that does not read. Only who
answers a WebSocket imports this module: see tests/exporter/web/test_budget.py.
"""

import base64
import binascii
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from wsproto.connection import CLIENT, SERVER, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.utilities import LocalProtocolError, RemoteProtocolError, generate_accept_token

from narthex_exporter.bucket import Bucket
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.connection import UPGRADE, Upgrade
from narthex_exporter.transport.wires import TICK_SECONDS, Wire, drain, wait

PROTOCOL: Final = "narthex.v1"
MESSAGE_BYTES: Final = 64 * 1024
_VERSION: Final = "13"
_KEY_BYTES: Final = 16
_REASON_BYTES: Final = 120
# Beyond this much unsent, even our pongs are too much: the peer asks and does not read.
_UNREAD_BYTES: Final = 1 << 20

# See RFC 6455, 7.4.1.
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
POLICY: Final = 1008
TOO_BIG: Final = 1009
INTERNAL: Final = 1011
_NO_CODE: Final = 1006


class HandshakeError(NarthexError):
    """A request is not a WebSocket's; ``status`` is the HTTP status to answer with."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a peer may be silent before it is asked, and before it is given up. Seconds."""

    ping_seconds: float = 20.0
    dead_seconds: float = 45.0
    stalled_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Closed:
    """How a conversation ended: the code and the words of whoever ended it."""

    code: int
    reason: str = ""
    by_peer: bool = False


class WebSocket:
    """One conversation, moved by one thread: ``wait``, then ``messages``, then ``send``."""

    def __init__(
        self,
        wire: Wire,
        *,
        client: bool = False,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.wire = wire
        self.closed: Closed | None = None
        self._patience = patience or Patience()
        self._clock = clock
        self._connection = Connection(CLIENT if client else SERVER)
        self._parts: list[str | bytes] = []
        self._size = 0
        self._control = Bucket(200, 20, clock=clock)
        self._heard = self._pinged = self._drained = clock()

    @property
    def has_room(self) -> bool:
        """Tell whether the peer keeps up: else send nothing more yet."""
        return self.wire.has_room

    def messages(self) -> list[str | bytes]:
        """Take what has come, without waiting; ``closed`` is set where no more will."""
        if self.closed is not None:
            return []
        found: list[str | bytes] = []
        data = self.wire.read()
        if data:
            self._heard = self._clock()
            self._connection.receive_data(data)
            try:
                for event in self._connection.events():
                    self._take(event, found)
                    if self.closed is not None:
                        break
            except (LocalProtocolError, RemoteProtocolError, UnicodeDecodeError):
                self.close(PROTOCOL_ERROR, "not WebSocket")
        if self.wire.ended and self.closed is None:
            self.closed = Closed(_NO_CODE, "the connection was cut", by_peer=True)
        return found

    def send(self, message: str | bytes) -> None:
        """Send one message, of at most MESSAGE_BYTES; nothing once it is closed."""
        if self.closed is not None:
            return
        event: Event = (
            TextMessage(data=message) if isinstance(message, str) else BytesMessage(data=message)
        )
        self._put(event)

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say that it is over, and why, in words without secrets."""
        if self.closed is not None:
            return
        cut = reason.encode()[:_REASON_BYTES].decode(errors="ignore")
        self._put(CloseConnection(code=code, reason=cut))
        self.closed = Closed(code, cut)

    def wait(
        self,
        seconds: float,
        *,
        wires: Iterable[tuple[Wire, bool]] = (),
        files: Iterable[int] = (),
        reads: bool = True,
    ) -> None:
        """Wait until something can be moved, at most one tick; ask a silent peer for a sign."""
        self.beat()
        wait(((self.wire, reads), *wires), min(seconds, TICK_SECONDS), files=files)

    def finish(self, *, seconds: float = 1.0) -> None:
        """Give the peer a moment to hear that it is over."""
        drain(self.wire, seconds=seconds)
        deadline = self._clock() + seconds
        while (
            self._connection.state is ConnectionState.LOCAL_CLOSING
            and not self.wire.ended
            and self._clock() < deadline
        ):
            wait(((self.wire, True),), TICK_SECONDS)
            data = self.wire.read()
            if data:
                self._connection.receive_data(data)
                for _ in self._connection.events():
                    pass

    def _take(self, event: Event, found: list[str | bytes]) -> None:
        match event:
            case Message():
                self._collect(event, found)
            case Ping() | Pong():
                if not self._control.take():
                    self.close(POLICY, "too many control frames")
                elif isinstance(event, Ping):
                    self._put(event.response())
            case CloseConnection():
                answer = event.code if event.code != _NO_CODE else NORMAL
                self._put(CloseConnection(code=answer, reason=""))
                self.closed = Closed(event.code, (event.reason or "")[:200], by_peer=True)

    def _collect(self, event: Message[Any], found: list[str | bytes]) -> None:
        size = len(event.data.encode()) if isinstance(event.data, str) else len(event.data)
        self._size += size
        if self._size > MESSAGE_BYTES:
            self.close(TOO_BIG, f"at most {MESSAGE_BYTES} bytes a message")
            return
        self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
        if event.message_finished:
            empty: Any = "" if isinstance(event.data, str) else b""
            found.append(empty.join(self._parts))
            self._parts, self._size = [], 0

    def _put(self, event: Event) -> None:
        try:
            data = self._connection.send(event)
        except LocalProtocolError:
            return  # it is closing: nobody wants this any more
        self.wire.put(data)
        if len(self.wire.out) > _UNREAD_BYTES:
            self._give_up("the peer does not read")

    def beat(self) -> None:
        """Ask a silent peer for a sign, and give one up that does not answer or read."""
        if self.closed is not None:
            return
        now = self._clock()
        if self.has_room:
            self._drained = now
        elif now - self._drained > self._patience.stalled_seconds:
            self._give_up("the peer does not read")
            return
        if now - self._heard > self._patience.dead_seconds:
            self._give_up("the peer is silent")
        elif now - max(self._heard, self._pinged) > self._patience.ping_seconds:
            self._pinged = now
            self._put(Ping())

    def _give_up(self, why: str) -> None:
        self.closed = Closed(_NO_CODE, why)
        self.wire.out.clear()
        self.wire.ended = True


def accept(
    environ: Mapping[str, Any],
    *,
    headers: Iterable[tuple[str, str]] = (),
    protocol: str = "",
    patience: Patience | None = None,
) -> WebSocket:
    """Take a request's connection over as a WebSocket. Raises HandshakeError before, only."""
    upgrade = wanted(environ)
    key = environ["HTTP_SEC_WEBSOCKET_KEY"].strip().encode()
    more = [("Sec-WebSocket-Accept", generate_accept_token(key).decode()), *headers]
    if protocol:
        more.append(("Sec-WebSocket-Protocol", protocol))
    return WebSocket(upgrade.take(more), patience=patience)


def wanted(environ: Mapping[str, Any]) -> Upgrade:
    """Check that a request asks for a WebSocket. Raises HandshakeError."""
    upgrade = environ.get(UPGRADE)
    if not isinstance(upgrade, Upgrade):
        raise HandshakeError("only a WebSocket is answered here", status=426)
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION", "").strip() != _VERSION:
        raise HandshakeError("only version 13 of WebSocket is spoken here", status=426)
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise HandshakeError("the request's Sec-WebSocket-Key is not one")
    return upgrade


def offered(environ: Mapping[str, Any]) -> list[str]:
    """List the subprotocols that a request offers."""
    words = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")
    return [word.strip() for word in words if word.strip()]


def client_headers(key: str) -> list[tuple[str, str]]:
    """Give the headers by which a client asks for a WebSocket."""
    return [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", _VERSION),
        ("Sec-WebSocket-Key", key),
    ]


def client_key() -> str:
    """Make a client's key, new for each request."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def answers(key: str, accepted: str) -> bool:
    """Tell whether a server's Sec-WebSocket-Accept belongs to a client's key."""
    return secrets.compare_digest(generate_accept_token(key.encode()), accepted.encode())
