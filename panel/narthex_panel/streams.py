"""Answer a browser's EventSource, for as long as its session lasts."""

from collections.abc import Callable

from flask import Response, request, stream_with_context

from narthex_operator.errors import NotSignedInError
from narthex_panel.live import Events
from narthex_panel.page import Ui
from narthex_panel.responses import COOKIE


def open_stream(ui: Ui, look: Callable[[], Events | None]) -> Response:
    """Stream what ``look`` finds; ends when the session does. Raises LimitedError when full."""
    token = request.cookies.get(COOKIE, "")
    address = request.remote_addr or ""

    def still_allowed() -> None:
        actor, _ = ui.services.accounts.session(token, address=address)
        if actor.grants != ui.actor.grants:
            # What may be seen has changed: the page opens a new stream, as somebody else.
            raise NotSignedInError("the rights of the session have changed")

    ui.live.admit()
    events = ui.live.stream(look, still_allowed=still_allowed)
    response = Response(stream_with_context(events), content_type="text/event-stream")
    response.call_on_close(ui.live.leave)
    response.headers["Cache-Control"] = "no-store"
    # nginx would keep events back until its buffer is full.
    response.headers["X-Accel-Buffering"] = "no"
    return response
