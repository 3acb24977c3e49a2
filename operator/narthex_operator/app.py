"""The operator's composition root: build every part from the configuration, serve, stop."""

import importlib.metadata
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from ssl import TLSVersion
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from sqlalchemy.exc import SQLAlchemyError

from narthex_exporter.actions import CATALOGUE as ACTIONS
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.follows import CATALOGUE as FOLLOWS
from narthex_exporter.notify import notify
from narthex_exporter.queries import CATALOGUE as QUERIES
from narthex_exporter.signals import Signals
from narthex_exporter.transport.server import Limits, Listener, Server, WSGIApp, listen_tcp
from narthex_exporter.transport.tls import ReloadingContext, TLSFiles
from narthex_operator.api import Machinery
from narthex_operator.clients.alertmanager import Alertmanager, alertmanager_client
from narthex_operator.clients.loki import Loki, loki_client
from narthex_operator.clients.node import NodeClient, operator_files
from narthex_operator.clients.prometheus import Prometheus, prometheus_client
from narthex_operator.config import ConfigError, EndpointConfig, OperatorConfig, split_address
from narthex_operator.errors import DeniedError, OperatorError, UnreachableError
from narthex_operator.gateway import build_gateway
from narthex_operator.jobs import Job, scheduler
from narthex_operator.pipeline import MachineToken, Pipeline, machine_actor
from narthex_operator.services.access import Actor
from narthex_operator.services.alerts import AlertService
from narthex_operator.services.approvals import ApprovalService
from narthex_operator.services.asking import AskingService
from narthex_operator.services.authority import Authority
from narthex_operator.services.bootstrap import (
    CoreServices,
    open_services,
    read_secret,
    refresh_certificates,
)
from narthex_operator.services.clockwork import TICK_SECONDS as CLOCK_SECONDS
from narthex_operator.services.clockwork import Clockwork
from narthex_operator.services.delivery import Delivery
from narthex_operator.services.driver import TICK_SECONDS as DRIVE_SECONDS
from narthex_operator.services.driver import FleetDriver
from narthex_operator.services.fleet import Check, FleetService
from narthex_operator.services.fleetruns import FleetRunService
from narthex_operator.services.gates import Gates
from narthex_operator.services.interfaces import Services
from narthex_operator.services.leases import Leases
from narthex_operator.services.live import LiveService
from narthex_operator.services.logs import LogService
from narthex_operator.services.retention import Retention
from narthex_operator.services.runs import RunService
from narthex_operator.services.schedules import ScheduleService
from narthex_operator.services.verification import Verifier
from narthex_operator.services.witness import Witness
from narthex_operator.telemetry import build_registry
from narthex_operator.webapp import create_app
from narthex_panel import build as build_panel
from narthex_panel import render_error

log = logging.getLogger(__name__)

