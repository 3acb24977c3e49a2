"""Answer HTTP: metrics for scrapers, health, and ``/api`` handed on to the actor, byte by byte."""

import gzip
import html
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

from narthex_exporter.actorlink import ActorLink
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import Scraper
from narthex_exporter.collectors.spec import Sample
from narthex_exporter.contract.headers import PROBLEM_TYPE
from narthex_exporter.selfmetrics import Requests
from narthex_exporter.transport.identity import Identity, Role
from narthex_exporter.transport.server import PEER

log = logging.getLogger(__name__)

StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Environ = dict[str, Any]
Samples = Callable[[], Iterable[Sample]]

_SCRAPERS: Final = frozenset({Role.SCRAPE, Role.OPERATOR})
_ACTORS: Final = frozenset({Role.OPERATOR})
# How names might be escaped that Prometheus 2 could not have.
_ESCAPINGS: Final = frozenset({"allow-utf-8", "underscores", "dots", "values"})
_TEXT: Final = "text/plain; charset=utf-8"
# Measured on a scrape: level 5 costs twice as much for an eighth less; 9 is gzip's default.
_GZIP_LEVEL: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = (("Content-Type", _TEXT),)


def text(status: int, message: str) -> Reply:
    """Answer with one line."""
    return Reply(status=status, body=f"{message}\n".encode())


def problem(status: int, kind: str, title: str, hint: str) -> Reply:
    """Answer with RFC 9457's JSON."""
    body = {"type": kind, "title": title, "status": status, "hint": hint}
    return Reply(
        status=status,
        body=json.dumps(body).encode(),
        headers=(("Content-Type", PROBLEM_TYPE),),
    )


class Gate(Protocol):
    """Who comes in to read, where a file says it: see webgate."""

    def headers(self) -> Iterable[tuple[str, str]]:
        """Give what each reply carries."""
        ...

    def refusal(self, environ: Environ) -> Reply | None:
        """Refuse a request, or let it in."""
        ...


