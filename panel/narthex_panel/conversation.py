"""Answer a browser's WebSocket with a stream of a node, for as long as its session lasts."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from flask import Response, request
from typing_extensions import override

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.websocket import (
    INTERNAL,
    POLICY,
    PROTOCOL,
    WebSocket,
    accept,
    offered,
    wanted,
)
from narthex_operator.errors import DeniedError, NotSignedInError, OperatorError
from narthex_operator.services.bridge import Bridge
from narthex_operator.services.views import LivePermit
from narthex_panel.page import Ui
from narthex_panel.responses import COOKIE

log = logging.getLogger(__name__)

TICKET: Final = "ticket."
Reader = Callable[[str], Iterable[str]]


class Conversation(Response):
    """A response that is a WebSocket: ``talk`` has it until it ends."""

    def __init__(self, talk: Callable[[WebSocket], None]) -> None:
        super().__init__(status=101)
        self.talk = talk

    @override
    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        told = [(k, v) for k, v in self.headers.items() if k.lower() not in _OF_A_BODY]
        self.talk(accept(environ, headers=told, protocol=PROTOCOL))
        return iter(())


_OF_A_BODY: Final = frozenset({"content-type", "content-length", "connection", "upgrade"})


def shown_ticket() -> str:
    """Take the one ticket out of the protocols that a browser offers. Raises DeniedError.

    It is never in the address, which logs and histories keep.
    """
    names = offered(request.environ)
    found = [name.removeprefix(TICKET) for name in names if name.startswith(TICKET)]
    if PROTOCOL not in names or len(found) != 1:
        raise DeniedError("a stream is opened with one ticket", hint="load the page again")
    return found[0]


def converse(ui: Ui, permit: LivePermit, reader: Callable[[], Reader] | None) -> Conversation:
    """Carry a stream to the browser; ``reader`` makes what turns a node's words into ours."""
    stopping = wanted(request.environ).stopping
    token, address = request.cookies.get(COOKIE, ""), request.remote_addr or ""

    def talk(browser: WebSocket) -> None:
        began = time.monotonic()
        try:
            read = reader() if reader is not None else None
            node = ui.services.live.open(ui.actor, permit)
        except NarthexError as error:
            browser.send(problem(str(error), error.hint))
            browser.close(POLICY, "the node does not answer")
            browser.finish()
            ui.services.live.ended(ui.actor, permit, seconds=0, why=str(error))
            return
        browser.send('{"opened":true}')
        bridge = Bridge(
            browser=browser,
            node=node,
            read=read,
            check=lambda typed: _why_not(ui, permit, token, address, typed=typed),
        )
        why = "a fault of the operator"
        try:
            why = bridge.carry(stopping)
        except Exception:
            # The boundary of a stream: a mistake of ours ends it, and says no more than that.
            log.exception("stream.fault", extra={"stream": permit.name})
            bridge.end(INTERNAL, why)
        finally:
            with contextlib.suppress(OSError):
                node.wire.sock.close()
            seconds = time.monotonic() - began
            ui.services.live.ended(ui.actor, permit, seconds=seconds, why=why)

    return Conversation(talk)


def problem(message: str, hint: str = "") -> str:
    """Write a problem as the browser is told it."""
    return json.dumps({"problem": {"message": message[:500], "hint": hint[:500]}})


def _why_not(ui: Ui, permit: LivePermit, token: str, address: str, *, typed: bool) -> str:
    """Say why a stream must end: its session, its rights or its node are not what they were."""
    try:
        actor, _ = ui.services.accounts.session(token, address=address, touch=typed)
        ui.services.live.check(actor, permit)
    except NotSignedInError:
        return "signed-out"
    except OperatorError as error:
        return str(error)
    return ""
