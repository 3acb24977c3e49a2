"""Make one HTTP exchange that is bounded in time and size and says whether it was sent.

Each exchange has a connection of its own, so that there is no doubt which request a cut
connection belonged to. No proxy and no password is taken from the environment.
"""

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from narthex_exporter.contract.errors import NarthexError

_CHUNK: Final = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How long and how much one exchange may be. Times are seconds, from its beginning."""

    connect_seconds: float = 3.05
    total_seconds: float = 15.0
    reply_bytes: int = 8 << 20


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


@dataclass(slots=True)
class Deadline:
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


def exchange(
    endpoint: Endpoint,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    bounds: Bounds | None = None,
) -> Reply:
    """Send one request and read its reply. Raises ExchangeError."""
    limits = bounds or Bounds()
    began = time.monotonic()
    sock = connect(endpoint, limits)
    deadline = Deadline(max(0.05, limits.total_seconds - (time.monotonic() - began)))
    deadline.guard(sock)
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
    connection.sock = sock
    try:
        connection.request(
            method, endpoint.prefix + target, body=body, headers={**(headers or {})}
        )
        with connection.getresponse() as response:
            data = read_bounded(response, limits.reply_bytes)
            if deadline.passed:
                # Where headers are cut, http.client takes the end for theirs.
                raise TimeoutError
            return Reply(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=data,
            )
    except (OSError, http.client.HTTPException, ValueError) as error:
        # The socket's own timeout is the whole bound too, and on a busy machine may come first.
        late = deadline.passed or isinstance(error, TimeoutError)
        why = _late(limits) if late else explained(error)
        raise ExchangeError(why, sent=True) from error
    finally:
        deadline.lift()
        connection.close()
        sock.close()


def connect(endpoint: Endpoint, limits: Bounds) -> socket.socket:
    """Connect and shake hands: nothing of the request has left. Raises ExchangeError."""
    seconds = min(limits.connect_seconds, limits.total_seconds)
    try:
        raw = socket.create_connection((endpoint.host, endpoint.port), timeout=seconds)
    except OSError as error:
        raise ExchangeError(explained(error), sent=False) from error
    if endpoint.tls is None:
        raw.settimeout(limits.total_seconds)
        return raw
    deadline = Deadline(seconds)
    deadline.guard(raw)
    try:
        sock = endpoint.tls().wrap_socket(
            raw, server_hostname=endpoint.server_name, do_handshake_on_connect=False
        )
        try:
            sock.do_handshake()
        except OSError:
            sock.close()
            raise
    except (OSError, NarthexError) as error:
        raw.close()
        why = "the TLS handshake took too long" if deadline.passed else explained(error)
        raise ExchangeError(why, sent=False) from error
    finally:
        deadline.lift()
    sock.settimeout(limits.total_seconds)
    return sock


def read_bounded(response: http.client.HTTPResponse, most: int) -> bytes:
    """Read a body of at most ``most`` bytes. Raises ValueError, HTTPException."""
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
