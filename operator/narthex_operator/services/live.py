"""Let a session watch a node live or open a terminal on it: once for each ticket, while it may."""

import hashlib
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from narthex_exporter.contract.spec import Action, Catalogue, Follow
from narthex_exporter.transport.websocket import WebSocket
from narthex_operator.clients.node import NodeClient
from narthex_operator.errors import DeniedError, LimitedError, NotFoundError
from narthex_operator.services.access import Actor
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.consent import check_why
from narthex_operator.services.interfaces import Nodes
from narthex_operator.services.runs import RunService, asker_for, validated
from narthex_operator.services.views import LivePermit

TICKET_SECONDS: Final = 30.0
MOST_TICKETS: Final = 4096
MOST_TICKETS_EACH: Final = 32


@dataclass(frozen=True, slots=True)
class _Kept:
    permit: LivePermit
    until: float


@dataclass(slots=True, kw_only=True)
class LiveService:
    """Tickets and streams. Tickets live in this process: whoever gave one must take it back."""

    nodes: Nodes
    client: NodeClient
    runs: RunService
    audit: AuditLedger
    catalogue: Catalogue
    clock: Callable[[], float] = time.monotonic
    _tickets: dict[str, _Kept] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def ticket(
        self, actor: Actor, ref: str, name: str, params: Mapping[str, Any], *, reason: str = ""
    ) -> str:
        """Let a session open one stream, once, within 30 s; ``reason`` is for the audits."""
        declared = self._declared(name)
        _require(actor, declared)
        if not actor.session:
            raise DeniedError(
                "only a person's session may open a live stream", hint="sign in in a browser"
            )
        valid = validated(declared.params, params)
        view = self.nodes.get(actor, ref)
        self.runs.capable(self.runs.reachable(view), actor, declared)
        why = reason.strip()
        if isinstance(declared, Action):
            check_why(declared, why)
        permit = LivePermit(
            node=view,
            name=name,
            params=valid.model_dump(mode="json"),
            actor=actor.id,
            session=actor.session,
            terminal=isinstance(declared, Action),
            reason=why,
        )
        return self._keep(permit)

    def redeem(self, actor: Actor, ticket: str) -> LivePermit:
        """Spend a ticket, whoever shows it; it opens something for its own session alone."""
        with self._lock:
            kept = self._tickets.pop(_digest(ticket), None)
        if kept is None or kept.until < self.clock():
            raise DeniedError(
                "the stream's ticket is unknown, spent or late", hint="ask for another"
            )
        if (kept.permit.actor, kept.permit.session) != (actor.id, actor.session):
            raise DeniedError("the stream's ticket is another session's", hint="ask for your own")
        self.check(actor, kept.permit)
        return kept.permit

    def check(self, actor: Actor, permit: LivePermit) -> None:
        """Look again whether it may be: the permission, and whether the node may be reached."""
        _require(actor, self._declared(permit.name))
        self.runs.reachable(self.nodes.get(actor, permit.node.id))

    def open(self, actor: Actor, permit: LivePermit) -> WebSocket:
        """Open the stream at its node."""
        node = self.runs.reachable(self.nodes.get(actor, permit.node.id))
        if permit.terminal:
            self._note(actor, permit, "terminal.opened", {"params": dict(permit.params)})
        asker = replace(asker_for(actor), reason=permit.reason)
        return self.client.stream(
            node, asker, permit.name, permit.params, terminal=permit.terminal
        )

    def ended(self, actor: Actor, permit: LivePermit, *, seconds: float, why: str) -> None:
        """Write down that a terminal has ended."""
        if permit.terminal:
            details = {"seconds": round(seconds, 1), "why": why[:300]}
            self._note(actor, permit, "terminal.closed", details)

    def _note(
        self, actor: Actor, permit: LivePermit, event: str, details: Mapping[str, Any]
    ) -> None:
        declared = self.catalogue.actions[permit.name]
        self.audit.note(
            actor,
            event,
            node=permit.node.id,
            node_name=permit.node.name,
            resource=declared.params.model_validate(dict(permit.params)).resource,
            reason=permit.reason,
            details={"action": permit.name, **details},
        )

    def _declared(self, name: str) -> Action[Any] | Follow[Any, Any]:
        found = self.catalogue.follows.get(name)
        if found is not None:
            return found
        action = self.catalogue.actions.get(name)
        if action is not None and action.live:
            return action
        raise NotFoundError(
            f"there is nothing live named {name[:100]!r}", hint="see the catalogue"
        )

    def _keep(self, permit: LivePermit) -> str:
        token = secrets.token_urlsafe(32)
        now = self.clock()
        with self._lock:
            for old in [key for key, kept in self._tickets.items() if kept.until < now]:
                del self._tickets[old]
            mine = Counter(kept.permit.session for kept in self._tickets.values())
            if len(self._tickets) >= MOST_TICKETS or mine[permit.session] >= MOST_TICKETS_EACH:
                raise LimitedError(
                    "too many streams were asked for and not opened",
                    retry_after_seconds=TICKET_SECONDS,
                )
            self._tickets[_digest(token)] = _Kept(permit, now + TICKET_SECONDS)
        return token


def _require(actor: Actor, declared: Action[Any] | Follow[Any, Any]) -> None:
    if isinstance(declared, Action):
        actor.require(declared.permission, danger=declared.danger)
    else:
        actor.require(declared.permission)


def _digest(token: str) -> str:
    return hashlib.sha256(token[:256].encode(errors="replace")).hexdigest()
