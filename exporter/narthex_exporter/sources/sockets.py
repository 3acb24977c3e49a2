"""Know who listens and who is connected, with the process, unit or container that holds it."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil

from narthex_exporter.contract.facts import ConnectionFact, ListenerFact, ProcessFact
from narthex_exporter.sources.processes import Processes

_PROTOCOLS: Final = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """The sockets of our network namespace. Holders of others' sockets are seen by root only."""

    processes: Processes

    def listeners(self) -> Sequence[ListenerFact]:
        """List who listens: TCP in LISTEN, and UDP that has no peer."""
        found = {}
        for one in psutil.net_connections("inet"):
            if one.raddr or not one.laddr:
                continue
            if one.type == socket.SOCK_STREAM and one.status != psutil.CONN_LISTEN:
                continue
            holder = self.processes.get(one.pid) if one.pid else None
            fact = ListenerFact(
                protocol=_PROTOCOLS[one.type],
                address=plain(one.laddr.ip),
                port=one.laddr.port,
                first_seen_seconds=holder.started_at_seconds if holder is not None else 0.0,
                **self._holder(one.pid),
            )
            found[fact.protocol, fact.address, fact.port, fact.pid] = fact
        return [fact for _, fact in sorted(found.items())]

    def connections(self) -> Sequence[ConnectionFact]:
        """List established connections, those of this machine with itself left out."""
        found = []
        for one in psutil.net_connections("inet"):
            if (
                not one.raddr
                or not one.laddr
                or (one.type == socket.SOCK_STREAM and one.status != psutil.CONN_ESTABLISHED)
            ):
                continue
            peer, local = plain(one.raddr.ip), plain(one.laddr.ip)
            if peer == local or ipaddress.ip_address(peer.partition("%")[0]).is_loopback:
                continue
            found.append(
                ConnectionFact(
                    protocol=_PROTOCOLS[one.type],
                    local_address=local,
                    local_port=one.laddr.port,
                    peer_address=peer,
                    peer_port=one.raddr.port,
                    **self._holder(one.pid),
                )
            )
        return found

    def _holder(self, pid: int | None) -> dict[str, Any]:
        holder: ProcessFact | None = self.processes.get(pid) if pid else None
        if holder is None:
            return {}
        return {
            "pid": holder.pid,
            "comm": holder.comm,
            "unit": holder.owner_unit,
            "container": holder.owner_container,
        }


def plain(address: str) -> str:
    """Write an IPv4 address as such also where an IPv6 socket holds it."""
    mapped = address.removeprefix("::ffff:")
    return mapped if "." in mapped else address
