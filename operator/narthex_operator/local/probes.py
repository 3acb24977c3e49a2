"""Ask a part over HTTP whether it is ready."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.tls import TLSFiles, client_context, verifying_context


class ProbeError(NarthexError):
    """A part does not answer as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One loopback service. With ``ca`` it is asked over TLS, with ``client`` over mutual TLS."""

    port: int
    host: str = "127.0.0.1"
    ca: Path | None = None
    client: TLSFiles | None = None
    timeout_seconds: float = 3.0

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> bytes:
        """Fetch a path. Raises ProbeError unless the answer is 200."""
        connection = self._connection()
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            reply = connection.getresponse()
            body = reply.read(1 << 22)
        except (OSError, http.client.HTTPException) as error:
            raise ProbeError(f"no answer from {self.host}:{self.port}: {error}") from error
        finally:
            connection.close()
        if reply.status != http.HTTPStatus.OK:
            raise ProbeError(f"{self.host}:{self.port}{path} answers {reply.status}")
        return body

    def json(self, path: str, *, headers: Mapping[str, str] | None = None) -> Any:
        """Fetch a path's JSON. Raises ProbeError."""
        try:
            return json.loads(self.get(path, headers=headers))
        except ValueError as error:
            raise ProbeError(f"{self.host}:{self.port}{path} is not JSON") from error

    def amiss(self, path: str) -> str:
        """Say what is amiss; empty when the answer is 200."""
        try:
            self.get(path)
        except NarthexError as error:
            return str(error)
        return ""

    def _connection(self) -> http.client.HTTPConnection:
        context: ssl.SSLContext | None = None
        if self.client is not None:
            context = client_context(self.client)
        elif self.ca is not None:
            context = verifying_context(self.ca)
        if context is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout_seconds)
        return http.client.HTTPSConnection(
            self.host, self.port, timeout=self.timeout_seconds, context=context
        )
