"""Ask a JSON service that we depend on, and tell its failures in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, ValidationError

from narthex_operator.clients.exchange import Bounds, Endpoint, ExchangeError, Reply, exchange
from narthex_operator.errors import UnreachableError

_OK: Final = range(200, 300)
_SHOWN: Final = 300

M = TypeVar("M", bound=BaseModel)


class Message(BaseModel):
    """Base of what services answer: fields that we do not read are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service, by the name that people know it by."""

    name: str
    url: str
    endpoint: Endpoint
    bounds: Bounds

    def get(
        self, path: str, query: Mapping[str, str] | None = None, *, kind: type[M], **bounds: Any
    ) -> M:
        """GET a document and validate it. Raises UnreachableError."""
        target = f"{path}?{urlencode(query)}" if query else path
        return self.validated(self.call("GET", target, **bounds), kind)

    def call(
        self, method: str, target: str, *, body: bytes | None = None, seconds: float | None = None
    ) -> Reply:
        """Make one exchange that must succeed. Raises UnreachableError."""
        limits = self.bounds
        if seconds is not None:
            limits = Bounds(
                connect_seconds=min(seconds, limits.connect_seconds),
                total_seconds=seconds,
                reply_bytes=limits.reply_bytes,
            )
        headers = {"Accept": "application/json", "User-Agent": "narthex-operator"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            reply = exchange(
                self.endpoint, method, target, headers=headers, body=body, bounds=limits
            )
        except ExchangeError as error:
            raise UnreachableError(
                f"{self.name} at {self.url} does not answer: {error}",
                hint="is it running? `narthex status` tells",
            ) from error
        if reply.status not in _OK:
            raise RefusedRequestError(self.name, reply)
        return reply

    def validated(self, reply: Reply, kind: type[M]) -> M:
        """Read a reply's document. Raises UnreachableError."""
        try:
            return kind.model_validate_json(reply.body)
        except ValidationError as error:
            raise UnreachableError(
                f"{self.name} at {self.url} answers something else than is expected of it",
                hint="does the configured URL lead to it?",
            ) from error


class RefusedRequestError(UnreachableError):
    """A service answered with an error status. ``said`` is its own text, cut to some words."""

    def __init__(self, name: str, reply: Reply) -> None:
        self.said = reply.body[:_SHOWN].decode("utf-8", "replace").strip()
        self.answered = reply.status
        super().__init__(
            f"{name} refuses the request ({reply.status}): {self.said}",
            hint=f"look at the log of {name}",
        )
