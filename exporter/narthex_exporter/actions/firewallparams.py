"""What firewall actions are told."""

import enum
import ipaddress
from collections.abc import Iterable
from typing import Annotated, Final, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator
from typing_extensions import override

from narthex_exporter.actions.firewallufw import all_own
from narthex_exporter.contract.facts import Facts
from narthex_exporter.contract.spec import Params, Target

_MOST_PORTS: Final = 1024
_ALL: Final = "any"


class PortProtocol(enum.StrEnum):
    """What a port belongs to."""

    TCP = "tcp"
    UDP = "udp"


class DefaultPolicy(enum.StrEnum):
    """What becomes of a new connection that no rule decides."""

    ACCEPT = "accept"
    DROP = "drop"


class FirewallBackend(enum.StrEnum):
    """What can be turned on and off."""

    NFTABLES = "nftables"
    UFW = "ufw"


def _network(text: str) -> str:
    """Write a network as one is written, with its length. Raises ValueError."""
    if not text:
        return ""
    network = ipaddress.ip_network(text)
    return "" if network.prefixlen == 0 else str(network)


Port = Annotated[
    int,
    Field(
        title="Port", description="The port on this node.", examples=[443], ge=1, le=65535,
        strict=True,
    ),
]  # fmt: skip
LastPort = Annotated[
    int,
    Field(
        title="Last port", description="For a range: its last port. 0 for one port only.",
        examples=[0], ge=0, le=65535, strict=True,
    ),
]  # fmt: skip
Source = Annotated[
    str,
    Field(
        title="From",
        description="An address or a network, such as 10.0.0.0/24. Empty for anywhere.",
        examples=["10.0.0.0/24"],
        pattern=r"^[0-9a-fA-F:./]*$",
        max_length=43,
    ),
    AfterValidator(_network),
]
Comment = Annotated[
    str,
    Field(
        title="Comment",
        description="What the rule is for. It stands beside the rule in the node's own tools.",
        examples=["shop, ticket 4711"],
        pattern=r"^[A-Za-z0-9 ._,:/@+()\-]*$",
        max_length=60,
    ),
]
Until = Annotated[
    AwareDatetime | None,
    Field(
        title="Until",
        description="When the rule ends by itself, with its time zone. Empty for never.",
        examples=["2030-01-31T18:00:00Z"],
    ),
]


class FirewallParams(Params):
    """Parameters of every firewall action; one at a time changes a firewall."""

    @property
    @override
    def resource(self) -> str:
        return "firewall/rules"

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("port", (_ALL,), "it concerns every port")


class PortParams(FirewallParams):
    """What names a port, or a range of ports, and who reaches it."""

    protocol: Annotated[PortProtocol, Field(title="Protocol")] = PortProtocol.TCP
    port: Port
    last_port: LastPort = 0
    source: Source = ""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last_port and not self.port < self.last_port < self.port + _MOST_PORTS:
            raise ValueError(
                f"a range ends behind its first port, and holds at most {_MOST_PORTS} ports"
            )
        return self

    @property
    def ports(self) -> str:
        """The port or range in the words of the model."""
        return f"{self.port}-{self.last_port}" if self.last_port else str(self.port)

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        for port in range(self.port, (self.last_port or self.port) + 1):
            yield Target("port", (f"{port}/{self.protocol}", str(port)))


class RuleParams(PortParams):
    """Parameters of firewall.open-port."""

    until: Until = None
    comment: Comment = ""


class LimitParams(PortParams):
    """Parameters of firewall.limit."""

    per_minute: Annotated[
        int,
        Field(
            title="Connections per minute",
            description="New connections from one address; more are dropped.",
            examples=[6], ge=1, le=10_000, strict=True,
        ),
    ] = 6  # fmt: skip
    until: Until = None
    comment: Comment = ""


class SourceParams(FirewallParams):
    """Parameters of what allows or denies a source: to one port, or to all."""

    source: Source
    protocol: Annotated[PortProtocol, Field(title="Protocol")] = PortProtocol.TCP
    port: Annotated[
        int,
        Field(
            title="Port", description="The port on this node, 0 for all of every protocol.",
            examples=[0], ge=0, le=65535, strict=True,
        ),
    ] = 0  # fmt: skip
    until: Until = None
    comment: Comment = ""

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        if not self.port:
            yield from FirewallParams.targets(self, facts)
            return
        yield Target("port", (f"{self.port}/{self.protocol}", str(self.port)))


class ForwardParams(FirewallParams):
    """Parameters of firewall.forward."""

    protocol: Annotated[PortProtocol, Field(title="Protocol")] = PortProtocol.TCP
    port: Port
    to_address: Annotated[
        str,
        Field(
            title="To address", description="The IPv4 address that takes the connections.",
            examples=["10.0.0.5"], pattern=r"^[0-9.]+$", max_length=15,
        ),
        AfterValidator(lambda text: str(ipaddress.IPv4Address(text))),
    ]  # fmt: skip
    to_port: Annotated[int, Field(title="To port", examples=[80], ge=1, le=65535, strict=True)]
    source: Source = ""
    masquerade: Annotated[
        bool,
        Field(
            title="As if from here",
            description="The target sees this node's address, and answers through it.",
        ),
    ] = True
    until: Until = None
    comment: Comment = ""

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        yield Target("port", (f"{self.port}/{self.protocol}", str(self.port)))


class RemoveParams(FirewallParams):
    """Parameters of firewall.remove-rule."""

    rule: Annotated[
        str,
        Field(
            title="Rule", description="The id of a rule that Narthex made.",
            examples=["1a2b3c4d"], pattern=r"^[0-9a-f]{8}$",
        ),
    ]  # fmt: skip

    @override
    def targets(self, facts: Facts) -> Iterable[Target]:
        rule = next((one for one in all_own(facts.firewall.look()) if one.id == self.rule), None)
        if rule is None:
            return  # the plan refuses that
        if not rule.ports:
            yield Target("port", (_ALL,), "the rule concerns every port")
            return
        first, _, last = rule.ports.partition("-")
        for port in range(int(first), int(last or first) + 1):
            yield Target("port", (f"{port}/{rule.protocol}", str(port)))


class PolicyParams(FirewallParams):
    """Parameters of firewall.set-default-policy."""

    policy: Annotated[
        DefaultPolicy,
        Field(title="Policy", description="For new connections to this node without a rule."),
    ]


class BackendParams(FirewallParams):
    """Parameters of what turns a backend on or off."""

    backend: Annotated[
        FirewallBackend, Field(title="Backend", description="nftables means Narthex's own table.")
    ] = FirewallBackend.NFTABLES
