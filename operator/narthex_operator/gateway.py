"""Take log lines from nodes and pass them on, each under its own node's name only."""

import json
import logging
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import requests

from narthex_exporter.contract.wire import PROBLEM_TYPE, Problem, strict_json
from narthex_exporter.transport.identity import Identity, Role
from narthex_exporter.transport.server import PEER
from narthex_operator.errors import OperatorError
from narthex_operator.services.views import NodeView

log = logging.getLogger(__name__)

PUSH_PATH: Final = "/loki/api/v1/push"
MAX_BYTES: Final = 4 << 20
_MAX_STREAMS: Final = 1000
_TIMEOUT_SECONDS: Final = (3.05, 15.0)
_REPLY_BYTES: Final = 64 * 1024
_PASSED_BACK: Final = ("Content-Type", "Retry-After")


class Nodes(Protocol):
    """Tell whose a certificate is."""

    def admit(self, identity: Identity) -> NodeView:
        """Find the node. Raises DeniedError."""
        ...


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True, kw_only=True)
class Gateway:
    """The gateway as a WSGI application, to be served with client certificates required.

    ``mismatches`` counts, by node, the streams that claimed another node's name.
    """

    nodes: Nodes
    logs_url: str
    session: requests.Session
    mismatches: Counter[str] = field(default_factory=Counter, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        try:
            status, headers, body = self._push(environ)
        except _RefusedError as error:
            status, headers, body = _problem(error.status, str(error))
        except OperatorError as error:
            status, headers, body = _problem(error.status, str(error), error.hint)
        headers.append(("Content-Length", str(len(body))))
        start_response(f"{status} {_REASONS.get(status, 'Answer')}", headers)
        return [body] if status != 204 else []  # noqa: PLR2004 - No Content

    def _push(self, environ: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        identity: Identity | None = environ.get(PEER)
        if identity is None or identity.role is not Role.NODE:
            raise _RefusedError(403, "only nodes may push logs")
        node = self.nodes.admit(identity)
        if environ["PATH_INFO"] != PUSH_PATH:
            raise _RefusedError(404, "there is only POST /loki/api/v1/push")
        if environ["REQUEST_METHOD"] != "POST":
            raise _RefusedError(405, "there is only POST /loki/api/v1/push")
        if environ.get("CONTENT_TYPE", "").partition(";")[0].strip() != "application/json":
            raise _RefusedError(415, "send application/json")
        document, foreign = _relabel(_body(environ), node.name)
        if foreign:
            with self._lock:
                self.mismatches[node.name] += foreign
            log.warning("gateway.foreign-label", extra={"node": node.name, "streams": foreign})
        return self._forward(document)

    def _forward(self, document: Any) -> tuple[int, list[tuple[str, str]], bytes]:
        try:
            with self.session.post(
                self.logs_url + PUSH_PATH,
                data=json.dumps(document, separators=(",", ":")).encode(),
                headers={"Content-Type": "application/json"},
                timeout=_TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,
            ) as reply:
                body = reply.raw.read(_REPLY_BYTES, decode_content=True) or b""
                headers = [(n, reply.headers[n]) for n in _PASSED_BACK if n in reply.headers]
                return reply.status_code, headers, body
        except (requests.RequestException, OSError) as error:
            log.warning("gateway.log-store-unreachable", extra={"error": str(error)})
            # 503 is what shippers retry; nothing was dropped.
            raise _RefusedError(503, "the log store does not answer") from error


def build_gateway(*, nodes: Nodes, logs_url: str) -> Gateway:
    """Build the gateway; serve it with a body limit of ``MAX_BYTES``."""
    session = requests.Session()
    session.trust_env = False
    adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=16)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return Gateway(nodes=nodes, logs_url=logs_url, session=session)


_REASONS: Final = {
    200: "OK", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 413: "Content Too Large", 415: "Unsupported Media Type",
    429: "Too Many Requests", 500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


def _body(environ: dict[str, Any]) -> bytes:
    raw: bytes = environ["wsgi.input"].read(MAX_BYTES + 1)
    encoding = environ.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if encoding == "gzip":
        inflate = zlib.decompressobj(wbits=31)
        try:
            data = inflate.decompress(raw, MAX_BYTES + 1)
        except zlib.error as error:
            raise _RefusedError(400, "the body is not gzip") from error
        if len(data) <= MAX_BYTES and (not inflate.eof or inflate.unused_data):
            raise _RefusedError(400, "the body is not one whole gzip member")
    elif encoding == "identity":
        data = raw
    else:
        raise _RefusedError(415, "send gzip, or no encoding")
    if len(data) > MAX_BYTES:
        raise _RefusedError(413, f"at most {MAX_BYTES} bytes, decompressed")
    return data


def _relabel(data: bytes, node: str) -> tuple[dict[str, Any], int]:
    """Force the label ``node`` on every stream; count those that claimed another."""
    wrong = _RefusedError(400, 'the body is not {"streams": [{"stream": {}, "values": []}]}')
    try:
        document = strict_json(data)
    except ValueError as error:
        raise wrong from error
    streams = document.get("streams") if isinstance(document, dict) else None
    if not isinstance(streams, list) or len(streams) > _MAX_STREAMS:
        raise wrong
    kept, foreign = [], 0
    for stream in streams:
        labels = stream.get("stream") if isinstance(stream, dict) else None
        values = stream.get("values") if isinstance(stream, dict) else None
        if not isinstance(labels, dict) or not isinstance(values, list):
            raise wrong
        foreign += labels.get("node", node) != node
        kept.append({"stream": {**labels, "node": node}, "values": values})
    return {"streams": kept}, foreign


def _problem(status: int, why: str, hint: str = "") -> tuple[int, list[tuple[str, str]], bytes]:
    problem = Problem(
        type="push-refused", title="The push was refused", status=status, detail=why, hint=hint
    )
    body = problem.model_dump_json(exclude_none=True).encode()
    return status, [("Content-Type", PROBLEM_TYPE)], body
