"""Bring the sources together as the facts that plans and queries read."""

from dataclasses import dataclass

from narthex_exporter.contract.containerfacts import ContainerFacts
from narthex_exporter.contract.facts import (
    AccountFacts,
    FileFacts,
    HostFacts,
    ProcessFacts,
    SessionFacts,
    SocketFacts,
    SupervisorFacts,
    UnitFacts,
)
from narthex_exporter.contract.firewallfacts import FirewallFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What this node is like, read when asked for."""

    processes: ProcessFacts
    units: UnitFacts
    host: HostFacts
    sessions: SessionFacts
    sockets: SocketFacts
    files: FileFacts
    containers: ContainerFacts
    accounts: AccountFacts
    supervisor: SupervisorFacts
    firewall: FirewallFacts
