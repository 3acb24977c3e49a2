"""Put the log store together: storage, queries, maintenance, web server."""

import contextlib
import ipaddress
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from narthex_exporter.errors import ConfigError
from narthex_exporter.signals import Signals
from narthex_exporter.transport.server import Limits as ServerLimits
from narthex_exporter.transport.server import Listener, Server, listen_tcp
from narthex_logstore.engine import Engine
from narthex_logstore.maintenance import Maintenance, Retention
from narthex_logstore.model import Limits
from narthex_logstore.storage import Store, open_store
from narthex_logstore.telemetry import Telemetry
from narthex_logstore.web import Web


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the flags say."""

    address: str = "127.0.0.1"
    port: int = 19102
    path: Path = Path("/var/lib/narthex/logstore")
    retention: Retention = field(default_factory=Retention)
    exposed: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStore:
    """A running store; ``port`` is the one that was bound."""

    store: Store
    server: Server
    maintenance: Maintenance
    port: int


@contextlib.contextmanager
def running(config: Config) -> Iterator[LogStore]:
    """Run a store until the block ends. Raises NarthexError."""
    _check_address(config)
    limits = config.limits
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(listen_tcp(config.address, config.port))
        store = stack.enter_context(
            open_store(
                config.path, out_of_order_ns=limits.out_of_order_ns, max_streams=limits.streams
            )
        )
        web = Web(
            store=store,
            engine=Engine(store, limits),
            limits=limits,
            telemetry=Telemetry(),
            any_host=config.exposed,
        )
        bounds = ServerLimits(body_bytes=limits.body_bytes)
        server = Server(web, [Listener(sock=sock)], bounds)
        maintenance = Maintenance(store, config.retention)
        maintenance.start()
        stack.callback(maintenance.stop)
        server.start()
        stack.callback(server.stop)
        port = sock.getsockname()[1]
        yield LogStore(store=store, server=server, maintenance=maintenance, port=port)


def run(config: Config) -> None:
    """Serve until SIGTERM or SIGINT."""
    with Signals((signal.SIGTERM, signal.SIGINT)) as signals, running(config):
        signals.wait()


def _check_address(config: Config) -> None:
    try:
        local = ipaddress.ip_address(config.address).is_loopback
    except ValueError:
        local = config.address == "localhost"
    if not local and not config.exposed:
        raise ConfigError(
            f"the log store would listen on {config.address}, where anybody could read and "
            "write logs: like Loki, it asks nobody who they are",
            hint="listen on 127.0.0.1 and let nodes push through the operator's gateway, or, "
            "in a network of its own, add --web.allow-exposure",
        )
