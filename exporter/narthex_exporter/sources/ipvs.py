"""Read what the kernel's load balancer did: /proc/net/ip_vs and ip_vs_stats."""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_HEX: Final = 16
_STATS: Final = 5
_REAL_WORDS: Final = 6
_VIRTUAL_WORDS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A real server behind a virtual one; the latter has an address or, for FWM, a mark."""

    proto: str
    local_address: str
    local_port: str
    local_mark: str
    remote_address: str
    remote_port: str
    weight: int
    active: int
    inactive: int


def parse_stats(text: str) -> tuple[int, ...]:
    """Give connections, packets in and out, bytes in and out. Raises ValueError."""
    lines = text.splitlines()
    numbers = tuple(int(word, _HEX) for word in (lines[2].split() if len(lines) > 2 else ()))  # noqa: PLR2004
    if len(numbers) != _STATS:
        raise ValueError("ip_vs_stats has no line of five totals")
    return numbers


def parse_backends(text: str) -> Iterator[Backend]:
    """Parse /proc/net/ip_vs. Raises ValueError."""
    proto = address = mark = ""
    port = "0"
    for line in text.splitlines():
        words = line.split()
        if len(words) < _VIRTUAL_WORDS:
            continue
        if words[0] in {"TCP", "UDP", "SCTP"}:
            proto, mark = words[0], ""
            address, port = parse_address(words[1])
        elif words[0] == "FWM":
            proto, mark, address, port = "FWM", words[1], "", "0"
        elif words[0] == "->" and proto and len(words) >= _REAL_WORDS:
            remote_address, remote_port = parse_address(words[1])
            yield Backend(
                proto=proto,
                local_address=address,
                local_port=port,
                local_mark=mark,
                remote_address=remote_address,
                remote_port=remote_port,
                weight=int(words[3]),
                active=int(words[4]),
                inactive=int(words[5]),
            )


def parse_address(text: str) -> tuple[str, str]:
    """Give address and port of ``C0A80016:0CEA`` or ``[2620:…]:0CEA``. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if host.startswith("["):
        address = str(ipaddress.IPv6Address(host.strip("[]")))
    else:
        address = str(ipaddress.IPv4Address(bytes.fromhex(host)))
    return address, str(int(port, _HEX))
