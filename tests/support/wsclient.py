"""A WebSocket client for tests: wsproto on a real socket, so that we do not judge ourselves."""

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import CloseConnection, Event, Message, RejectConnection, Request


@dataclass
class Client:
    """The other end: wsproto on a real socket."""

    sock: socket.socket
    connection: WSConnection = field(default_factory=lambda: WSConnection(ConnectionType.CLIENT))

    def ask(self, path: str = "/echo", **more: Any) -> Event:
        self.send(Request(target=path, **{"host": "localhost", **more}))
        return next(self.events())

    def send(self, event: Event) -> None:
        self.sock.sendall(self.connection.send(event))

    def events(self) -> Iterator[Event]:
        while True:
            yield from self.connection.events()
            data = self.sock.recv(65536)
            self.connection.receive_data(data or None)

    def message(self) -> Any:
        parts: list[Any] = []
        for event in self.events():
            if isinstance(event, Message):
                parts.append(event.data)
                if event.message_finished:
                    return type(parts[0])().join(parts)
            elif isinstance(event, CloseConnection):
                return event
        raise AssertionError

    def close_code(self) -> int:
        for event in self.events():
            if isinstance(event, CloseConnection):
                return event.code
        raise AssertionError

    def json(self) -> Any:
        """Read one JSON message, or the close that came in its place."""
        found = self.message()
        return json.loads(found) if isinstance(found, str) else found

    def refusal(self, answer: Event) -> tuple[int, str]:
        """Read a refused handshake: status, and the type of the problem in its body."""
        assert isinstance(answer, RejectConnection), answer
        body = b""
        for event in self.events():
            body += event.data  # type: ignore[attr-defined]
            if event.body_finished:  # type: ignore[attr-defined]
                break
        try:
            return answer.status_code, json.loads(body)["type"]
        except (ValueError, KeyError):
            return answer.status_code, ""

    def output(self, until: bytes, *, seconds: float = 10.0) -> bytes:
        """Read a terminal's output until it holds something."""
        found, deadline = b"", time.monotonic() + seconds
        while until not in found:
            assert time.monotonic() < deadline, found
            piece = self.message()
            assert isinstance(piece, bytes), (piece, found)
            found += piece
        return found
