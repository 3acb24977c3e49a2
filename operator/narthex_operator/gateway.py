"""Take log pushes from nodes and give them the ticket keys, over mutual TLS.

Loki has no authentication of its own, and no node may write as another. Here the node's
certificate says who pushes, and its name replaces whatever the lines claim; then the push goes
on to the log store.
"""

import json
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from prometheus_client import Counter
from prometheus_client.registry import CollectorRegistry
from requests.adapters import HTTPAdapter

from narthex_exporter.contract.ticketkeys import KEYS_PATH
from narthex_exporter.transport.identity import Identity, Role
from narthex_exporter.transport.server import PEER, WSGIApp
from narthex_operator.errors import OperatorError

log = logging.getLogger(__name__)

PUSH_PATH: Final = "/loki/api/v1/push"
MAX_BYTES: Final = 4 << 20
CONNECTIONS: Final = 64
TIMEOUT_SECONDS: Final = (3.05, 15.0)
LABEL: Final = "node"
_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Gateway:
    """A WSGI application. ``name_of`` gives a node's name while its certificate is accepted."""

    name_of: Callable[[Identity], str | None]
    logs_url: str
    ticket_keys: Callable[[], Mapping[str, Any]]
    registry: CollectorRegistry | None = None
    _session: requests.Session = field(init=False)
    _renamed: Counter = field(init=False)
    _refused: Counter = field(init=False)

    def __post_init__(self) -> None:
        self._session = requests.Session()
        # Neither a proxy nor a .netrc of the environment has a say in where logs go.
        self._session.trust_env = False
        self._session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        self._session.mount("https://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        self._renamed = Counter(
            "narthex_gateway_renamed_streams",
            "Streams that claimed another node's name.",
            ["node"],
            registry=self.registry,
        )
        self._refused = Counter(
            "narthex_gateway_refused_requests",
            "Requests that the gateway refused, by status.",
            ["status"],
            registry=self.registry,
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            status, headers, body = self._answer(environ)
        except _RefusedError as error:
            self._refused.labels(str(error.status.value)).inc()
            status, headers, body = error.status, [], f"{error}\n".encode()
        named = {name for name, _ in headers}
        kind = [] if "Content-Type" in named else [_TEXT]
        start_response(
            f"{status.value} {status.phrase}",
            [*kind, ("Content-Length", str(len(body))), *headers],
        )
        return [body]

    def _answer(self, environ: Environ) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
        peer: Identity | None = environ.get(PEER)
        # Asked at each request, not at each connection: a removed node is cut off at once.
        name = self.name_of(peer) if peer is not None and peer.role is Role.NODE else None
        if name is None:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "this certificate is no present node's")
        if environ["PATH_INFO"] == KEYS_PATH:
            return self._keys(environ["REQUEST_METHOD"])
        if environ["PATH_INFO"] != PUSH_PATH:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "here are log pushes and ticket keys only")
        if environ["REQUEST_METHOD"] != "POST":
            raise _RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "push with POST")
        return self._forward(self._own(_parse(environ), name))

    def _keys(self, method: str) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
        if method != "GET":
            raise _RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "ask with GET")
        try:
            document = self.ticket_keys()
        except OperatorError as error:
            log.warning("keys.not-given", extra={"error": str(error)})
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "the signer does not answer"
            ) from error
        body = json.dumps(document).encode()
        return HTTPStatus.OK, [("Content-Type", "application/json")], body

    def _own(self, push: dict[str, Any], name: str) -> bytes:
        """Put the node's name on every stream, and count those that claimed another."""
        for stream in push["streams"]:
            labels = stream["stream"]
            if labels.get(LABEL, name) != name:
                self._renamed.labels(name).inc()
            labels[LABEL] = name
        # Escaped: half of a surrogate pair, which JSON can name, is no UTF-8.
        return json.dumps(push, separators=(",", ":")).encode()

    def _forward(self, body: bytes) -> tuple[HTTPStatus, list[tuple[str, str]], bytes]:
        packer = zlib.compressobj(level=1, wbits=31)
        data = packer.compress(body) + packer.flush()
        try:
            with self._session.post(
                f"{self.logs_url}{PUSH_PATH}",
                data=data,
                headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,
            ) as reply:
                text = reply.raw.read(65536, decode_content=True) or b""
                again = reply.headers.get("Retry-After")
                status = HTTPStatus(reply.status_code)
        except (requests.RequestException, ValueError, OSError) as error:
            log.warning("push.not-forwarded", extra={"error": str(error)})
            host = urlsplit(self.logs_url).netloc
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the log store at {host} does not answer"
            ) from error
        return status, [("Retry-After", again)] if again else [], text


def build_gateway(
    *,
    name_of: Callable[[Identity], str | None],
    logs_url: str,
    ticket_keys: Callable[[], Mapping[str, Any]],
    registry: CollectorRegistry | None = None,
) -> WSGIApp:
    """Build the application that the operator serves on its gateway port."""
    return Gateway(name_of=name_of, logs_url=logs_url, ticket_keys=ticket_keys, registry=registry)


def _parse(environ: Environ) -> dict[str, Any]:
    if environ.get("CONTENT_TYPE", "").split(";")[0].strip() != "application/json":
        raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "push JSON, plain or gzip")
    body: bytes = environ["wsgi.input"].read()
    encoding = environ.get("HTTP_CONTENT_ENCODING", "")
    if encoding == "gzip":
        body = _unpack(body)
    elif encoding:
        raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "push JSON, plain or gzip")
    try:
        push = json.loads(body)
        well_formed = isinstance(push["streams"], list) and all(
            isinstance(stream["stream"], dict) for stream in push["streams"]
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "the push is not JSON of Loki's") from error
    if not well_formed:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "the push is not JSON of Loki's")
    return dict(push)


def _unpack(body: bytes) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        found = reader.decompress(body, MAX_BYTES)
    except zlib.error as error:
        raise _RefusedError(HTTPStatus.BAD_REQUEST, "the body is not gzip") from error
    if reader.unconsumed_tail or not reader.eof:
        raise _RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BYTES} bytes when unpacked"
        )
    return found
