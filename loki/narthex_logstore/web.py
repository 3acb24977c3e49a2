"""Answer Loki's HTTP API as a WSGI application; errors are texts, as Loki's are."""

import ipaddress
import json
import logging
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from narthex_exporter.errors import UnavailableError
from narthex_logstore import params
from narthex_logstore.arithmetic import Series
from narthex_logstore.block import Header
from narthex_logstore.engine import Engine, Found, Stats, matching
from narthex_logstore.logql.parser import parse, parse_selector
from narthex_logstore.logql.tree import LogQuery
from narthex_logstore.model import SECOND, Limits, PushError, QueryError
from narthex_logstore.push import read_push, too_late, validate
from narthex_logstore.storage import Store, Stream
from narthex_logstore.telemetry import Telemetry
from narthex_logstore.windows import Window

log = logging.getLogger(__name__)

_API: Final = "/loki/api/v1"
_METHODS: Final = frozenset({"GET", "POST"})
# The release whose answers these are modelled on, for clients that ask before they use a feature.
_LOKI: Final = "3.0.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request's parameters, from its address or its form."""

    method: str
    path: str
    params: Mapping[str, str]
    all_params: Mapping[str, list[str]]
    body: bytes
    content_type: str
    encoding: str


@dataclass(slots=True, kw_only=True)
class Web:
    """The application. ``any_host`` takes requests for whatever host name."""

    store: Store
    engine: Engine
    limits: Limits
    telemetry: Telemetry
    any_host: bool = False
    now_ns: Callable[[], int] = time.time_ns
    _routes: dict[str, Callable[[Request], Reply]] = field(init=False)

    def __post_init__(self) -> None:
        self._routes = {
            "/ready": lambda _request: _text(200, "ready"),
            "/metrics": self._metrics,
            f"{_API}/push": self._push,
            f"{_API}/query": self._query,
            f"{_API}/query_range": self._query_range,
            f"{_API}/labels": self._labels,
            f"{_API}/label": self._labels,
            f"{_API}/series": self._series,
            f"{_API}/index/stats": self._index_stats,
            f"{_API}/status/buildinfo": _buildinfo,
        }

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer one request."""
        route, reply = self._answer(environ)
        self.telemetry.requests.labels(route=route, code=str(reply.status)).inc()
        headers = [("Content-Length", str(len(reply.body)))]
        if reply.body:
            headers += [
                ("Content-Type", reply.content_type),
                ("X-Content-Type-Options", "nosniff"),
            ]
        start_response(f"{reply.status} ", headers)
        return [reply.body]

    def _answer(self, environ: dict[str, Any]) -> tuple[str, Reply]:
        if not self.any_host and not _is_local(environ.get("HTTP_HOST", "")):
            # A web page whose name was made to point here must not read logs.
            return "other", _text(421, "this log store answers to its address only")
        route, handler = self._find(environ["PATH_INFO"])
        if handler is None:
            return route, _text(404, "404 page not found")
        allowed = {"POST"} if route.endswith("/push") else _METHODS
        if environ["REQUEST_METHOD"] not in allowed:
            return route, _text(405, "method not allowed")
        try:
            reply = handler(_request(environ))
        except (QueryError, PushError) as error:
            reply = _text(error.status, str(error))
        except UnavailableError as error:
            log.error("store.failed", extra={"error": str(error)})  # noqa: TRY400 - in words
            reply = _text(503, str(error))
        return route, reply

    def _find(self, path: str) -> tuple[str, Callable[[Request], Reply] | None]:
        """Find who answers, and the path's name in metrics."""
        prefix, suffix = f"{_API}/label/", "/values"
        if path.startswith(prefix) and path.endswith(suffix):
            return f"{prefix}<name>{suffix}", self._label_values
        handler = self._routes.get(path)
        return (path if handler is not None else "other"), handler

    def _push(self, request: Request) -> Reply:
        raw = read_push(
            request.body,
            content_type=request.content_type,
            encoding=request.encoding,
            limits=self.limits,
        )
        batch = validate(raw, limits=self.limits, now_ns=self.now_ns())
        done = self.store.append(batch.entries)
        too_late(batch, done.late)
        count = self.telemetry.entries
        count.labels(outcome="stored").inc(done.stored)
        count.labels(outcome="repeated").inc(done.repeated)
        count.labels(outcome="refused").inc(batch.refused_entries)
        self.telemetry.received_bytes.inc(len(request.body))
        if batch.refused_entries:
            return _text(400, "\n".join(batch.refused))
        return Reply(status=204)

    def _query_range(self, request: Request) -> Reply:
        asked = request.params
        query = parse(asked.get("query", ""), max_chars=self.limits.query_chars)
        start_ns, end_ns = params.time_range(asked, now_ns=self.now_ns())
        if isinstance(query, LogQuery):
            found, stats = self.engine.select(
                query,
                start_ns=start_ns,
                end_ns=end_ns,
                limit=params.limit(asked),
                direction=params.direction(asked),
            )
            return self._success("streams", _streams(found), stats)
        step_ns = params.step(asked, start_ns, end_ns)
        window = Window(start_ns=start_ns, end_ns=end_ns, step_ns=step_ns)
        result, stats = self.engine.measure(query, window)
        return self._success("matrix", _matrix(result, window), stats)

    def _query(self, request: Request) -> Reply:
        asked = request.params
        query = parse(asked.get("query", ""), max_chars=self.limits.query_chars)
        if isinstance(query, LogQuery):
            raise QueryError(
                "log queries are not supported as an instant query type, "
                "please change your query to a range query type"
            )
        now = params.instant(asked.get("time", ""), default=self.now_ns())
        window = Window(start_ns=now, end_ns=now, step_ns=SECOND)
        result, stats = self.engine.measure(query, window)
        if isinstance(result, float):
            return self._success("scalar", [now / SECOND, number(result)], stats)
        vector = [
            {"metric": dict(labels), "value": [now / SECOND, number(values[0])]}
            for labels, values in sorted(result.items())
            if values[0] is not None
        ]
        return self._success("vector", vector, stats)

    def _labels(self, request: Request) -> Reply:
        names = {name for stream in self._active(request) for name, _ in stream.labels}
        return _json({"status": "success", "data": sorted(names)})

    def _label_values(self, request: Request) -> Reply:
        name = request.path.removeprefix(f"{_API}/label/").removesuffix("/values")
        values = {
            value
            for stream in self._active(request)
            for label, value in stream.labels
            if label == name
        }
        return _json({"status": "success", "data": sorted(values)})

    def _series(self, request: Request) -> Reply:
        selectors = request.all_params.get("match[]", []) + request.all_params.get("match", [])
        if not selectors:
            raise QueryError("0 matcher groups supplied")
        streams = self._streams_with_headers(request)
        found = {
            stream.labels
            for selector in selectors
            for stream in matching([s for s, _ in streams], self._selector(selector))
        }
        return _json({"status": "success", "data": [dict(labels) for labels in sorted(found)]})

    def _index_stats(self, request: Request) -> Reply:
        streams = self._streams_with_headers(request, default_query=None)
        headers = [header for _, held in streams for header in held]
        return _json(
            {
                "streams": len(streams),
                "chunks": len(headers),
                "entries": sum(header.entries for header in headers),
                "bytes": sum(header.raw_bytes for header in headers),
            }
        )

    def _metrics(self, _request: Request) -> Reply:
        self.telemetry.measure(self.store)
        return Reply(
            body=generate_latest(self.telemetry.registry), content_type=CONTENT_TYPE_LATEST
        )

    def _active(self, request: Request) -> list[Stream]:
        return [stream for stream, _ in self._streams_with_headers(request)]

    def _streams_with_headers(
        self, request: Request, default_query: str | None = ""
    ) -> list[tuple[Stream, list[Header]]]:
        text = request.params.get("query", default_query)
        if text is None:
            raise QueryError("parse error : syntax error: unexpected $end")
        streams = self.store.streams()
        if text:
            streams = matching(streams, self._selector(text))
        start_ns, end_ns = params.time_range(
            request.params, now_ns=self.now_ns(), default_ns=6 * 3600 * SECOND
        )
        with self.store.snapshot() as view:
            held = ((each, view.headers(each.id, start_ns, end_ns)) for each in streams)
            return [(stream, headers) for stream, headers in held if headers]

    def _selector(self, text: str) -> Any:
        return parse_selector(text, max_chars=self.limits.query_chars)

    def _success(self, kind: str, result: object, stats: Stats) -> Reply:
        self.telemetry.query_seconds.observe(stats.seconds)
        summary = {
            "totalLinesProcessed": stats.lines,
            "totalBytesProcessed": stats.bytes,
            "execTime": stats.seconds,
        }
        data = {"resultType": kind, "result": result, "stats": {"summary": summary}}
        return _json({"status": "success", "data": data})


