"""What could someone with this panel do on this node: its own policy, ours, and by role."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask import request
from flask_babel import gettext, lazy_gettext

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.contract.spec import Action, Danger
from narthex_operator.errors import OperatorError
from narthex_operator.services.access import GRANTS, Actor, Role
from narthex_operator.services.ceilings import CEILINGS, narrowed
from narthex_operator.services.views import ActorView
from narthex_panel.node_frame import frame, why_not
from narthex_panel.page import Answer, Page, Ui
from narthex_panel.responses import see_other

page: Final = Page(name="policy", title=lazy_gettext("Policy"), permission="node:read")

# What the page shows in places of its own; every other part of a policy is listed as it is.
_OWN_PLACES: Final = frozenset(
    {"mode", "danger", "root_equivalent", "require_approvals", "rate", "version"}
)
FAMILIES: Final = tuple(sorted({action.family for action in CATALOGUE.values()}))
_MOST: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Possible:
    """One action, and why whoever is looked at cannot run it here; empty where they can."""

    action: Action[Any]
    why: str


@page.get("/nodes/<ref>/policy")
def show(ui: Ui, ref: str) -> Answer:
    """Show what may be done on a node, by whom, and why not the rest."""
    return _show(ui, ref)


@page.post("/nodes/<ref>/ceiling", permission="node:write")
def narrow(ui: Ui, ref: str) -> Answer:
    """Narrow what is sent to a node."""
    wanted = {family: request.form.get(family, "") for family in FAMILIES}
    try:
        node = ui.services.nodes.set_ceiling(
            ui.actor, ref, ceiling={family: most for family, most in wanted.items() if most}
        )
    except OperatorError as error:
        return _show(ui, ref, problem=error)
    return see_other(f"/nodes/{node.name}/policy")


def _show(ui: Ui, ref: str, *, problem: OperatorError | None = None) -> Answer:
    found = frame(ui, ref, "policy")
    actor = ui.services.runs.actor_of(ui.actor, ref)
    role = request.args.get("role", "")
    who = _someone(role) if role in set(Role) else ui.actor
    possible = tuple(
        Possible(action=action, why=_why(who, action, actor, found.node.ceiling))
        for _, action in sorted(CATALOGUE.items())
    )
    return ui.render(
        "policy.html",
        frame=found,
        actor=actor,
        policy=_plain(actor.policy),
        lists=_lists(actor.policy),
        families=FAMILIES,
        ceilings=CEILINGS,
        root_equivalent=[one.name for one in CATALOGUE.values() if one.root_equivalent],
        roles=list(Role),
        role=role if role in set(Role) else "",
        possible=possible,
        able=sum(not one.why for one in possible),
        problem=problem,
    )


def _someone(role: str) -> Actor:
    return Actor(id="", name=role, grants=GRANTS[Role(role)])


def _why(who: Actor, action: Action[Any], actor: ActorView, ceiling: Mapping[str, str]) -> str:
    if not who.may(action.permission, danger=action.danger):
        return str(gettext("the permission action:%(name)s is missing", name=action.name))
    return narrowed(ceiling, action) or why_not(actor, action.name)


def _plain(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Take what has a place of its own, in the shape that the page believes; else nothing."""

    def mapping(name: str) -> dict[str, str]:
        value = policy.get(name)
        return (
            {str(k): str(v) for k, v in list(value.items())[:_MOST]}
            if isinstance(value, dict)
            else {}
        )

    named = policy.get("root_equivalent")
    return {
        "mode": str(policy.get("mode", "")),
        "danger": mapping("danger"),
        "rate": mapping("rate"),
        "require_approvals": mapping("require_approvals"),
        "root_equivalent": [str(one) for one in named[:_MOST]] if isinstance(named, list) else [],
        "dangers": [str(one) for one in Danger],
    }


def _lists(policy: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List the rest of a policy, one line a setting: a node may have sections unknown here."""
    lines: list[tuple[str, str]] = []
    for name, section in policy.items():
        if name in _OWN_PLACES:
            continue
        parts = section.items() if isinstance(section, dict) else [("", section)]
        for key, value in parts:
            lines.append((f"{name}.{key}" if key else str(name), _words(value)))
    return lines[:_MOST]


def _words(value: object) -> str:
    if value is None:
        return str(gettext("not limited"))
    if isinstance(value, list):
        words = (_words(one) for one in value[:_MOST])
        return ", ".join(words) if value else str(gettext("none"))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(one)}" for key, one in list(value.items())[:_MOST])
    return str(value)
