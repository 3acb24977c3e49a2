"""What the fakes look at: one pretended world that a test arranges."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from narthex_operator.errors import (
    NotFoundError,
)
from narthex_operator.services.access import GRANTS, Actor, Role
from narthex_operator.services.views import (
    ApprovalView,
    NodeState,
    NodeView,
    RunView,
    SilenceView,
    UserView,
)

NOW = datetime(2026, 11, 24, 14, 5, 0, tzinfo=UTC)


WORDS = "amber canyon lunar pepper quiet raven"


Row = tuple[
    str,
    NodeState,
    float | None,
    float | None,
    float | None,
    float | None,
    int | None,
    int,
    str,
]

NODES: tuple[Row, ...] = (
    ("web-1", NodeState.UP, 0.34, 0.62, 0.41, 1.21, 4, 0, ""),
    ("web-2", NodeState.UP, 0.91, 0.78, 0.44, 6.02, 4, 1, "warning"),
    ("db-primary", NodeState.UP, 0.18, 0.83, 0.93, 2.4, 16, 2, "critical"),
    ("db-replica", NodeState.STALE, 0.12, 0.80, 0.71, 0.9, 16, 0, ""),
    ("cache-1", NodeState.UP, 0.04, 0.35, 0.12, 0.08, 2, 0, ""),
    ("batch-fra-07", NodeState.DOWN, None, None, None, None, None, 1, "critical"),
    ("edge-helsinki", NodeState.PENDING, None, None, None, None, None, 0, ""),
)


# Nothing needs attention, but two nodes have never joined.
QUIET: tuple[Row, ...] = (
    *(row for row in NODES if row[0] in {"web-1", "cache-1"}),
    ("node-a", NodeState.JOINING, None, None, None, None, None, 0, ""),
    ("node-b", NodeState.JOINING, None, None, None, None, None, 0, ""),
)


def node(name: str, state: NodeState, number: int = 1) -> NodeView:
    return NodeView(
        id=f"{number:016x}",
        name=name,
        address=f"10.0.4.{10 + number}:19100",
        state=state,
        group="production",
        labels={"env": "prod", "role": "web"},
        fingerprint=WORDS,
        added_at=NOW - timedelta(days=40),
        enrolled_at=NOW - timedelta(days=40),
        certificate_not_after=NOW + timedelta(days=30),
        actor_instance="" if state is NodeState.DOWN else "c0ffee",
    )


@dataclass
class World:
    """What all the fakes look at. ``mode`` is ``full``, ``quiet``, ``empty`` or ``failing``."""

    mode: str = "full"
    fleet: Sequence[Row] = ()
    """Rows to show in place of the mode's."""
    role: Role = Role.ADMIN
    language: str = ""
    theme: str = ""
    must_change_password: bool = False
    password: str = "correct horse battery"
    text: str = ""
    """Text to put wherever a node could: hostile in tests."""
    systemd: bool = True
    actor_off: bool = False
    now: datetime | None = None
    silenced: dict[str, SilenceView] = field(default_factory=dict)
    runs: dict[str, RunView] = field(default_factory=dict)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    approved: set[str] = field(default_factory=set)
    ceilings: dict[str, dict[str, str]] = field(default_factory=dict)
    approvals: dict[str, list[ApprovalView]] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    ended_sessions: set[str] = field(default_factory=set)
    follows: bool = False
    """Whether the nodes tell anything live."""
    told: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """What they tell, by stream; tests add to it."""
    opened: list[dict[str, Any]] = field(default_factory=list)
    """The parameters of each stream that was opened."""
    listening: int = 0
    typed: bytearray = field(default_factory=bytearray)
    """What was typed into the terminals."""
    sizes: list[dict[str, int]] = field(default_factory=list)
    """The sizes that the terminals were told, columns and rows."""
    screen: list[bytes] = field(default_factory=list)
    """What the terminals write; tests add to it."""
    hang_up: str = ""
    """Why every terminal ends now."""
    forbidden: dict[str, str] = field(default_factory=dict)
    """Why a node cannot carry out an action."""
    unanswered: dict[str, str] = field(default_factory=dict)
    """Why a node cannot answer a query."""
    reads: int = 0
    cpu: float = 0.0
    """Added to each node's CPU, so that a test sees a change."""

    @property
    def time(self) -> datetime:
        return self.now or datetime.now(tz=UTC)

    @property
    def actor(self) -> Actor:
        return Actor(
            id="user:1", name="anna", grants=GRANTS[self.role], session="abc", address="127.0.0.1"
        )

    @property
    def user(self) -> UserView:
        return UserView(
            id=1,
            name="anna",
            role=self.role,
            language=self.language,
            theme=self.theme,
            must_change_password=self.must_change_password,
            created_at=NOW,
        )

    @property
    def table(self) -> Sequence[Row]:
        """The fleet's rows."""
        return self.fleet or (QUIET if self.mode == "quiet" else NODES)

    def failing(self) -> bool:
        return self.mode == "failing"

    def nodes(self) -> list[NodeView]:
        if self.mode == "empty":
            return []
        made = [node(row[0], row[1], index + 1) for index, row in enumerate(self.table)]
        made = [one.model_copy(update={"ceiling": self.ceilings.get(one.id, {})}) for one in made]
        return [
            one.model_copy(update={"state": NodeState.UP}) if one.id in self.approved else one
            for one in made
        ]

    def find(self, ref: str) -> NodeView:
        for one in self.nodes():
            if ref in {one.id, one.name}:
                return one
        raise NotFoundError(f"there is no node {ref!r}", hint="see the list of nodes")
