"""The ports of one node: who listens, who is connected, and what the firewall lets in."""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

from flask_babel import lazy_gettext

from narthex_panel.node_frame import blocked, frame, query_state
from narthex_panel.page import Answer, Page, Ui

page: Final = Page(
    name="ports", title=lazy_gettext("Ports and firewall"), permission="query:port.list"
)

ACTIONS: Final = (
    "firewall.open-port",
    "firewall.close-port",
    "firewall.allow-source",
    "firewall.deny-source",
    "firewall.limit",
    "firewall.forward",
    "firewall.remove-rule",
    "firewall.set-default-policy",
    "firewall.enable",
    "firewall.disable",
)
_SHOWN_RULES: Final = 300
_NEW: Final = dt.timedelta(days=1)
# Who can be reached by most first: what to look at stands on top.
_ORDER: Final = ("anywhere", "unknown", "networks", "local")


@page.get("/nodes/<ref>/ports")
def show(ui: Ui, ref: str) -> Answer:
    """Show listeners with who reaches them, connections by peer, and the rules."""
    found = frame(ui, ref, "ports")
    state = query_state(ui, ref, "port.list", {})
    ports = sorted(state["answer"]["ports"], key=_rank) if state["answer"] else []
    timed = [(one, _instant(one["first_seen_at"])) for one in ports]
    template = "ports_table.html" if ui.is_fragment else "ports.html"
    more: dict[str, Any] = {}
    if not ui.is_fragment and state["answer"]:
        more = {
            "peers": query_state(ui, ref, "port.connections", {"limit": 200}),
            "firewall": (firewall := query_state(ui, ref, "firewall.get", {})),
            "rules": [
                (one, _instant(one["expires_at"]))
                for one in (firewall["answer"] or {"rules": ()})["rules"][:_SHOWN_RULES]
            ],
        }
    return ui.render(
        template,
        frame=found,
        ports=[(one, since, _is_new(since)) for one, since in timed],
        blocked=blocked(ui, state["actor"], ACTIONS),
        **more,
        **state,
    )


@page.get("/nodes/<ref>/ports/ruleset", permission="query:firewall.export")
def ruleset(ui: Ui, ref: str) -> Answer:
    """Show the ruleset as nft prints it."""
    found = frame(ui, ref, "ports")
    return ui.render("ruleset.html", frame=found, **query_state(ui, ref, "firewall.export", {}))


def _rank(port: Mapping[str, Any]) -> tuple[int, int, str]:
    reach = port["reach"]
    place = _ORDER.index(reach) if reach in _ORDER else len(_ORDER)
    return (place, int(port["port"]), str(port["protocol"]))


def _instant(told: object) -> dt.datetime | None:
    """Read what a node says of a time; nothing where that is none."""
    try:
        return dt.datetime.fromisoformat(str(told)) if told else None
    except ValueError:
        return None


def _is_new(since: dt.datetime | None) -> bool:
    """Tell what was not there a day ago, as far as the node says when it began."""
    return since is not None and dt.datetime.now(tz=dt.UTC) - since < _NEW
