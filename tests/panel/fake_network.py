"""Ports, peers and rules as a node would tell them."""

import datetime as dt
from typing import Any

_DOCKER = 'ip nat DOCKER: iifname != "docker0" tcp dport 5432 dnat to 172.17.0.2:5432'


def network_answer(name: str, text: str, *, empty: bool) -> dict[str, Any]:
    """Answer a query about ports or the firewall; ``text`` is what the node says everywhere."""
    if name == "port.list":
        ports = [
            _port(443, "nginx", "nginx.service", "anywhere", text=text, rule="dport 443 accept"),
            _port(22, "sshd", "ssh.service", "networks", networks=["10.0.0.0/24"], text=text,
                  rule="inet narthex guard: ip saddr 10.0.0.0/24 tcp dport 22 accept"),
            _port(5432, "docker-proxy", "docker.service", "anywhere", text=text, rule=_DOCKER,
                  excepted=["10.9.0.0/16"], forwarded_to="172.17.0.2:5432", is_new=True),
            _port(6379, "redis-server", "redis-server.service", "local", text=text,
                  rule="it listens on 127.0.0.1 only"),
            _port(9000, "", "", "unknown", text=text, pid=0,
                  why="these rules cannot be judged: inet f input: meta hour 8-17 accept"),
        ]  # fmt: skip
        return {"ports": [] if empty else ports, "blind": ""}
    if name == "port.connections":
        peers = [
            _peer("10.0.0.5", 19100, "narthex", "narthex-exporter.service", 2, text),
            _peer("203.0.113.9", 443, "nginx", "nginx.service", 41, text),
            _peer("10.0.0.30", 0, "python3", "app.service", 3, text),
        ]
        return {"peers": [] if empty else peers, "total": 0 if empty else 46}
    if name == "firewall.get":
        return _firewall(text, empty=empty)
    ruleset = text or "table inet narthex {\n\tchain guard {\n\t}\n}\n"
    return {"ruleset": ruleset, "own": ruleset, "truncated": False}


def _firewall(text: str, *, empty: bool) -> dict[str, Any]:
    rules = [
        _rule("accept", "22", "10.0.0.0/24", "narthex", text or "office", id="1a2b3c4d",
              run="0190-a", expires_at="2030-01-31T18:00:00Z", text=text),
        _rule("limit", "443", "", "narthex", "", id="2a2b3c4d", limit_per_minute=60, text=text),
        _rule("forward", "5432", "", "docker", "", to="172.17.0.2:5432", text=text),
        _rule("other", "", "", "administrator", "by hand", protocol="", text=text),
    ]  # fmt: skip
    return {
        "backends": [
            {"name": "nftables", "installed": True, "active": True, "is_manager": True, "why": ""},
            {"name": "ufw", "installed": True, "active": False, "is_manager": False, "why": ""},
        ],
        "policies": [
            {"backend": "nftables", "place": "inet narthex guard", "direction": "input",
             "policy": "drop"},
        ],
        "rules": [] if empty else rules,
        "total": 0 if empty else len(rules),
        "always_allow": [{"source": "10.0.0.5/32", "port": 19100}],
        "rollback_seconds": 60.0,
    }  # fmt: skip


def _port(port: int, comm: str, unit: str, reach: str, **more: Any) -> dict[str, Any]:
    text, is_new = more.pop("text"), more.pop("is_new", False)
    age = dt.timedelta(hours=1) if is_new else dt.timedelta(days=30)
    told: dict[str, Any] = {
        "protocol": "tcp", "address": "0.0.0.0", "port": port, "pid": 4000 + port,  # noqa: S104
        "comm": text or comm, "unit": text or unit, "container": "", "reach": reach,
        "first_seen_at": (dt.datetime.now(tz=dt.UTC) - age).isoformat(), "networks": [],
        "excepted": [], "rule": "", "why": "", "forwarded_to": "",
    }  # fmt: skip
    return told | more | ({"rule": text, "why": text} if text else {})


def _peer(peer: str, port: int, comm: str, unit: str, count: int, text: str) -> dict[str, Any]:
    return {
        "peer": peer, "protocol": "tcp", "port": port, "comm": text or comm, "unit": text or unit,
        "container": "", "is_incoming": port > 0, "count": count,
    }  # fmt: skip


def _rule(
    action: str, ports: str, source: str, owner: str, comment: str, *, text: str, **more: Any
) -> dict[str, Any]:
    told: dict[str, Any] = {
        "backend": "nftables", "id": "ip/nat/4", "direction": "input", "action": action,
        "protocol": "tcp", "ports": ports, "source": source, "destination": "", "interface": "",
        "to": "", "limit_per_minute": 0, "owner": owner, "comment": comment, "expires_at": None,
        "is_expired": False, "run": "", "place": "inet narthex guard",
        "raw": text or f"tcp dport {ports} {action}",
    }  # fmt: skip
    return told | more
