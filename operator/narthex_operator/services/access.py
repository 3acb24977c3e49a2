"""Who asks, and what they may do: presets on one engine, deny by default."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, TypeVar

from narthex_exporter.contract.spec import Danger
from narthex_operator.errors import DeniedError


class Role(enum.StrEnum):
    """The presets. Each is a list of grants below; nothing else knows their names."""

    ADMIN = "admin"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Allow the permissions that match ``pattern``, actions up to ``ceiling``."""

    pattern: str
    ceiling: Danger = Danger.DESTRUCTIVE


_SEE: Final = (
    Grant(pattern="node:read"),
    Grant(pattern="alert:read"),
    Grant(pattern="log:read"),
    Grant(pattern="run:read"),
    Grant(pattern="schedule:read"),
    Grant(pattern="query:*"),
)

GRANTS: Final[dict[Role, tuple[Grant, ...]]] = {
    Role.ADMIN: (Grant(pattern="*"),),
    Role.AUDITOR: (Grant(pattern="audit:read"), Grant(pattern="run:read")),
    Role.OPERATOR: (
        *_SEE,
        Grant(pattern="alert:silence"),
        Grant(pattern="audit:read"),
        Grant(pattern="fleet:all"),
        Grant(pattern="schedule:*"),
        Grant(pattern="action:*", ceiling=Danger.DISRUPTIVE),
    ),
    Role.VIEWER: _SEE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Whoever asks: a user, an API token, a schedule or the local command line.

    ``id`` goes into tickets and audit (``user:42``, ``key:7``, ``local:root``); ``session`` is a
    short hash of the panel session, empty elsewhere; ``address`` is where the request came from.
    """

    id: str
    name: str
    grants: tuple[Grant, ...]
    session: str = ""
    address: str = ""

    def may(self, permission: str, *, danger: Danger = Danger.SAFE) -> bool:
        """Tell whether some grant covers a permission at a danger."""
        return any(
            fnmatchcase(permission, grant.pattern) and danger.rank <= grant.ceiling.rank
            for grant in self.grants
        )

    def require(self, permission: str, *, danger: Danger = Danger.SAFE) -> None:
        """Raise DeniedError unless ``may``."""
        if not self.may(permission, danger=danger):
            raise DeniedError(
                f"{self.name} may not: {permission} ({danger})",
                hint="an administrator can grant it",
            )


def local_actor(user: str) -> Actor:
    """Make the actor of the local command line: who can read the database is already an admin."""
    return Actor(id=f"local:{user}", name=user, grants=GRANTS[Role.ADMIN], address="local")


# What a view may declare besides a permission: open to all, or to whoever is signed in.
PUBLIC: Final = "public"
SIGNED_IN: Final = "signed-in"

View = TypeVar("View", bound=Callable[..., Any])


def requires(permission: str, *, machine: bool = False) -> Callable[[View], View]:
    """Declare what a view needs; the operator does not start with a view that declares nothing.

    ``permission`` is PUBLIC, SIGNED_IN or a permission such as ``node:read``. ``machine`` marks
    views for bearer tokens only, which need no CSRF token and take no cookie.
    """

    def declare(view: View) -> View:
        view.permission = permission  # type: ignore[attr-defined]
        view.machine = machine  # type: ignore[attr-defined]
        return view

    return declare
