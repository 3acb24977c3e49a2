"""Resolve whom a fleet run is for: every member may be reached, or nobody is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select

from narthex_exporter.contract.spec import Action
from narthex_exporter.contract.wire import FieldError
from narthex_operator.db import Database
from narthex_operator.db.models import Node
from narthex_operator.errors import ConflictError, DeniedError, InvalidError
from narthex_operator.services.access import Actor
from narthex_operator.services.delivery import refusal
from narthex_operator.services.selectors import (
    Selector,
    attributes_of,
    invalid,
    listed,
    parse_selector,
)
from narthex_operator.services.strategy import MAX_NODES

WHOLE_FLEET: Final = "fleet:all"
_NOBODY: Final = "nothing was done on any node: correct it and try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Whom something is for: a selector's text, or nodes by their ids or names."""

    on: str = ""
    nodes: Sequence[str] = ()

    @property
    def text(self) -> str:
        """Tell it in a selector's words."""
        return self.on or ",".join(self.nodes)


def resolve(
    database: Database, actor: Actor, aim: Aim, action: Action[Any] | None = None
) -> tuple[Node, ...]:
    """Find the nodes that are meant, by name (``node:read``, and the action on each).

    Raises InvalidError, DeniedError or ConflictError for the whole when there is none, or one
    that is unknown, named twice, removed, not approved or not allowed.
    """
    actor.require("node:read")
    if bool(aim.on) == bool(aim.nodes):
        raise invalid("or a list of nodes must be given, and not both" if not aim.on else
                      "and a list of nodes cannot both be given")  # fmt: skip
    if len(aim.nodes) > MAX_NODES:
        raise _too_many(len(aim.nodes))
    with database.reading() as session:
        query = select(Node).where(Node.removed_at.is_(None)).order_by(Node.name)
        nodes = list(session.scalars(query))
        session.expunge_all()
    found = _named(nodes, aim.nodes) if aim.nodes else _selected(actor, nodes, aim.on)
    if not found:
        raise invalid("matches no node")
    if len(found) > MAX_NODES:
        raise _too_many(len(found))
    for node in found:
        _check(actor, node, action)
    reasons = [why for node in found if (why := refusal(node))]
    if reasons:
        raise ConflictError(listed(reasons), hint=_NOBODY)
    return tuple(found)


def _check(actor: Actor, _node: Node, action: Action[Any] | None) -> None:
    """Ask for each node by itself, so that grants on some nodes alone have one place to bite."""
    if action is not None:
        actor.require(action.permission, danger=action.danger)


def _selected(actor: Actor, nodes: Sequence[Node], text: str) -> list[Node]:
    selector = parse_selector(text)
    if not selector.matchers and not selector.everything:
        return _listed(nodes, selector)
    found = [
        node
        for node in nodes
        if selector.matches(attributes_of(node.name, node.group, node.labels))
    ]
    if selector.everything or len(found) == len(nodes) > 1:
        actor.require(WHOLE_FLEET)
    return found


def _listed(nodes: Sequence[Node], selector: Selector) -> list[Node]:
    chosen = {node.id for node in _named(nodes, selector.names)} if selector.names else set()
    unknown = set(selector.groups) - {node.group for node in nodes}
    if unknown:
        raise _unknown([f"@{name}" for name in sorted(unknown)])
    return [node for node in nodes if node.id in chosen or node.group in selector.groups]


def _named(nodes: Sequence[Node], refs: Sequence[str]) -> list[Node]:
    # A name comes before an id, as where one node is asked for.
    known = {node.id: node for node in nodes} | {node.name: node for node in nodes}
    unknown = [ref for ref in refs if ref not in known]
    if unknown:
        raise _unknown(unknown)
    found = [known[ref] for ref in refs]
    twice = [node.name for node, count in Counter(found).items() if count > 1]
    if twice:
        raise invalid(f"names {listed(twice)} more than once")
    return sorted(found, key=lambda node: node.name)


def _unknown(names: Sequence[str]) -> DeniedError:
    # The same words for what is not there and for what one may not see.
    return DeniedError(f"there is no {listed(names)} that you may act on", hint=_NOBODY)


def _too_many(count: int) -> InvalidError:
    message = f"means {count} nodes, and at most {MAX_NODES} can be acted on at once"
    return InvalidError(
        f"the selector {message}", errors=(FieldError(path="on", message=message),), hint=_NOBODY
    )
