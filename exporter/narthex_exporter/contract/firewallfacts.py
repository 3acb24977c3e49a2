"""What plans and queries may know of a node's packet filters: see ``facts``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallBackendFact:
    """One way to filter on this node: ``nftables``, ``ufw`` or ``firewalld``.

    ``why`` says what of it cannot be told here.
    """

    name: str
    installed: bool
    active: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallPolicyFact:
    """What becomes of a packet that no rule decided. ``place`` is like ``ip filter INPUT``."""

    backend: str
    place: str
    direction: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallRuleFact:
    """One rule, in one model for every backend.

    ``id`` is ours where the rule is, else the backend's own. ``action`` is ``accept``, ``drop``,
    ``reject``, ``limit``, ``forward``, or ``other`` where the model has no word for it: ``raw`` is
    then all that is known. ``owner`` is ``narthex``, ``ufw``, ``docker``, ``firewalld`` or
    ``administrator``. ``ports`` is like ``80``, ``8000-8100`` or ``80, 443``; an empty word is
    any. ``expires_at_seconds`` is Unix time, 0 for never.
    """

    backend: str
    id: str
    direction: str
    action: str
    protocol: str = ""
    ports: str = ""
    source: str = ""
    destination: str = ""
    interface: str = ""
    to: str = ""
    masquerade: bool = False
    limit_per_minute: int = 0
    owner: str = "administrator"
    comment: str = ""
    expires_at_seconds: int = 0
    is_expired: bool = False
    run: str = ""
    place: str = ""
    raw: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallSettings:
    """What the node's policy says of its firewall.

    ``always_allow`` are sources and the TCP ports that they always reach, 0 for every port.
    """

    always_allow: tuple[tuple[str, int], ...] = ()
    rollback_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictFact:
    """What would become of a new connection: ``accept``, ``drop`` or ``unknown``.

    ``rule`` is the one that decides, in the backend's words, with its place before it; ``why``
    tells which rules cannot be judged. ``forwarded_to`` is ``address:port`` where the connection
    would be sent elsewhere.
    """

    verdict: str
    rule: str = ""
    why: str = ""
    forwarded_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReachFact:
    """From where a port can be reached: ``local``, ``networks``, ``anywhere`` or ``unknown``.

    ``networks`` are those that reach it, or, for ``anywhere``, ``excepted`` those that do not.
    """

    scope: str
    networks: tuple[str, ...] = ()
    excepted: tuple[str, ...] = ()
    rule: str = ""
    why: str = ""
    forwarded_to: str = ""


class FirewallView(Protocol):
    """The packet filters of a node, as they were at one look."""

    @property
    def manager(self) -> str:
        """Name the backend by which changes go: that which is in force, ``nftables`` if none."""
        ...

    @property
    def backends(self) -> Sequence[FirewallBackendFact]:
        """The backends that this release knows."""
        ...

    @property
    def policies(self) -> Sequence[FirewallPolicyFact]:
        """What is done with what no rule decided."""
        ...

    @property
    def rules(self) -> Sequence[FirewallRuleFact]:
        """The rules of every backend, in the order in which each judges them."""
        ...

    @property
    def forwards(self) -> Sequence[FirewallRuleFact]:
        """The rules that send connections to this machine elsewhere."""
        ...

    @property
    def own_table(self) -> str:
        """The table ``inet narthex`` as nft prints it; empty where there is none."""
        ...

    @property
    def text(self) -> str:
        """The whole ruleset as nft prints it."""
        ...

    @property
    def settings(self) -> FirewallSettings:
        """What the node's policy says."""
        ...

    @property
    def now_seconds(self) -> float:
        """When they were looked at, in Unix time."""
        ...

    def judge(
        self, protocol: str, port: int, source: str, *, own_table: str | None = None
    ) -> VerdictFact:
        """Tell what would become of a new connection from an address to a port here.

        ``own_table`` pretends that our table were this text, as nft prints it; empty for none.
        """
        ...

    def reach(
        self, protocol: str, address: str, port: int, *, own_table: str | None = None
    ) -> ReachFact:
        """Tell from where a listener at an address of this machine can be reached."""
        ...


class FirewallFacts(Protocol):
    """Read the packet filters."""

    def look(self) -> FirewallView:
        """Read them all. Raises UnavailableError where the kernel's rules cannot be read."""
        ...
