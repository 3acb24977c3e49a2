"""Put the exporter together: sources, collectors, web server, log shipper, renewal of its key."""

import contextlib
import json
import logging
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from narthex_exporter.actorlink import ActorLink
from narthex_exporter.collectors import MODULES, load
from narthex_exporter.collectors.background import Background
from narthex_exporter.collectors.probes import Probes
from narthex_exporter.collectors.scrape import Scraper
from narthex_exporter.collectors.spec import Collector, Node, Option, Sample
from narthex_exporter.config import Config
from narthex_exporter.errors import ConfigError, NarthexError
from narthex_exporter.notify import notify, watchdog_seconds
from narthex_exporter.selfmetrics import Certificates, Reloads, Requests, SelfMetrics
from narthex_exporter.signals import Signals
from narthex_exporter.sources.files import Files
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs
from narthex_exporter.transport.server import Listener, Server, listen_tcp
from narthex_exporter.transport.tls import ContextSource, ReloadingContext, TLSFiles
from narthex_exporter.web import Gate, Web

if TYPE_CHECKING:
    from narthex_exporter.webconfig import WebConfigFile

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
# What does not end it: nothing in time for the watchdog, or the wish to reload.
_GOES_ON = frozenset({None, signal.SIGHUP})


class Part(Protocol):
    """What runs beside the web server and tells how it is doing."""

    def start(self) -> None:
        """Begin to work, in threads of its own."""

    def stop(self) -> None:
        """Stop, and keep what was not done."""

    def samples(self) -> Iterable[Sample]:
        """Give metrics."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFile:
    """What enrolment wrote to ``node.json``."""

    name: str
    cluster: str


@dataclass(slots=True)
class Parts:
    """What runs beside the web server; ``make`` builds it anew from its files."""

    make: Callable[[], list[Part]]
    started: bool = field(default=False, init=False)
    _running: list[Part] = field(default_factory=list, init=False)

    def start(self) -> None:
        """Build and start each part. Raises NarthexError."""
        self._start(self.make())

    def restart(self) -> None:
        """Put freshly built parts in place of those that run; none stops if one is wrong."""
        fresh = self.make()
        self.stop()
        self._start(fresh)

    def stop(self) -> None:
        """Stop each part, the last first."""
        self.started = False
        while self._running:
            self._running.pop().stop()

    def samples(self) -> Iterator[Sample]:
        """Give the metrics of what runs."""
        for part in list(self._running):
            yield from part.samples()

    def _start(self, parts: list[Part]) -> None:
        for part in parts:
            part.start()
            self._running.append(part)
        self.started = True


@dataclass(slots=True, kw_only=True)
class Exporter:
    """A built exporter: what answers, what else runs, what can be reloaded."""

    server: Server
    parts: Parts
    reloads: Reloads
    background: Background
    web_file: "WebConfigFile | None" = None

    def start(self) -> None:
        """Answer, then start the rest."""
        self.server.start()
        self.parts.start()
        self.background.start()

    def stop(self) -> None:
        """Let requests under way end, then stop the rest."""
        self.server.stop(drain_seconds=DRAIN_SECONDS)
        self.background.stop()
        self.background.node.sources.close()
        self.parts.stop()

    def reload(self) -> None:
        """Read configuration files again; one that is wrong keeps what was in use."""
        try:
            if self.web_file is not None:
                self.web_file.reload()
            self.parts.restart()
        except NarthexError as error:
            self.reloads.successful = False
            log.error("reload.failed", extra={"error": str(error)})  # noqa: TRY400 - in words
            return
        self.reloads.successful, self.reloads.time_seconds = True, time.time()
        log.info("reload.done")


def build(config: Config) -> Exporter:
    """Build an exporter; binds its addresses. Raises NarthexError, having bound none."""
    identity = read_node_file(config.state_dir)
    if identity is not None and (config.state_dir / "pki" / "node.pem.next").exists():
        # A crash cut a renewal short. Seldom, and dear: see renewal.
        from narthex_exporter.join import repair  # noqa: PLC0415

        repair(config.state_dir)
    reloads = Reloads(time_seconds=time.time())
    requests = Requests()
    web_file = _web_file(config, reloads)
    parts = Parts(_make_parts(config, identity))
    about = SelfMetrics(
        requests=requests,
        certificates=Certificates(lambda: _certificates(config, web_file)),
        reloads=reloads,
        process=config.exporter_metrics,
        version=config.version,
    )
    node, collectors = make_node(config), choose_collectors(config)
    probes = Probes(config.probes)
    background = Background(
        node=node, collectors=[each for each in collectors if each.interval], look=probes.look
    )
    web = Web(
        scraper=Scraper(node=node, collectors=collectors, background=background, look=probes.look),
        extra=(about.samples, parts.samples),
        requests=requests,
        actor=ActorLink(socket=config.actor_socket),
        ready=lambda: parts.started,
        gate=_gate(web_file),
        telemetry_path=config.telemetry_path,
        max_requests=config.max_requests,
    )
    server = Server(web, _listeners(config, identity, web_file))
    return Exporter(
        server=server, parts=parts, reloads=reloads, background=background, web_file=web_file
    )


def run(exporter: Exporter) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reloads."""
    watchdog = watchdog_seconds()
    with Signals() as signals:
        try:
            exporter.start()
            log.info("exporter.ready")
            notify("READY=1")
            while (number := signals.wait(watchdog / 2 if watchdog else None)) in _GOES_ON:
                if number == signal.SIGHUP:
                    notify("RELOADING=1")
                    exporter.reload()
                    notify("READY=1")
                if watchdog and exporter.server.alive:
                    notify("WATCHDOG=1")
        finally:
            notify("STOPPING=1")
            exporter.stop()
            log.info("exporter.stopped")


