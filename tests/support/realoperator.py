"""A whole operator in this process, with a real signer; its neighbours may be away."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from narthex_operator.app import Parts, running
from narthex_operator.config import EndpointConfig, OperatorConfig, WebConfig
from narthex_operator.services.bootstrap import Bootstrap, bootstrap


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]


def make_config(tmp_path: Path, signer_socket: Path, *, database_url: str = "") -> OperatorConfig:
    web, gateway, prometheus, alertmanager, logs = free_ports(5)
    pki = tmp_path / "pki"
    return OperatorConfig(
        home=tmp_path,
        database_url=database_url or f"sqlite:///{tmp_path / 'operator.sqlite3'}",
        web=WebConfig(
            listen=f"127.0.0.1:{web}",
            external_url=f"https://127.0.0.1:{web}",
            cert_file=pki / "panel.pem",
            key_file=pki / "panel.key",
        ),
        gateway=EndpointConfig(
            listen=f"127.0.0.1:{gateway}",
            external_url=f"https://127.0.0.1:{gateway}",
            cert_file=pki / "gateway.pem",
            key_file=pki / "gateway.key",
        ),
        signer_socket=signer_socket,
        secrets_dir=tmp_path / "secrets",
        pki_dir=pki,
        prometheus_url=f"http://127.0.0.1:{prometheus}",
        alertmanager_url=f"http://127.0.0.1:{alertmanager}",
        logs_url=f"http://127.0.0.1:{logs}",
        scrape_interval_seconds=3,
    )


@dataclass
class Operator:
    """A running operator, and a program that talks to it."""

    config: OperatorConfig
    first: Bootstrap
    parts: Parts
    session: requests.Session

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.session.request(
            method, self.config.web.external_url + path, timeout=10, **more
        )

    def secret(self, name: str) -> dict[str, str]:
        token = (self.config.secrets_dir / name).read_text().strip()
        return {"Authorization": f"Bearer {token}"}


@contextmanager
def run_operator(config: OperatorConfig) -> Iterator[Operator]:
    """Run an operator, made ready as at its first start."""
    first = bootstrap(config)
    with running(config) as parts, requests.Session() as session:
        session.trust_env = False
        session.verify = str(config.pki_dir / "ca.pem")
        session.headers["Authorization"] = f"Bearer {first.api_token}"
        yield Operator(config, first, parts, session)