def number(value: float | None) -> str:
    """Write a sample as Go does: no exponent, no needless point."""
    if value is None or math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{Decimal(repr(float(value))).normalize():f}"


def _streams(found: Sequence[Found]) -> list[dict[str, object]]:
    streams: dict[Any, list[list[str]]] = {}
    for each in found:
        value = [str(each.ts), each.line.decode("utf-8", "replace")]
        streams.setdefault(each.labels, []).append(value)
    return [{"stream": dict(labels), "values": values} for labels, values in streams.items()]


def _matrix(result: float | Series, window: Window) -> list[dict[str, object]]:
    series: Series = {(): [result] * window.steps} if isinstance(result, float) else result
    times = [(window.start_ns + at * window.step_ns) / SECOND for at in range(window.steps)]
    matrix: list[dict[str, object]] = []
    for labels, values in sorted(series.items()):
        points = [
            [int(t) if t.is_integer() else t, number(v)]
            for t, v in zip(times, values, strict=True)
            if v is not None
        ]
        if points:
            matrix.append({"metric": dict(labels), "values": points})
    return matrix


def _buildinfo(_request: Request) -> Reply:
    return _json(
        {
            "version": _LOKI,
            "revision": f"narthex-{version('narthex')}",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": f"python{platform.python_version()}",
        }
    )


def _request(environ: Mapping[str, Any]) -> Request:
    body = environ["wsgi.input"].read()
    content_type = environ.get("CONTENT_TYPE", "")
    given = environ.get("QUERY_STRING", "")
    try:
        found = parse_qs(given, keep_blank_values=True, max_num_fields=100)
        if content_type.startswith("application/x-www-form-urlencoded"):
            form = body.decode("utf-8", "replace")
            found |= parse_qs(form, keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise QueryError(f"cannot read the parameters: {error}") from error
    return Request(
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"],
        params={name: values[-1] for name, values in found.items()},
        all_params=found,
        body=body,
        content_type=content_type,
        encoding=environ.get("HTTP_CONTENT_ENCODING", "").strip().lower(),
    )


def _is_local(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name in ("", "localhost")
    return True


def _json(value: object) -> Reply:
    return Reply(body=json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _text(status: int, text: str) -> Reply:
    return Reply(
        status=status,
        body=f"{text}\n".encode("utf-8", "replace"),
        content_type="text/plain; charset=utf-8",
    )