def choose_collectors(config: Config) -> list[Collector]:
    """Name the collectors that are on."""
    return [
        each
        for each in load(MODULES if config.modules is None else config.modules)
        if config.collectors.get(each.name, each.enabled and not config.disable_defaults)
    ]


def read_node_file(state_dir: Path) -> NodeFile | None:
    """Read what enrolment wrote; None on a node that is not enrolled. Raises ConfigError."""
    path = state_dir / "node.json"
    try:
        data = json.loads(path.read_bytes())
        return NodeFile(name=str(data["name"]), cluster=str(data["cluster"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cannot read {path}: {type(error).__name__}: {error}",
            hint="enrol this node again: narthex join",
        ) from error


def make_node(config: Config) -> Node:
    """Give the node that is watched. Raises ConfigError."""
    settings = {}
    for option, value in config.settings.items():
        try:
            settings[option] = option.parse(value)
        except (ValueError, re.error) as error:
            raise ConfigError(f"{_flag(option, config)}: {value!r}: {error}") from error
    files = Files()
    return Node(
        proc=Procfs(config.procfs, files),
        sys=Sysfs(config.sysfs, files),
        filesystems=Filesystems(procfs=config.procfs, root=config.rootfs),
        paths=Paths(proc=config.procfs, sys=config.sysfs, root=config.rootfs, udev=config.udev),
        settings=settings,
    )


def _flag(option: Option[Any], config: Config) -> str:
    """Name the flag that sets an option."""
    owners = [each.name for each in choose_collectors(config) if option in each.options]
    return option.flag(owners[0] if owners else "…")


def _pki(state_dir: Path) -> TLSFiles:
    pki = state_dir / "pki"
    return TLSFiles(cert=pki / "node.pem", key=pki / "node.key", ca=pki / "ca.pem")


def _gate(file: "WebConfigFile | None") -> Gate | None:
    if file is None:
        return None
    from narthex_exporter.webgate import WebGate  # noqa: PLC0415 - as in _web_file

    return WebGate(lambda: file.config)


def _web_file(config: Config, reloads: Reloads) -> "WebConfigFile | None":
    if config.web_config is None:
        return None
    # Only with such a file: what reads it takes more memory than the rest of the exporter.
    from narthex_exporter.webconfig import WebConfigFile  # noqa: PLC0415

    def note(successful: bool) -> None:  # noqa: FBT001 - a callback's only argument
        reloads.successful = successful
        if successful:
            reloads.time_seconds = time.time()

    file = WebConfigFile(config.web_config, on_reload=note)
    _ = file.config  # a wrong file fails here, not at the first request
    return file


def _certificates(config: Config, web_file: "WebConfigFile | None") -> list[Path]:
    own = _pki(config.state_dir)
    found = [own.cert, *([own.ca] if own.ca else [])]
    tls = web_file.config.tls_server_config if web_file else None
    return [*found, tls.cert_file] if tls else found


def _listeners(
    config: Config, identity: NodeFile | None, web_file: "WebConfigFile | None"
) -> list[Listener]:
    tls: ContextSource | None
    if web_file is None:
        files = _pki(config.state_dir)
        if identity is None or not files.cert.exists():
            raise ConfigError(
                f"this node has no certificate below {config.state_dir / 'pki'}, "
                "and without one the exporter does not listen",
                hint="enrol it with: narthex join, or say how to listen with --web.config.file",
            )
        tls = ReloadingContext(files)
        tls.get()
    else:
        tls = web_file if web_file.config.tls_server_config else None
    with contextlib.ExitStack() as opened:
        listeners = [
            Listener(
                sock=opened.enter_context(listen_tcp(address, port)),
                tls=tls,
                cluster=identity.cluster if identity else None,
                foreign=web_file is not None,
                own_ca=_pki(config.state_dir).ca if identity else None,
            )
            for address, port in config.listen
        ]
        opened.pop_all()
    return listeners


def _make_parts(config: Config, identity: NodeFile | None) -> Callable[[], list[Part]]:
    """Tell how to build what runs beside the web server; imported only where it is used."""

    def make() -> list[Part]:
        parts: list[Part] = []
        if identity is not None:
            from narthex_exporter.renewal import Renewer  # noqa: PLC0415

            parts.append(Renewer(config.state_dir))
        if config.logs.push_url:
            from narthex_exporter.logs.config import load_logs_config  # noqa: PLC0415
            from narthex_exporter.logs.shipper import Shipper  # noqa: PLC0415

            files = _pki(config.state_dir)
            parts.append(
                Shipper(
                    config=load_logs_config(config.logs.file),
                    spool=config.state_dir / "spool.sqlite3",
                    push_url=config.logs.push_url,
                    tls=files if files.cert.exists() else None,
                    labels={"node": identity.name} if identity else {},
                )
            )
        return parts

    return make
