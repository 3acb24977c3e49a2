"""Judge again, whenever something is about to happen, who still may have it happen.

What was allowed when a run was asked for or approved may not be any more when it is sent: a
person was disabled or has another role, a token was revoked, a node was narrowed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy.orm import Session

from narthex_exporter.contract.spec import Action, Catalogue, Danger
from narthex_exporter.contract.tickets import Approval
from narthex_operator.db.models import ApiToken, ApprovalRow, Node, RunRow, User
from narthex_operator.services.access import GRANTS, Actor, Grant, Role
from narthex_operator.services.ceilings import narrowed

# Whoever can read the database is an admin; who starts a schedule judges it just then.
_TRUSTED: Final = frozenset({"local", "sched"})


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """What may be done now, by the database as it is.

    ``require`` is the operator's own wish for approvals by danger: it adds to what nodes want,
    and takes nothing away.
    """

    catalogue: Catalogue
    require: Mapping[Danger, int] = field(default_factory=dict)
    now: Callable[[], datetime] = _now

    def wanted(self, action: Action[Any], by_node: int) -> int:
        """Tell how many other people must approve a run."""
        return max(by_node, self.require.get(action.danger, 0))

    def refusal(self, session: Session, row: RunRow, node: Node) -> str:
        """Say why a run that was asked for may not be sent any more; empty where it may."""
        action = self.catalogue.actions.get(row.action)
        if action is None:
            return f"this release does not know {row.action}"
        grants = self._grants(session, row.actor)
        if not _may(grants, action):
            return f"{row.actor_name} may not run {action.name} any more"
        return narrowed(node.ceiling, action)

    def approvals(self, session: Session, row: RunRow) -> tuple[Approval, ...]:
        """Give the approvals of a run that count now: not those of who may not any more."""
        action = self.catalogue.actions.get(row.action)
        if action is None:
            return ()
        own = self.people_behind(session, row.actor)
        return tuple(
            Approval(user=f"user:{one.user_id}", at=int(one.at.timestamp()), id=str(one.id))
            for one in row.approvals
            if one.user_id not in own and self._stands(session, one, row, action)
        )

    def people_behind(self, session: Session, actor: str) -> set[int]:
        """Name the users whose wish a run is: who asked, or whose token did."""
        kind, _, name = actor.partition(":")
        if kind == "user" and name.isdigit():
            return {int(name)}
        token = session.get(ApiToken, name) if kind == "key" else None
        return {token.user_id} if token is not None and token.user_id is not None else set()

    def approver_refusal(self, session: Session, row: RunRow, actor: Actor) -> str:
        """Say why somebody cannot approve a run; empty where they can."""
        kind, _, number = actor.id.partition(":")
        if kind != "user" or not number.isdigit() or not actor.session:
            return "only a person who is signed in can approve"
        if int(number) in self.people_behind(session, row.actor):
            return "whoever asked for a run cannot approve it"
        action = self.catalogue.actions.get(row.action)
        if action is None or not _may(actor.grants, action):
            return f"to approve it needs what to run it needs: action:{row.action} ({row.danger})"
        if any(one.user_id == int(number) for one in row.approvals):
            return "you have approved it already"
        return ""

    def _stands(
        self, session: Session, approval: ApprovalRow, row: RunRow, action: Action[Any]
    ) -> bool:
        in_time = row.approve_until is not None and approval.at <= row.approve_until
        return in_time and _may(self._grants(session, f"user:{approval.user_id}"), action)

    def _grants(self, session: Session, actor: str) -> tuple[Grant, ...]:
        kind, _, name = actor.partition(":")
        if kind in _TRUSTED:
            return GRANTS[Role.ADMIN]
        if kind == "user" and name.isdigit():
            user = session.get(User, int(name))
            return () if user is None or user.disabled else GRANTS[Role(user.role)]
        token = session.get(ApiToken, name) if kind == "key" else None
        if token is None or token.revoked_at or token.expires_at <= self.now():
            return ()
        owner = session.get(User, token.user_id) if token.user_id else None
        if token.user_id and (owner is None or owner.disabled):
            return ()
        return GRANTS[Role(token.role)]


def _may(grants: tuple[Grant, ...], action: Action[Any]) -> bool:
    someone = Actor(id="", name="", grants=grants)
    return someone.may(action.permission, danger=action.danger)