CATALOGUE: Final = Catalogue(actions=ACTIONS, queries=QUERIES, follows=FOLLOWS)
# Behind a reverse proxy every browser has one address, and each open page one live stream.
WEB_LIMITS: Final = Limits(
    connections=512, connections_per_peer=384, upgrades=256, upgrades_per_peer=192
)
GATEWAY_LIMITS: Final = Limits(body_bytes=4 << 20, connections=1024, connections_per_peer=128)
DRAIN_SECONDS: Final = 10.0
_BACKGROUND: Final = "background"
_RECONCILE_SECONDS: Final = 5.0
_WATCH_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 15.0
_WITNESS_SECONDS: Final = 60.0
_VERIFY_SECONDS: Final = 86_400.0
_CERTIFICATE_SECONDS: Final = 3600.0
_RETENTION_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Whom the operator asks."""

    nodes: NodeClient
    prometheus: Prometheus
    alertmanager: Alertmanager
    logs: Loki


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the operator is made of, before it listens."""

    config: OperatorConfig
    version: str
    core: CoreServices
    clients: Clients
    delivery: Delivery
    alerts: AlertService
    leases: Leases
    driver: FleetDriver
    clockwork: Clockwork
    services: Services
    witness: Witness
    verifier: Verifier
    registry: CollectorRegistry
    durations: Histogram

    def application(self) -> WSGIApp:
        """Build the web application."""
        pipeline = Pipeline(
            accounts=self.core.accounts,
            origin=self.config.web.external_url,
            hosts=self.config.web.hosts,
            machines=(
                MachineToken(token=read_secret(self.config.secrets_dir, "sd.token"),
                             actor=machine_actor("prometheus")),
                MachineToken(token=read_secret(self.config.secrets_dir, "webhook.token"),
                             actor=machine_actor("alertmanager")),
            ),
            render_error=render_error,
            denied=self.note_denial,
            durations=self.durations,
        )  # fmt: skip
        machinery = Machinery(
            enrolment=self.core.nodes,
            registry=self.registry,
            refresh_seconds=max(3, self.config.scrape_interval_seconds),
            amiss=self.amiss,
        )
        return create_app(
            self.services,
            machinery=machinery,
            pipeline=pipeline,
            catalogue=CATALOGUE,
            version=self.version,
            panel=lambda services: build_panel(services, version=self.version),
        )

    def jobs(self) -> tuple[Job, ...]:
        """Name what is done in the background."""
        return (
            # One of several operators does these; the others stand by.
            *(
                Job(name=name, seconds=seconds, run=partial(self._alone, run))
                for name, seconds, run in (
                    ("reconcile", _RECONCILE_SECONDS, self.delivery.reconcile),
                    ("checkpoint", _RECONCILE_SECONDS, self._checkpoint),
                    ("sessions", _CERTIFICATE_SECONDS, self.core.accounts.forget_old_sessions),
                    ("retention", _RETENTION_SECONDS, self._tidy),
                    ("node-audits", _WITNESS_SECONDS, self.witness.poll),
                )
            ),
            # These keep what is this operator's own, or ask for the lease themselves.
            Job(name="confirm", seconds=_WATCH_SECONDS, run=self.delivery.watch),
            Job(name="verification", seconds=_VERIFY_SECONDS, run=self.verifier.run),
            Job(name="alerts", seconds=_POLL_SECONDS, run=self.alerts.poll),
            Job(name="certificates", seconds=_CERTIFICATE_SECONDS, run=self._renew),
            Job(name="fleet-runs", seconds=DRIVE_SECONDS, run=self.driver.tick, overlap=4),
            Job(name="schedules", seconds=CLOCK_SECONDS, run=self.clockwork.tick, overlap=4),
        )

    def amiss(self) -> str:
        """Say why the operator cannot do its work; empty when it can.

        Anybody may ask: the log has the details, the answer has none.
        """
        checks: tuple[tuple[str, Callable[[], object]], ...] = (
            ("the signer", self.core.signer.ticket_keys),
            ("the database", self.core.audit.head),
        )
        for name, check in checks:
            try:
                check()
            except (OperatorError, SQLAlchemyError) as error:
                log.warning("operator.not-ready", extra={"part": name, "error": str(error)})
                return f"{name} does not answer"
        return ""

    def note_denial(self, actor: Actor, what: str, error: DeniedError) -> None:
        """Write down who was refused what."""
        self.core.audit.note(
            actor, "permission.denied", outcome="denied", details={"what": what, "why": str(error)}
        )

    def close(self) -> None:
        """Stop what works in the background and let go of the database."""
        self.clockwork.stop()
        self.driver.stop()
        self.delivery.stop()
        self.leases.release()
        self.core.close()

    def _alone(self, run: Callable[[], object]) -> None:
        if self.leases.leads(_BACKGROUND):
            run()

    def _checkpoint(self) -> None:
        try:
            self.core.audit.checkpoint()
        except UnreachableError as error:
            log.warning("audit.unwitnessed", extra={"error": str(error)})

    def _tidy(self) -> None:
        Retention(database=self.core.database).tidy()

    def _renew(self) -> None:
        refresh_certificates(self.config)


