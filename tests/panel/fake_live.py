"""Live streams in memory: a real WebSocket, whose other end tells what the world says."""

import json
import secrets
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.panel.world import World

from narthex_exporter.actions import CATALOGUE as ACTIONS
from narthex_exporter.contract.wire import FieldError, StreamMessage
from narthex_exporter.follows import CATALOGUE
from narthex_exporter.transport.websocket import NORMAL, WebSocket
from narthex_exporter.transport.wires import Wire
from narthex_operator.errors import ConflictError, DeniedError, InvalidError, UnreachableError
from narthex_operator.services.access import Actor
from narthex_operator.services.views import LivePermit


@dataclass
class FakeLive:
    world: World
    permits: dict[str, LivePermit] = field(default_factory=dict)

    def ticket(
        self, actor: Actor, ref: str, name: str, params: Mapping[str, Any], *, reason: str = ""
    ) -> str:
        _require(actor, name)
        declared = ACTIONS[name] if name in ACTIONS else CATALOGUE[name]
        try:
            valid = declared.params.model_validate(dict(params))
        except ValueError as error:
            told = (FieldError(path="params.command", message="should have at most 16 words"),)
            raise InvalidError("some fields are not valid", errors=told) from error
        if name in self.world.forbidden:
            raise ConflictError(self.world.forbidden[name], hint="ask the node's owner")
        made = secrets.token_urlsafe(16)
        self.permits[made] = LivePermit(
            node=self.world.find(ref), name=name, params=valid.model_dump(mode="json"),
            actor=actor.id, session=actor.session, terminal=name in ACTIONS, reason=reason,
        )  # fmt: skip
        return made

    def redeem(self, actor: Actor, ticket: str) -> LivePermit:
        found = self.permits.pop(ticket, None)
        if found is None:
            raise DeniedError("the stream's ticket is unknown, spent or late")
        return found

    def check(self, actor: Actor, permit: LivePermit) -> None:
        _require(actor, permit.name)

    def open(self, actor: Actor, permit: LivePermit) -> WebSocket:
        if self.world.failing():
            raise UnreachableError("web-1 does not answer", hint="check the node")
        self.world.opened.append({**permit.params, "reason": permit.reason})
        ours, theirs = socket.socketpair()
        node = WebSocket(Wire(theirs))
        work = (self._screen, (node,)) if permit.terminal else (self._tell, (node, permit.name))
        threading.Thread(target=work[0], args=work[1], daemon=True).start()
        return WebSocket(Wire(ours), client=True)

    def ended(self, actor: Actor, permit: LivePermit, *, seconds: float, why: str) -> None:
        pass

    def _tell(self, node: WebSocket, name: str) -> None:
        told = self.world.told.setdefault(name, [])
        self.world.listening += 1
        at = 0
        while node.closed is None:
            while at < len(told):
                node.send(StreamMessage(data=told[at]).model_dump_json(exclude_none=True))
                at += 1
            node.wait(0.05)
            node.messages()
        self.world.listening -= 1
        node.wire.sock.close()

    def _screen(self, node: WebSocket) -> None:
        """Be a terminal: write what the world says, keep what is typed."""
        self.world.listening += 1
        at = 0
        while node.closed is None:
            while at < len(self.world.screen) and node.has_room:
                node.send(self.world.screen[at])
                at += 1
            node.wait(0.02)
            for message in node.messages():
                if isinstance(message, bytes):
                    self.world.typed += message
                else:
                    self.world.sizes.append(json.loads(message))
            if self.world.hang_up and node.closed is None:
                node.close(NORMAL, self.world.hang_up)
        self.world.listening -= 1
        node.finish(seconds=0.5)
        node.wire.sock.close()


def _require(actor: Actor, name: str) -> None:
    if name in ACTIONS:
        actor.require(ACTIONS[name].permission, danger=ACTIONS[name].danger)
    else:
        actor.require(f"query:{name}")
