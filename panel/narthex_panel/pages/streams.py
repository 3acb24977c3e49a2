"""Live streams of nodes to a browser: a ticket first, then a WebSocket that spends it."""

from typing import Any, Final

from flask import Response, jsonify, request
from flask_babel import lazy_gettext
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from narthex_exporter.contract.wire import strict_json
from narthex_exporter.transport.websocket import HandshakeError, wanted
from narthex_operator.errors import InvalidError, OperatorError
from narthex_operator.services.access import SIGNED_IN
from narthex_panel.conversation import converse, shown_ticket
from narthex_panel.live_parts import reader_of
from narthex_panel.page import Answer, Page, Ui

# What a stream needs is asked for by its name, in the service: here, who one is.
page: Final = Page(name="streams", title=lazy_gettext("Live"), permission=SIGNED_IN)


class Wanted(BaseModel):
    """What a page asks to open."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    node: str = Field(max_length=64)
    name: str = Field(max_length=100)
    params: dict[str, Any] = {}
    reason: str = ""


class NoWebSocketError(OperatorError):
    """A plain request came where a WebSocket is due."""

    kind = "upgrade-required"
    status = 426


@page.post("/live/tickets")
def ticket(ui: Ui) -> Answer:
    """Give a ticket that opens one stream, once, within 30 s."""
    try:
        asked = Wanted.model_validate(strict_json(request.get_data(cache=False)))
    except (ValidationError, ValueError) as error:
        raise InvalidError("the request is not a stream's") from error
    made = ui.services.live.ticket(
        ui.actor, asked.node, asked.name, asked.params, reason=asked.reason
    )
    return Response(jsonify({"ticket": made}).get_data(), mimetype="application/json")


@page.get("/live/ws")
def stream(ui: Ui) -> Answer:
    """Open the stream that a ticket was given for."""
    try:
        wanted(request.environ)
    except HandshakeError as error:
        raise NoWebSocketError(str(error)) from error
    permit = ui.services.live.redeem(ui.actor, shown_ticket())
    return converse(ui, permit, None if permit.terminal else reader_of(ui, permit))
