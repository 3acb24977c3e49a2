"""Put the actor together: the one place that knows every part of it."""

import contextlib
import fcntl
import importlib.metadata
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from narthex_exporter.actor.audit import Audit
from narthex_exporter.actor.authority import Authority, LiveAuthority
from narthex_exporter.actor.engine import Engine
from narthex_exporter.actor.jobs import Jobs
from narthex_exporter.actor.node import CATALOGUE, Config, open_node
from narthex_exporter.actor.nonces import Nonces
from narthex_exporter.actor.peers import naming
from narthex_exporter.actor.policy import OFF, load_policy
from narthex_exporter.actor.status import Status
from narthex_exporter.actor.store import RunStore
from narthex_exporter.actor.tally import Tally
from narthex_exporter.actor.terminal import Terminals
from narthex_exporter.actor.throttle import Throttle
from narthex_exporter.actor.web import Gate, build_app
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.errors import ConfigError
from narthex_exporter.signals import Signals
from narthex_exporter.sources.host import Host
from narthex_exporter.transport.server import Limits, Listener, Server, WSGIApp, listen_unix

log = logging.getLogger(__name__)

_FIRST_PASSED_DESCRIPTOR: Final = 3  # SD_LISTEN_FDS_START, see sd_listen_fds(3)


@dataclass(slots=True, kw_only=True)
class Actor:
    """A built actor: its application, and what can be reloaded or must be closed."""

    config: Config
    authority: LiveAuthority
    engine: Engine
    audit: Audit
    store: RunStore
    tally: Tally
    wsgi: WSGIApp = field(init=False)

    def reload(self) -> None:
        """Read policy and ticket keys again. A wrong policy turns the actor off, loudly."""
        try:
            self.engine.policy = load_policy(self.config.policy_file)
        except ConfigError as error:
            self.engine.policy = OFF
            log.error("policy.wrong", extra={"error": str(error), "mode": "off"})  # noqa: TRY400
        self.authority.reload()
        self.audit.append("actor.reloaded", policy=self.engine.policy.summary())

    def close(self) -> None:
        """Let runs finish for a while, then close the files."""
        self.engine.stop()
        self.audit.append("actor.stopped")
        self.tally.save()
        self.store.close()
        self.audit.close()


@contextlib.contextmanager
def build(config: Config, *, catalogue: Catalogue = CATALOGUE) -> Iterator[Actor]:
    """Build an actor for a while, failing closed. Raises NarthexError."""
    policy = load_policy(config.policy_file)
    make_state_dir(config.state_dir)
    authority = LiveAuthority(node_dir=config.node_dir, state_dir=config.state_dir)
    boot_id = Host().get().boot_id
    with contextlib.ExitStack() as opened:
        opened.enter_context(alone(config.state_dir))
        audit = Audit(config.state_dir / "audit.jsonl", boot_id=boot_id)
        opened.callback(audit.close)
        store = RunStore(config.runs_file)
        authority.changed = _recording(audit)
        opened.callback(store.close)
        hands = open_node(config)
        engine = Engine(
            catalogue=catalogue,
            facts=hands.facts,
            policy=policy,
            store=store,
            audit=audit,
            runner=hands.runner,
            jobs=Jobs(
                folder=config.jobs_dir, launcher=hands.launcher, arguments=config.arguments()
            ),
            confirmations=hands.confirmations,
            needs={
                "systemd": hands.facts.units.unavailable,
                "containers": hands.facts.containers.unavailable,
                "supervisor": hands.facts.supervisor.unavailable,
            },
        )
        instance = secrets.token_hex(16)
        version = importlib.metadata.version("narthex")
        tally = Tally(
            path=config.state_dir / "sums.json",
            cluster=authority.get().cluster,
            node=authority.get().node,
            actions=frozenset(catalogue.actions),
        )
        tally.catch_up(audit)
        status = Status(path=config.status_file, engine=engine, tally=tally)
        audit.written = _counting(tally, status)
        audit.append("actor.started", instance=instance, version=version, policy=policy.summary())
        engine.recover()
        actor = Actor(
            config=config,
            authority=authority,
            engine=engine,
            audit=audit,
            store=store,
            tally=tally,
        )
        actor.wsgi = build_app(
            engine,
            Gate(
                authority=authority.get,
                instance=instance,
                boot_id=boot_id,
                version=version,
                nonces=Nonces(),
                audit=audit,
                refusals=Throttle(),
                terminals=Terminals(
                    engine=engine,
                    sessions=hands.processes,
                    sockets=tuple(config.engine_sockets.values()),
                ),
            ),
        )
        status.start()
        opened.callback(status.stop)
        yield actor
        actor.close()


def _counting(tally: Tally, status: Status) -> Callable[[dict[str, Any]], None]:
    def written(row: dict[str, Any]) -> None:
        tally.note(row)
        status.changed()

    return written


def _recording(audit: Audit) -> Callable[[Authority], None]:
    def changed(authority: Authority) -> None:
        audit.append("keys.changed", version=authority.version, kids=sorted(authority.keys))

    return changed


@contextlib.contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Hold the state folder: a second actor would take the first one's runs for lost."""
    with (state_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another actor uses {state_dir}", hint="stop it first, or choose another folder"
            ) from error
        yield


def serve(config: Config, *, environment: Mapping[str, str] = os.environ) -> None:
    """Run the actor until SIGTERM or SIGINT; SIGHUP reloads policy and keys."""
    with Signals() as signals, build(config) as actor:
        passed = passed_socket(environment)
        sock = naming(passed or listen_unix(config.socket, mode=0o660))
        server = Server(
            app=actor.wsgi,
            listeners=[Listener(sock=sock, lent=passed is not None)],
            limits=Limits(connections=128, connections_per_peer=128),
        )
        with server:
            log.info("actor.ready", extra={"socket": str(config.socket), "pid": os.getpid()})
            while signals.wait() == signal.SIGHUP:
                actor.reload()
            # Before the server stops: it lets followers of a run see its end.
            actor.engine.stop()
        if passed is None:
            config.socket.unlink(missing_ok=True)


def passed_socket(environment: Mapping[str, str]) -> socket.socket | None:
    """Take the socket that systemd listens on for us, if it does. See sd_listen_fds(3)."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return None
    if environment.get("LISTEN_FDS") != "1":
        raise ConfigError("systemd passes more than one socket", hint="see narthex-actor.socket")
    sock = socket.socket(fileno=_FIRST_PASSED_DESCRIPTOR)
    sock.set_inheritable(False)
    if sock.family != socket.AF_UNIX:
        sock.close()
        raise ConfigError(
            "the actor listens on a Unix socket only", hint="see narthex-actor.socket"
        )
    return sock


def make_state_dir(path: Path) -> None:
    """Make the actor's own folder, which nobody else may enter. Raises ConfigError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise ConfigError(f"cannot make {path}: {error.strerror}") from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigError(f"{path} must belong to the actor alone", hint=f"run: chmod 700 {path}")
