"""Search logs by Loki's HTTP API: Loki itself and the embedded store alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from narthex_operator.clients.exchange import Bounds, Endpoint
from narthex_operator.clients.services import Message, Service

_PATH: Final = "/loki/api/v1"
_SECONDS: Final = 20.0
Direction = Literal["forward", "backward"]


class _Stream(Message):
    stream: dict[str, str]
    # A third item, structured metadata, may follow; we do not read it.
    values: tuple[tuple[str, str] | tuple[str, str, dict[str, object]], ...]


class _StreamsData(Message):
    resultType: Literal["streams"]  # noqa: N815 - Loki's own name
    result: tuple[_Stream, ...]


class _StreamsReply(Message):
    data: _StreamsData


class _ValuesReply(Message):
    data: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line with its stream's labels; ``ns`` is Unix nanoseconds."""

    ns: int
    line: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loki:
    """A client. Every method raises UnreachableError."""

    service: Service

    def query_range(
        self, query: str, *, start_ns: int, end_ns: int, limit: int, direction: Direction
    ) -> list[Entry]:
        """Search lines from ``start_ns`` to before ``end_ns``; sorted as ``direction`` says."""
        reply = self.service.get(
            f"{_PATH}/query_range",
            {
                "query": query,
                "start": str(start_ns),
                "end": str(end_ns),
                "limit": str(limit),
                "direction": direction,
            },
            kind=_StreamsReply,
            seconds=_SECONDS,
        )
        found = [
            Entry(ns=int(value[0]), line=value[1], labels=stream.stream)
            for stream in reply.data.result
            for value in stream.values
            if value[0].isascii() and value[0].isdigit()
        ]
        return sorted(found, key=lambda entry: entry.ns, reverse=direction == "backward")

    def label_values(
        self, label: str, *, start_ns: int, end_ns: int, query: str = ""
    ) -> tuple[str, ...]:
        """List the values of a label within a time."""
        asked = {"start": str(start_ns), "end": str(end_ns)} | ({"query": query} if query else {})
        path = f"{_PATH}/label/{quote(label, safe='')}/values"
        return self.service.get(path, asked, kind=_ValuesReply, seconds=5.0).data or ()

    def check(self) -> None:
        """Raise UnreachableError unless it is ready."""
        self.service.call("GET", "/ready", seconds=2.0)


def loki_client(url: str) -> Loki:
    """Make a client for the Loki, or what speaks like it, at a base URL."""
    return Loki(
        service=Service(name="the log store", url=url, endpoint=Endpoint.of(url), bounds=Bounds())
    )
