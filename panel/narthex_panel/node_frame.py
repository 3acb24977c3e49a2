"""What stands around every page of one node: who it is, how it is, its tabs."""

from dataclasses import dataclass
from typing import Any, Final

from flask_babel import gettext

from narthex_operator.errors import OperatorError
from narthex_operator.services.views import ActorView, NodeState, NodeStatus, NodeView
from narthex_panel.page import Ui

_TABS: Final = (
    ("overview", "activity", "node:read"),
    ("processes", "cpu", "query:process.list"),
    ("services", "tools", "query:service.list"),
    ("containers", "server-2", "query:container.list"),
    ("ports", "shield-check", "query:port.list"),
    ("logs", "file-text", "log:read"),
    ("alerts", "bell", "alert:read"),
    ("runs", "history", "run:read"),
    ("policy", "lock", "node:read"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """One tab of a node's page."""

    name: str
    title: str
    icon: str
    href: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A node with its newest figures; ``status`` is ``None`` where there are none."""

    node: NodeView
    status: NodeStatus | None
    tabs: tuple[Tab, ...]
    tab: str
    problem: str = ""

    @property
    def state(self) -> NodeState:
        """How the node is, by its figures where there are some."""
        return self.status.state if self.status is not None else self.node.state


def frame(ui: Ui, ref: str, tab: str) -> Frame:
    """Look a node up for one of its pages. Raises NotFoundError."""
    node = ui.services.nodes.get(ui.actor, ref)
    status, problem = None, ""
    try:
        view = ui.live.shared.get(
            ("fleet", ui.actor.grants), lambda: ui.services.fleet.overview(ui.actor)
        )
        status = next((row for row in view.nodes if row.node.id == node.id), None)
        problem = view.problem
    except OperatorError as error:
        problem = str(error)
    return Frame(node=node, status=status, tabs=_tabs(ui, node), tab=tab, problem=problem)


def why_not(actor: ActorView, name: str, *, query: bool = False) -> str:
    """Say why an action or a query is not available on a node; empty when it is."""
    if actor.off_reason:
        return actor.off_reason
    known = actor.queries if query else actor.actions
    return known.get(name, gettext("this node's version does not know it"))


def blocked(ui: Ui, actor: ActorView, names: tuple[str, ...]) -> dict[str, str]:
    """Say of each action why it cannot be run by whoever asks; empty where it can."""
    return {name: _blocked(ui, actor, name) for name in names}


def followed(ui: Ui, actor: ActorView, name: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """Give the parameters of a live stream, where it can be had here by whoever asks."""
    can = not actor.off_reason and actor.follows.get(name) == ""
    return params if can and ui.session is not None and ui.may(f"query:{name}") else None


def query_state(ui: Ui, ref: str, name: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask a node, and give what a template needs to show the answer or why there is none."""
    actor = ui.services.runs.actor_of(ui.actor, ref)
    why = why_not(actor, name, query=True)
    if why:
        return {"actor": actor, "unavailable": why, "hint": actor.hint, "answer": None}
    try:
        answer = ui.services.runs.query(ui.actor, ref, name, params)
    except OperatorError as error:
        return {"actor": actor, "unavailable": str(error), "hint": error.hint, "answer": None}
    return {"actor": actor, "unavailable": "", "hint": "", "answer": answer}


def _blocked(ui: Ui, actor: ActorView, name: str) -> str:
    if not ui.may_run(name):
        return str(
            gettext(
                "You need the permission action:%(name)s; an administrator can grant it.",
                name=name,
            )
        )
    return why_not(actor, name)


def _tabs(ui: Ui, node: NodeView) -> tuple[Tab, ...]:
    titles = {
        "overview": gettext("Overview"),
        "processes": gettext("Processes"),
        "services": gettext("Services"),
        "containers": gettext("Containers"),
        "ports": gettext("Ports and firewall"),
        "logs": gettext("Logs"),
        "alerts": gettext("Alerts"),
        "runs": gettext("Runs"),
        "policy": gettext("Policy"),
    }
    return tuple(
        Tab(name=name, title=titles[name], icon=icon, href=f"/nodes/{node.name}/{name}")
        for name, icon, permission in _TABS
        if ui.may(permission)
    )
