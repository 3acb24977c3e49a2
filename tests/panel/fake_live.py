"""Live streams in memory: a real WebSocket, whose other end tells what the world says."""

import secrets
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.panel.world import World

from narthex_exporter.contract.wire import StreamMessage
from narthex_exporter.follows import CATALOGUE
from narthex_exporter.transport.websocket import WebSocket
from narthex_exporter.transport.wires import Wire
from narthex_operator.errors import DeniedError, UnreachableError
from narthex_operator.services.access import Actor
from narthex_operator.services.views import LivePermit


@dataclass
class FakeLive:
    world: World
    permits: dict[str, LivePermit] = field(default_factory=dict)

    def ticket(self, actor: Actor, ref: str, name: str, params: Mapping[str, Any]) -> str:
        actor.require(f"query:{name}")
        valid = CATALOGUE[name].params.model_validate(dict(params))
        made = secrets.token_urlsafe(16)
        self.permits[made] = LivePermit(
            node=self.world.find(ref), name=name, params=valid.model_dump(mode="json"),
            actor=actor.id, session=actor.session,
        )  # fmt: skip
        return made

    def redeem(self, actor: Actor, ticket: str) -> LivePermit:
        found = self.permits.pop(ticket, None)
        if found is None:
            raise DeniedError("the stream's ticket is unknown, spent or late")
        return found

    def check(self, actor: Actor, permit: LivePermit) -> None:
        actor.require(f"query:{permit.name}")

    def open(self, actor: Actor, permit: LivePermit) -> WebSocket:
        if self.world.failing():
            raise UnreachableError("web-1 does not answer", hint="check the node")
        self.world.opened.append(dict(permit.params))
        ours, theirs = socket.socketpair()
        node = WebSocket(Wire(theirs))
        threading.Thread(target=self._tell, args=(node, permit.name), daemon=True).start()
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
