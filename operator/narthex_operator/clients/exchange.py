"""Make HTTP exchanges that are bounded in time and size and say whether anything was sent.

A ``Line`` is one connection, for exchanges one after the other; ``exchange`` is a line for one.
A request that may have left is never sent again here: only a line that the peer has hung up on
already, seen before the first byte of a request, is replaced. No proxy and no password is taken
from the environment.
"""

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from typing_extensions import override

from narthex_exporter.contract.errors import NarthexError

REPLY_BYTES: Final = 8 << 20
_CHUNK: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long and how much one exchange may be. Times are seconds, from its beginning."""

    connect_seconds: float = 3.05
    total_seconds: float = 15.0
    reply_bytes: int = REPLY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to connect. With ``tls`` the peer must prove to be ``server_name``."""

    host: str
    port: int
    tls: Callable[[], ssl.SSLContext] | None = None
    server_name: str = ""
    prefix: str = ""

    @classmethod
    def of(cls, url: str, *, tls: Callable[[], ssl.SSLContext] | None = None) -> "Endpoint":
        """Read an endpoint from a base URL; ``https`` without ``tls`` uses the system's CAs."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if secure else 80),
            tls=(tls or ssl.create_default_context) if secure else None,
            server_name=parts.hostname or "",
            prefix=parts.path.rstrip("/"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def media_type(self) -> str:
        """The content type without its parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class ExchangeError(NarthexError):
    """An exchange failed. ``sent`` is False only if not one byte of the request left."""

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class _Wire:
    """A connected socket whose every wait fits into what is left of one deadline.

    A socket's own timeout bounds one read, not the whole: who drips would never be late. What is
    written is kept until ``flush``, so that a request leaves in one piece, or not at all.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.until = 0.0
        self.sent = False
        self._kept = bytearray()

    def begin(self, until: float) -> None:
        """Start another exchange, to be over by ``until`` (monotonic)."""
        self.until, self.sent = until, False
        self._kept.clear()

    def sendall(self, data: bytes) -> None:
        """Keep a piece of a request."""
        self._kept += data

    def flush(self) -> None:
        """Send what was kept."""
        left = memoryview(bytes(self._kept))
        self._kept.clear()
        while left:
            self.hurry()
            self.sent = True
            left = left[self.sock.send(left) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Give a reader for one reply; to close it leaves the connection open."""
        return io.BufferedReader(_Reads(self))

    def idle(self) -> bool:
        """Tell whether it could carry a request: open, and nothing left over on it."""
        if isinstance(self.sock, ssl.SSLSocket) and self.sock.pending():
            return False
        wait = select.poll()
        wait.register(self.sock, select.POLLIN)
        return not wait.poll(0)

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def hurry(self) -> None:
        """Let the next wait be no longer than what is left. Raises TimeoutError."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)


class _Reads(io.RawIOBase):
    """The reading side of a wire."""

    def __init__(self, wire: _Wire) -> None:
        self.wire = wire

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int:
        self.wire.hurry()
        return self.wire.sock.recv_into(buffer)


@dataclass(slots=True)
class Line:
    """One connection to an endpoint, made when it is first needed.

    An exchange that fails hangs up; after it the line can be used again, anew.
    """

    endpoint: Endpoint
    _wire: _Wire | None = field(default=None, init=False)

    def exchange(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        bounds: Bounds | None = None,
        fresh: bool = False,
    ) -> Reply:
        """Send one request and read its reply. Raises ExchangeError.

        With ``fresh`` it goes over a connection that has carried nothing before.
        """
        limits = bounds or Bounds()
        until = time.monotonic() + limits.total_seconds
        wire = self._wire
        if wire is None or fresh or not wire.idle():
            self.close()
            wire = self._wire = _Wire(connect(self.endpoint, limits))
        wire.begin(until)
        try:
            connection = http.client.HTTPConnection(self.endpoint.host, self.endpoint.port)
            connection.sock = wire
            whole = self.endpoint.prefix + target
            connection.request(method, whole, body=body, headers={**(headers or {})})
            wire.flush()
            return self._receive(wire, method, limits)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            why = _late(limits) if isinstance(error, TimeoutError) else explained(error)
            raise ExchangeError(why, sent=wire.sent) from error

    def close(self) -> None:
        """Hang up."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self, wire: _Wire, method: str, limits: Bounds) -> Reply:
        with http.client.HTTPResponse(wire, method=method) as response:  # type: ignore[arg-type] # it asks for makefile alone
            response.begin()
            data = read_bounded(response, limits.reply_bytes)
            if response.will_close:
                self.close()
            return Reply(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=data,
            )


def exchange(
    endpoint: Endpoint,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    bounds: Bounds | None = None,
) -> Reply:
    """Send one request over a connection of its own and read its reply. Raises ExchangeError."""
    with Line(endpoint) as line:
        return line.exchange(method, target, headers=headers, body=body, bounds=bounds)


def connect(endpoint: Endpoint, limits: Bounds) -> socket.socket:
    """Connect and shake hands: up to here nothing of the request has left."""
    seconds = min(limits.connect_seconds, limits.total_seconds)
    try:
        raw = socket.create_connection((endpoint.host, endpoint.port), timeout=seconds)
    except OSError as error:
        raise ExchangeError(explained(error), sent=False) from error
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if endpoint.tls is None:
        return raw
    try:
        sock = endpoint.tls().wrap_socket(
            raw, server_hostname=endpoint.server_name, do_handshake_on_connect=False
        )
        try:
            # The timeout bounds a handshake as a whole, however the peer drips.
            sock.do_handshake()
        except OSError:
            sock.close()
            raise
    except TimeoutError as error:
        raw.close()
        raise ExchangeError("the TLS handshake took too long", sent=False) from error
    except (OSError, NarthexError) as error:
        raw.close()
        raise ExchangeError(explained(error), sent=False) from error
    return sock


def read_bounded(response: http.client.HTTPResponse, most: int) -> bytes:
    """Read a body that is not longer than ``most``. Raises ValueError where it is."""
    chunks, size = [], 0
    while chunk := response.read1(_CHUNK):
        size += len(chunk)
        if size > most:
            raise ValueError(f"the reply is larger than {most >> 20} MiB")
        chunks.append(chunk)
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return b"".join(chunks)


def _late(limits: Bounds) -> str:
    return f"no whole reply within {limits.total_seconds:g} s"


# What each kind of failure is called; the first that fits counts.
_CAUSES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (TimeoutError, "it does not answer in time"),
    (ConnectionRefusedError, "nothing listens there (connection refused)"),
    (http.client.RemoteDisconnected, "it closed the connection without a reply"),
    (ConnectionResetError, "it closed the connection without a reply"),
    (ssl.SSLEOFError, "it closed the connection without a reply"),
    (http.client.HTTPException, "its reply is not whole HTTP"),
)


def explained(error: Exception) -> str:
    """Give a short cause in words, without what a peer could have put there."""
    for kind, words in _CAUSES:
        if isinstance(error, kind):
            return words
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error)
