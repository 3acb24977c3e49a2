"""A terminal in one container."""

from typing import Final

from flask_babel import gettext, lazy_gettext
from pydantic import ValidationError

from narthex_exporter.actions.containerexec import SHELL, ExecParams, execute
from narthex_operator.errors import NotFoundError
from narthex_operator.services.views import ActorView
from narthex_panel.node_frame import blocked, frame
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import style_nonce

# Whoever may see the node is told what the terminal itself needs.
page: Final = Page(name="terminal", title=lazy_gettext("Terminal"), permission="node:read")

REASON_CHARACTERS: Final = 500


@page.get("/nodes/<ref>/terminal/<container>")
def show(ui: Ui, ref: str, container: str) -> Answer:
    """Show the form that opens a terminal, and its screen."""
    try:
        ExecParams(container=container)
    except ValidationError as error:
        raise NotFoundError(
            f"{container[:128]!r} cannot be a container's name", hint="see the node's containers"
        ) from error
    found = frame(ui, ref, "containers")
    actor = ui.services.runs.actor_of(ui.actor, ref)
    return ui.render(
        "terminal.html",
        frame=found,
        container=container,
        action=execute,
        shell=" ".join(SHELL),
        why=_why_not(ui, actor),
        hint=actor.hint,
        ends=_ends(),
        nonce=style_nonce(),
        reason_characters=REASON_CHARACTERS,
    )


def _why_not(ui: Ui, actor: ActorView) -> str:
    """Say why whoever asks can open none here; empty where it can be tried."""
    if ui.session is None:
        return str(gettext("A terminal is opened by a person's session, not with an API token."))
    return blocked(ui, actor, (execute.name,))[execute.name]


def _ends() -> dict[str, str]:
    """Tell in the reader's language what a node and the operator say when a terminal ends."""
    return {
        "the command has ended": gettext("the command has ended"),
        "nothing was typed for too long": gettext("nothing was typed for too long"),
        "it was open for too long": gettext("it was open for too long"),
        "the node's policy forbids it now": gettext("the node's policy forbids it now"),
        "the actor stops": gettext("the node's actor stops"),
        "the operator stops": gettext("the operator stops"),
        "signed-out": gettext("your session has ended: sign in again"),
        "the node does not answer": gettext("the node does not answer"),
    }
