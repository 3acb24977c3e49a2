"""Push queued entries to a store that speaks Loki's API, until it has each of them."""

import contextlib
import http.client
import json
import logging
import random
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from narthex_exporter.errors import ConfigError, NarthexError
from narthex_exporter.logs.record import MAX_LINE_BYTES, Counters, Labels, Row
from narthex_exporter.logs.spool import Spool
from narthex_exporter.transport.tls import TLSFiles, client_context, verifying_context

log = logging.getLogger(__name__)

BATCH_BYTES: Final = 256 * 1024
_PATH: Final = "/loki/api/v1/push"
_CONNECT_SECONDS: Final = 3.0
_REPLY_SECONDS: Final = 15.0
_BACKOFF_SECONDS: Final = (0.5, 60.0)
_MAX_RETRY_AFTER: Final = 300.0
_UNEXPLAINED_TRIES: Final = 5
_REPLY_BYTES: Final = 64 * 1024
_ACCEPTED: Final = frozenset({200, 202, 204})
_REFUSED: Final = frozenset({400, 413, 422})
# What the store says about an entry, and what we call it. The first that fits counts.
_REASONS: Final = (
    ("max entry size", "too-long"),
    ("line too long", "too-long"),
    ("too far behind", "too-late"),
    ("out of order", "too-late"),
    ("too old", "too-old"),
    ("too new", "too-new"),
    ("too far in future", "too-new"),
    ("label", "bad-label"),
    ("structured metadata", "bad-metadata"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back: an HTTP status, or 0 where nothing did."""

    status: int
    text: str = ""
    retry_after: float | None = None


@dataclass(slots=True)
class Connection:
    """One HTTP connection to the store, kept while it works. Not safe to share by threads."""

    url: str
    tls: TLSFiles | None = None
    max_age_seconds: float = 300.0
    clock: Callable[[], float] = time.monotonic
    _http: http.client.HTTPConnection | None = field(default=None, init=False)
    _since: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"logs cannot be pushed to {self.url!r}: it is no http(s) address",
                hint="--logs.push-url is written as https://operator.example:19105",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigError("--logs.push-url takes neither user, password, query nor fragment")
        if parts.scheme == "https" and (self.tls is None or self.tls.ca is None):
            raise ConfigError(
                "logs can be pushed by https only from a node that has a certificate",
                hint="enrol it with: narthex join",
            )

    def post(self, body: bytes) -> Answer:
        """Send one push. Never raises for what a network or a store does."""
        reused = self._http is not None
        answer = self._post(body)
        if not answer.status and reused:
            # The store had closed a connection that was idle: that is no failure.
            answer = self._post(body)
        return answer

    def _post(self, body: bytes) -> Answer:
        try:
            connection = self._connected()
            connection.request(
                "POST",
                urlsplit(self.url).path.rstrip("/") + _PATH,
                body,
                {"Content-Type": "application/json", "Content-Encoding": "gzip"},
            )
            reply = connection.getresponse()
            text = reply.read(_REPLY_BYTES)
            if reply.will_close or not reply.isclosed():
                self.close()
            return Answer(
                status=reply.status,
                text=text.decode("utf-8", "replace"),
                retry_after=_seconds(reply.getheader("Retry-After")),
            )
        except (OSError, http.client.HTTPException, NarthexError) as error:
            self.close()
            return Answer(status=0, text=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Close the connection; the next push opens another."""
        connection, self._http = self._http, None
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """End a push under way, from another thread."""
        connection = self._http
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connected(self) -> http.client.HTTPConnection:
        if self._http is not None and self.clock() - self._since > self.max_age_seconds:
            self.close()  # so that a renewed certificate comes into use
        if self._http is None:
            parts = urlsplit(self.url)
            context = self._context() if parts.scheme == "https" else None
            host = str(parts.hostname)
            self._http = (
                http.client.HTTPSConnection(
                    host, parts.port, timeout=_CONNECT_SECONDS, context=context
                )
                if context is not None
                else http.client.HTTPConnection(host, parts.port, timeout=_CONNECT_SECONDS)
            )
            self._since = self.clock()
            self._http.connect()
            self._http.sock.settimeout(_REPLY_SECONDS)
        return self._http

    def _context(self) -> ssl.SSLContext:
        assert self.tls is not None  # noqa: S101 - __post_init__ saw to it
        assert self.tls.ca is not None  # noqa: S101
        if self.tls.cert.exists():
            return client_context(self.tls)
        return verifying_context(self.tls.ca)


@dataclass(slots=True)
class Pusher:
    """Take from the queue, push, delete what the store has. One push is under way at a time."""

    spool: Spool
    connection: Connection
    counters: Counters
    stopping: threading.Event
    idle_seconds: float = 1.0
    jitter: Callable[[], float] = random.SystemRandom().random
    now_ns: Callable[[], int] = time.time_ns
    last_success_seconds: float = field(default=0.0, init=False)
    _after: int = field(default=0, init=False)
    _undeleted: tuple[int, int] | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _unexplained: int = field(default=0, init=False)

    def run_once(self) -> bool:
        """Push one batch; tell whether there was one. Raises SpoolError."""
        if self._undeleted is not None:
            self.spool.done(*self._undeleted)
            self._undeleted = None
        rows = self.spool.take(self._after, max_bytes=BATCH_BYTES)
        if not rows:
            return False
        self._push(rows)
        return True

    def _push(self, rows: Sequence[Row]) -> None:
        """Push rows until each is stored, repaired and stored, or buried."""
        body = encode(rows)
        while not self.stopping.is_set():
            answer = self.connection.post(body)
            if answer.status in _ACCEPTED:
                self._accepted(rows, len(body))
                return
            self.counters.add(self.counters.push_failures, str(answer.status or "none"))
            if answer.status in _REFUSED:
                if len(rows) > 1:
                    half = len(rows) // 2
                    self._push(rows[:half])
                    self._push(rows[half:])
                    return
                if self._refused(rows[0], answer):
                    return
            self._wait(answer)

    def _accepted(self, rows: Sequence[Row], size: int) -> None:
        self._failures = self._unexplained = 0
        self.last_success_seconds = self.now_ns() / 1e9
        self.counters.sent_entries += len(rows)
        self.counters.sent_bytes += size
        self._after = rows[-1].seq
        # Remembered first: where the disk refuses, they are not sent again for that.
        self._undeleted = (rows[0].seq, rows[-1].seq)
        self.spool.done(*self._undeleted)
        self._undeleted = None

    def _refused(self, row: Row, answer: Answer) -> bool:
        """Repair or bury a single entry; False asks to try once more."""
        reason = why(answer)
        if reason == "unexplained" and self._unexplained < _UNEXPLAINED_TRIES:
            self._unexplained += 1
            return False
        better = repaired(row, reason)
        if better is None:
            log.warning("entry.refused", extra={"reason": reason, "answer": answer.text[:300]})
            self.spool.bury(row, reason)
            self.counters.add(self.counters.dead_letters, reason)
            self._after = row.seq
            return True
        self.counters.add(self.counters.repaired, reason)
        self._push([self.spool.replace(better)])
        return True

    def _wait(self, answer: Answer) -> None:
        ceiling = min(_BACKOFF_SECONDS[1], _BACKOFF_SECONDS[0] * 2 ** min(self._failures, 10))
        self._failures += 1
        seconds = self.jitter() * ceiling
        if answer.retry_after is not None:
            seconds = max(seconds, min(answer.retry_after, _MAX_RETRY_AFTER))
        log.info(
            "push.failed",
            extra={
                "status": answer.status,
                "answer": answer.text[:200],
                "retry_in_seconds": round(seconds, 1),
            },
        )
        self.stopping.wait(seconds)


def encode(rows: Sequence[Row]) -> bytes:
    """Write rows as Loki's JSON, gzipped; the same rows give the same bytes."""
    streams: dict[Labels, list[list[object]]] = {}
    for row in rows:
        value: list[object] = [str(row.ts_ns), row.line]
        if row.meta:
            value.append(dict(row.meta))
        streams.setdefault(row.labels, []).append(value)
    data = {"streams": [{"stream": dict(k), "values": v} for k, v in streams.items()]}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return packer.compress(text) + packer.flush()


def why(answer: Answer) -> str:
    """Name the reason of a refusal."""
    if answer.status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return "too-long"
    text = answer.text.lower()
    return next((name for words, name in _REASONS if words in text), "unexplained")


def repaired(row: Row, reason: str) -> Row | None:
    """Give an entry that the store will take, or None where it was repaired before."""
    meta = dict(row.meta)
    if reason == "too-long" and "truncated" not in meta:
        line = row.line.encode("utf-8", "replace")[: MAX_LINE_BYTES // 2].decode("utf-8", "ignore")
        return row._replace(line=line, meta=_with(row.meta, truncated="1"))
    if reason == "too-late" and ("late", "1") not in row.labels:
        return row._replace(labels=_with(row.labels, late="1"))
    if reason in ("too-old", "too-new") and "orig_ts" not in meta:
        return row._replace(ts_ns=0, meta=_with(row.meta, orig_ts=str(row.ts_ns)))
    return None


def _with(pairs: Labels, **more: str) -> Labels:
    return tuple(sorted({**dict(pairs), **more}.items()))


def _seconds(text: str | None) -> float | None:
    if text is None or not text.isascii() or not text.strip().isdigit() or len(text) > 6:  # noqa: PLR2004
        return None
    return float(text)