@dataclass(slots=True, kw_only=True)
class Web:
    """The WSGI application.

    Without a ``gate`` a request's peer must hold one of our roles. With it, that says who comes
    in to read; ``/api`` wants the role ``operator`` always.
    """

    scraper: Scraper
    extra: Sequence[Samples]
    requests: Requests
    actor: ActorLink
    ready: Callable[[], bool]
    gate: Gate | None = None
    telemetry_path: str = "/metrics"
    max_requests: int = 40
    _encoder: Encoder = field(default_factory=Encoder, init=False)
    _slots: threading.BoundedSemaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = threading.BoundedSemaphore(self.max_requests or 1 << 30)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        headers = list(self.gate.headers()) if self.gate is not None else []
        handler, reply = self._reply(environ)
        if isinstance(reply, Reply):
            status, body = reply.status, [reply.body]
            headers += [*reply.headers, ("Content-Length", str(len(reply.body)))]
        else:
            status, body = reply.status, reply
            headers += reply.headers
        self.requests.count(code=str(status), handler=handler)
        start_response(f"{status} {_phrase(status)}", headers)
        return body

    def _reply(self, environ: Environ) -> tuple[str, Any]:
        path = environ["PATH_INFO"]
        # The raw target decides, as the actor will read it: not its decoded form.
        api = environ["RAW_URI"].startswith("/api/")
        handler = "/api" if api else self._handler(path)
        refusal = self._refusal(environ, api=api)
        if refusal is not None:
            return handler, refusal
        if api:
            return handler, self.actor.hand_on(environ)
        if handler == "other":
            return handler, text(404, f"there is nothing at this path; see {self.telemetry_path}")
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return handler, Reply(status=405, headers=(("Allow", "GET, HEAD"),))
        return handler, self._routes()[handler](environ)

    def _routes(self) -> dict[str, Callable[[Environ], Reply]]:
        return {
            self.telemetry_path: self._metrics,
            "/": self._landing,
            "/-/healthy": lambda _: text(200, "healthy"),
            "/-/ready": lambda _: text(200, "ready") if self.ready() else text(503, "not ready"),
        }

    def _handler(self, path: str) -> str:
        return path if path in self._routes() else "other"

    def _refusal(self, environ: Environ, *, api: bool) -> Reply | None:
        """Decide who comes in: nobody without a right that is told here."""
        peer: Identity | None = environ[PEER]
        role = peer.role if peer is not None else None
        if self.gate is not None:
            refusal = self.gate.refusal(environ)
            if refusal is not None:
                return refusal
        if api and role not in _ACTORS:
            return problem(
                403,
                "role-refused",
                "only the operator may use /api",
                "use a certificate with the role operator",
            )
        if self.gate is None and role not in _SCRAPERS:
            return text(403, "this certificate's role may not read here")
        return None

    def _metrics(self, environ: Environ) -> Reply:
        query = parse_qs(environ["QUERY_STRING"], max_num_fields=200)
        collect, exclude = query.get("collect[]", []), query.get("exclude[]", [])
        if collect and exclude:
            return text(400, "collect[] and exclude[] exclude each other")
        known = self.scraper.names()
        if missing := sorted(set(collect + exclude) - set(known)):
            return text(400, f"there is no collector {missing[0][:60]!r}, or it is off")
        wanted = frozenset(collect) if collect else frozenset(known) - frozenset(exclude)
        if not self._slots.acquire(blocking=False):
            return text(503, f"{self.max_requests} scrapes are under way, which is the limit")
        try:
            openmetrics, content_type = negotiate(environ.get("HTTP_ACCEPT", ""))
            samples = self.scraper.samples(wanted)
            for more in self.extra:
                samples += more()
            body = self._encoder.encode(
                samples,
                openmetrics=openmetrics,
                names=frozenset(query.get("name[]", [])),
            )
        finally:
            self._slots.release()
        headers = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")]
        if _accepts_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
            headers.append(("Content-Encoding", "gzip"))
        return Reply(status=200, body=body, headers=tuple(headers))

    def _landing(self, _environ: Environ) -> Reply:
        link = html.escape(self.telemetry_path, quote=True)
        page = (
            "<!doctype html><html lang=en><meta charset=utf-8><title>Narthex exporter</title>"
            "<h1>Narthex exporter</h1>"
            f"<ul><li><a href='{link}'>Metrics</a><li><a href='/-/healthy'>Healthy</a>"
            "<li><a href='/-/ready'>Ready</a></ul></html>"
        )
        return Reply(
            status=200,
            body=page.encode(),
            headers=(
                ("Content-Type", "text/html; charset=utf-8"),
                ("Content-Security-Policy", "default-src 'none'"),
                ("X-Content-Type-Options", "nosniff"),
            ),
        )


@lru_cache(maxsize=64)
def negotiate(accept: str) -> tuple[bool, str]:
    """Choose the format from an Accept header: whether it is OpenMetrics, and the content type.

    The first that we speak counts, whatever its weight, as in prometheus_client; a test holds us
    to it. All our names are such that no escaping changes them.
    """
    for part in accept.split(","):
        kind, *rest = part.split(";")
        given = dict(word.strip().split("=", 1) for word in reversed(rest) if "=" in word)
        version = given.get("version")
        escaping = given.get("escaping", "")
        suffix = f"charset=utf-8; escaping={escaping if escaping in _ESCAPINGS else 'underscores'}"
        match kind.strip(), version:
            case "application/openmetrics-text", None:
                return True, "application/openmetrics-text; version=1.0.0; charset=utf-8"
            case "application/openmetrics-text", "1.0.0":
                return True, f"application/openmetrics-text; version=1.0.0; {suffix}"
            case "text/plain", "1.0.0":
                return False, f"text/plain; version=1.0.0; {suffix}"
    return False, "text/plain; version=0.0.4; charset=utf-8"


def _accepts_gzip(header: str) -> bool:
    for part in header.split(","):
        name, _, weight = part.replace(" ", "").partition(";")
        if name in {"gzip", "*"}:
            return weight not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