def build(config: OperatorConfig) -> Parts:
    """Build every part. Raises NarthexError for what is not there."""
    version = importlib.metadata.version("narthex")
    core = open_services(config)
    try:
        return _assemble(config, core, version)
    except BaseException:
        core.close()
        raise


def _assemble(config: OperatorConfig, core: CoreServices, version: str) -> Parts:
    database, audit = core.database, core.audit
    database.upgrade()
    # Several operators can share a PostgreSQL; SQLite's file has one.
    alone = database.engine.dialect.name == "sqlite"
    leases = Leases(database=database, alone=alone)
    clients = Clients(
        nodes=NodeClient(
            cluster=core.signer.ca().cluster,
            tls=operator_files(config.pki_dir),
            signer=core.signer,
            audit_head=audit.head,
        ),
        prometheus=prometheus_client(config.prometheus_url),
        alertmanager=alertmanager_client(config.alertmanager_url),
        logs=loki_client(config.logs_url),
    )
    authority = Authority(catalogue=CATALOGUE, require=config.require_approvals)
    delivery = Delivery(
        database=database,
        audit=audit,
        nodes=clients.nodes,
        authority=authority,
        ssh_port=config.ssh_port,
        alone=alone,
    )
    alerts = AlertService(
        database=database,
        audit=audit,
        alertmanager=clients.alertmanager,
        prometheus=clients.prometheus,
    )
    runs = RunService(
        database=database,
        nodes=core.nodes,
        client=clients.nodes,
        audit=audit,
        delivery=delivery,
        catalogue=CATALOGUE,
        authority=authority,
    )
    waves = _waves(core, clients, runs, leases)
    services = Services(
        accounts=core.accounts,
        nodes=core.nodes,
        fleet=FleetService(
            nodes=core.nodes,
            prometheus=clients.prometheus,
            scrape_seconds=config.scrape_interval_seconds,
            checks=_checks(core, clients, alerts),
        ),
        runs=runs,
        asking=AskingService(database=database, client=clients.nodes, catalogue=CATALOGUE),
        approvals=ApprovalService(
            database=database, audit=audit, delivery=delivery, authority=authority
        ),
        fleet_runs=waves.fleet_runs,
        schedules=waves.schedules,
        audit=audit,
        alerts=alerts,
        logs=LogService(nodes=core.nodes, loki=clients.logs),
        live=LiveService(
            nodes=core.nodes, client=clients.nodes, runs=runs, audit=audit, catalogue=CATALOGUE
        ),
    )
    witness = Witness(database=database, audit=audit, nodes=clients.nodes)
    verifier = Verifier(audit=audit, witness=witness)
    registry, durations = build_registry(
        core.database,
        version=version,
        watchdog_at=lambda: alerts.watchdog_at,
        verified=lambda: verifier.last,
    )
    return Parts(
        config=config,
        version=version,
        core=core,
        clients=clients,
        delivery=delivery,
        alerts=alerts,
        leases=leases,
        driver=waves.driver,
        clockwork=waves.clockwork,
        services=services,
        witness=witness,
        verifier=verifier,
        registry=registry,
        durations=durations,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waves:
    """What carries fleet runs and schedules out."""

    fleet_runs: FleetRunService
    driver: FleetDriver
    clockwork: Clockwork
    schedules: ScheduleService


def _waves(core: CoreServices, clients: Clients, runs: RunService, leases: Leases) -> _Waves:
    gates = Gates(prometheus=clients.prometheus)
    fleet_runs = FleetRunService(
        database=core.database, audit=core.audit, runs=runs, gates=gates, catalogue=CATALOGUE
    )
    driver = FleetDriver(
        database=core.database,
        audit=core.audit,
        runs=runs,
        delivery=runs.delivery,
        subjects=core.accounts,
        gates=gates,
        leases=leases,
        catalogue=CATALOGUE,
    )
    clockwork = Clockwork(
        database=core.database,
        audit=core.audit,
        fleet_runs=fleet_runs,
        subjects=core.accounts,
        leases=leases,
        catalogue=CATALOGUE,
    )
    schedules = ScheduleService(
        database=core.database,
        audit=core.audit,
        gates=gates,
        clockwork=clockwork,
        catalogue=CATALOGUE,
    )
    return _Waves(fleet_runs=fleet_runs, driver=driver, clockwork=clockwork, schedules=schedules)


def serve(config: OperatorConfig) -> None:
    """Run the operator until SIGTERM or SIGINT. Raises NarthexError when it cannot start."""
    with Signals((signal.SIGTERM, signal.SIGINT)) as signals, running(config):
        notify("READY=1")
        log.info("operator.ready", extra={"url": config.web.external_url})
        signals.wait()
        notify("STOPPING=1")
    log.info("operator.stopped")


@contextmanager
def running(config: OperatorConfig) -> Iterator[Parts]:
    """Listen and work in the background while the context is open."""
    _refuse_debugging(os.environ)
    with ExitStack() as stack:
        parts = build(config)
        stack.callback(parts.close)
        web = _server(
            parts.application(), config.web, minimum=TLSVersion.TLSv1_2, limits=WEB_LIMITS
        )
        stack.callback(web.stop, drain_seconds=DRAIN_SECONDS)
        gateway = _server(
            build_gateway(
                name_of=parts.core.nodes.name_of,
                logs_url=config.logs_url,
                ticket_keys=parts.core.signer.ticket_keys,
                registry=parts.registry,
            ),
            config.gateway,
            ca=config.pki_dir / "ca.pem",
            cluster=parts.core.signer.ca().cluster,
            limits=GATEWAY_LIMITS,
        )
        stack.callback(gateway.stop, drain_seconds=DRAIN_SECONDS)
        for server in (web, gateway):
            server.start()
        background = scheduler(parts.jobs())
        background.start()
        stack.callback(background.shutdown, wait=True)
        yield parts


def _server(
    app: WSGIApp,
    endpoint: EndpointConfig,
    *,
    limits: Limits,
    minimum: TLSVersion = TLSVersion.TLSv1_3,
    ca: Path | None = None,
    cluster: str | None = None,
) -> Server:
    files = TLSFiles(cert=endpoint.cert_file, key=endpoint.key_file, ca=ca)
    listener = Listener(
        sock=listen_tcp(*split_address(endpoint.listen)),
        tls=ReloadingContext(files, minimum=minimum),
        cluster=cluster,
        scheme="https",
    )
    return Server(app=app, listeners=(listener,), limits=limits)


def _checks(core: CoreServices, clients: Clients, alerts: AlertService) -> tuple[Check, ...]:
    def told(check: Callable[[], object], well: str) -> Callable[[], str]:
        def look() -> str:
            check()
            return well

        return look

    def watchdog() -> str:
        at = alerts.watchdog_at
        return f"heard of at {at:%H:%M:%S} UTC" if at else "not heard of since the start"

    return (
        Check(name="Signer", look=told(core.signer.ticket_keys, "signs")),
        Check(name="Database", look=told(core.audit.head, "answers")),
        Check(name="Prometheus", look=told(clients.prometheus.check, "ready")),
        Check(name="Alertmanager", look=told(clients.alertmanager.check, "ready")),
        Check(name="Log store", look=told(clients.logs.check, "ready")),
        Check(name="Watchdog alert", look=watchdog),
    )


def _refuse_debugging(environment: Mapping[str, str]) -> None:
    """Flask's debugger lets whoever reaches it run code: it must not even be asked for."""
    wanted = environment.get("FLASK_DEBUG", "").lower()
    if wanted not in {"", "0", "false", "no"}:
        raise ConfigError("FLASK_DEBUG is set; the operator never debugs", hint="unset it")
