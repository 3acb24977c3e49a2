"""Bring the whole product up on one machine and keep it up."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml

from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.durable import write_durably
from narthex_exporter.transport.tls import TLSFiles
from narthex_operator.config import OperatorConfig, load_operator_config
from narthex_operator.errors import NotFoundError
from narthex_operator.local.checks import check_ports, check_room, find_binaries
from narthex_operator.local.home import Home, NodeHome, Ports, this_machine
from narthex_operator.local.probes import Probe, ProbeError
from narthex_operator.local.processes import InterruptedStartError, Part, PartError, Supervisor
from narthex_operator.local.runfile import (
    ClientFiles,
    NodeEntry,
    NodePids,
    Panel,
    Pids,
    RunFile,
    ScrapeFiles,
    Url,
    write_json,
    write_private,
)
from narthex_operator.services.access import Role, local_actor
from narthex_operator.services.accounts import MAX_TOKEN_LIFETIME
from narthex_operator.services.bootstrap import (
    ADMIN,
    LOCAL_TOKEN,
    Bootstrap,
    bootstrap,
    open_services,
)
from narthex_operator.services.stackconfig import render_alertmanager, render_prometheus
from narthex_operator.services.views import NodeState

SCRAPE_SECONDS: Final = 3
READY_SECONDS: Final = 60.0
JOIN_LIFETIME: Final = timedelta(minutes=10)

POLICY: Final = """\
# What this node's actor may do; written by `narthex up` for the machine it runs on.
# Safe, reversible and disruptive actions; nothing destructive, nothing that equals root.
# Check it with: narthex actor check-policy {path}
version: 1
mode: manage
danger:
  process: disruptive
  service: disruptive
  supervisor: disruptive
  container: disruptive
  image: disruptive
  volume: reversible
  container-network: disruptive
root_equivalent: []
# The firewall stays as it is until you say from where you administer this machine:
#   danger: {{firewall: disruptive}}
#   firewall: {{always_allow: [{{from: 192.0.2.0/24}}]}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What ``narthex up`` was asked for."""

    home: Home
    ports: Ports
    nodes: int = 1
    listen: str = "127.0.0.1"


@dataclass(slots=True)
class Stack:
    """One installation, from its folder to its running processes."""

    options: Options
    say: Callable[[str], None]
    stopped: Callable[[], bool] = lambda: False
    supervisor: Supervisor = field(init=False)
    config: OperatorConfig = field(init=False)
    first: Bootstrap = field(init=False)
    nodes: list[NodeHome] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.supervisor = Supervisor(changed=self.publish, stopped=self.stopped)

    def bring_up(self) -> None:
        """Start every part and wait until all are ready. Raises NarthexError."""
        home = self.options.home
        home.create()
        check_room(home.path)
        check_ports(self.options.listen, self._ports())
        binaries = find_binaries()
        self.say("starting the signer")
        self._add("signer", ["signer", "--state.dir", home.path / "signer",
                             "--socket", home.signer_socket], self._signer_ready)  # fmt: skip
        self.supervisor.wait_ready(["signer"], timeout_seconds=READY_SECONDS)
        self._configure()
        self.say("starting operator, log store, Prometheus and Alertmanager")
        self._add_logstore()
        self._add_alertmanager(binaries.alertmanager)
        self._add("operator", ["operator", "--config.file", home.operator_config],
                  lambda: self._panel().amiss("/-/ready"))  # fmt: skip
        self._add_prometheus(binaries.prometheus)
        self.supervisor.wait_ready(
            ["operator", "logstore", "alertmanager", "prometheus"], timeout_seconds=READY_SECONDS
        )
        for index in range(self.options.nodes):
            self._add_node(index)
        self.publish()
        names = [f"{kind}@{node.name}" for node in self.nodes for kind in ("exporter", "actor")]
        self.supervisor.wait_ready(names, timeout_seconds=READY_SECONDS)
        self.publish()
        self._wait_scraped()

    def publish(self) -> None:
        """Write run.json and state.json as things are now."""
        home, pid = self.options.home, self.supervisor.pid
        if not self.nodes:
            return
        write_json(home.state_file, {"supervisor": os.getpid(),
                                     "restarts": self.supervisor.restarts()})  # fmt: skip
        write_json(
            home.run_file,
            RunFile(
                panel=Panel(
                    url=self.config.web.external_url,
                    ca_file=str(home.pki / "ca.pem"),
                    credentials_file=str(home.credentials),
                ),
                api_token_file=str(home.api_token),
                prometheus=Url(url=self.config.prometheus_url),
                alertmanager=Url(url=self.config.alertmanager_url),
                logs=Url(url=self.config.logs_url),
                scrape=ScrapeFiles(
                    ca_file=str(home.pki / "ca.pem"),
                    cert_file=str(home.pki / "scrape.pem"),
                    key_file=str(home.pki / "scrape.key"),
                ),
                operator_client=ClientFiles(
                    cert_file=str(home.pki / "operator.pem"),
                    key_file=str(home.pki / "operator.key"),
                ),
                nodes=tuple(
                    NodeEntry(
                        name=node.name,
                        id=json.loads(node.identity.read_text())["id"],
                        url=f"https://127.0.0.1:{self.options.ports.exporter(index)}",
                        pids=NodePids(
                            exporter=pid(f"exporter@{node.name}"), actor=pid(f"actor@{node.name}")
                        ),
                    )
                    for index, node in enumerate(self.nodes)
                ),
                pids=Pids(
                    operator=pid("operator"),
                    signer=pid("signer"),
                    logstore=pid("logstore"),
                    prometheus=pid("prometheus"),
                    alertmanager=pid("alertmanager"),
                ),
            ),
        )

    def run(self) -> None:
        """Keep everything running until told to stop."""
        while not self.stopped():
            self.supervisor.tick()
            time.sleep(0.2)

    def stop(self) -> None:
        """End every part; run.json goes, for nothing runs."""
        self.supervisor.stop()
        self.options.home.run_file.unlink(missing_ok=True)

    def _ports(self) -> Iterator[tuple[str, int]]:
        ports = self.options.ports
        yield from (
            ("operator", ports.operator),
            ("log store", ports.logstore),
            ("Prometheus", ports.prometheus),
            ("Alertmanager", ports.alertmanager),
            ("gateway", ports.gateway),
        )
        for index in range(self.options.nodes):
            yield "exporter", ports.exporter(index)

    def _add(self, name: str, arguments: list[str | Path], ready: Callable[[], str]) -> None:
        argv = (sys.executable, "-Im", "narthex_exporter", *map(str, arguments))
        self.supervisor.add(
            Part(name=name, argv=argv, log=self.options.home.log(name), ready=ready)
        )

    def _signer_ready(self) -> str:
        return "" if self.options.home.signer_socket.is_socket() else "its socket is not there"

    def _panel(self) -> Probe:
        return Probe(port=self.options.ports.operator, ca=self.options.home.pki / "ca.pem")

    def _configure(self) -> None:
        home, ports, listen = self.options.home, self.options.ports, self.options.listen
        reached = "127.0.0.1" if listen == "0.0.0.0" else listen  # noqa: S104 - only compared
        values: dict[str, Any] = {
            "home": str(home.path),
            "database_url": f"sqlite:///{home.path / 'operator.sqlite3'}",
            "web": {
                "listen": f"{listen}:{ports.operator}",
                "external_url": f"https://{reached}:{ports.operator}",
                "cert_file": str(home.pki / "panel.pem"),
                "key_file": str(home.pki / "panel.key"),
            },
            "gateway": {
                "listen": f"{listen}:{ports.gateway}",
                "external_url": f"https://{reached}:{ports.gateway}",
                "cert_file": str(home.pki / "gateway.pem"),
                "key_file": str(home.pki / "gateway.key"),
            },
            "signer_socket": str(home.signer_socket),
            "secrets_dir": str(home.path / "secrets"),
            "pki_dir": str(home.pki),
            "prometheus_url": f"http://127.0.0.1:{ports.prometheus}",
            "alertmanager_url": f"http://127.0.0.1:{ports.alertmanager}",
            "logs_url": f"http://127.0.0.1:{ports.logstore}",
            "scrape_interval_seconds": SCRAPE_SECONDS,
        }
        write_private(home.operator_config, yaml.safe_dump(values, sort_keys=False).encode())
        self.config = load_operator_config(home.operator_config)
        self.first = bootstrap(self.config)
        self._keep_secrets()

    def _keep_secrets(self) -> None:
        """Write the first password and the token; make anew what a crash kept unwritten."""
        home, actor = self.options.home, local_actor("up")
        password, token = self.first.admin_password, self.first.api_token
        with closing(open_services(self.config)) as services:
            if not password and not home.credentials.exists() and self.first.admin_must_change:
                password = services.accounts.reset_password(actor, name=ADMIN)
            if not token and not home.api_token.exists():
                token = services.accounts.create_token(
                    actor, name=LOCAL_TOKEN, role=Role.ADMIN, lifetime=MAX_TOKEN_LIFETIME
                )
        if password or not home.credentials.exists():
            # Empty where the administrator has a password of their own, which nobody knows here.
            write_json(home.credentials, {"user": ADMIN, "password": password})
        if token:
            write_private(home.api_token, f"{token}\n".encode())

    def _add_logstore(self) -> None:
        port = self.options.ports.logstore
        self._add(
            "logstore",
            ["logstore", "--web.listen-address", f"127.0.0.1:{port}",
             "--storage.path", self.options.home.path / "logstore"],
            lambda: Probe(port=port).amiss("/ready"),
        )  # fmt: skip

    def _add_prometheus(self, program: Path) -> None:
        home, port = self.options.home, self.options.ports.prometheus
        file = home.path / "prometheus" / "prometheus.yml"
        write_private(file, render_prometheus(self.config).encode())
        self.supervisor.add(
            Part(
                name="prometheus",
                argv=(
                    str(program),
                    f"--config.file={file}",
                    f"--storage.tsdb.path={home.path / 'prometheus' / 'data'}",
                    "--storage.tsdb.retention.time=15d",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--web.enable-lifecycle",
                    # What fires in the seconds after a start or reload, before Alertmanager is
                    # found again, is dropped: do not wait a minute to tell it again.
                    "--rules.alert.resend-delay=10s",
                ),
                log=home.log("prometheus"),
                ready=lambda: Probe(port=port).amiss("/-/ready"),
            )
        )

    def _add_alertmanager(self, program: Path) -> None:
        home, port = self.options.home, self.options.ports.alertmanager
        file = home.path / "alertmanager.yml"
        write_private(file, render_alertmanager(self.config).encode())
        self.supervisor.add(
            Part(
                name="alertmanager",
                argv=(
                    str(program),
                    f"--config.file={file}",
                    f"--storage.path={home.path / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                    "--cluster.listen-address=",
                ),
                log=home.log("alertmanager"),
                ready=lambda: Probe(port=port).amiss("/-/ready"),
            )
        )

    def _add_node(self, index: int) -> None:
        name = this_machine() if index == 0 else f"{this_machine()}-{index + 1}"
        node = self.options.home.node(name)
        node.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        port = self.options.ports.exporter(index)
        if node.identity.exists():
            self._keep_identity(node, port)
        if not node.identity.exists():
            self.say(f"enrolling {name}")
            self._enrol(node, port)
        if not node.policy.exists():
            node.policy.write_text(POLICY.format(path=node.policy))
            node.policy.chmod(0o644)
        self.nodes.append(node)
        pki = node.path / "pki"
        probe = Probe(
            port=port,
            client=TLSFiles(
                cert=self.options.home.pki / "scrape.pem",
                key=self.options.home.pki / "scrape.key",
                ca=pki / "ca.pem",
            ),
        )
        # One node of this machine reads its logs; five would ship each line five times.
        logs: list[str | Path] = (
            ["--logs.push-url", self.config.gateway.external_url,
             "--logs.config.file", self._logs_config()]
            if index == 0
            else ["--no-logs"]
        )  # fmt: skip
        self._add(
            f"exporter@{name}",
            ["exporter", "--web.listen-address", f"{self._node_address()}:{port}",
             "--state.dir", node.path, "--actor.socket", node.socket,
             "--collector.policy.file", node.policy,
             "--collector.actor.file", node.socket.with_suffix(".json"), *logs],
            lambda: probe.amiss("/-/ready"),
        )  # fmt: skip
        self._add(
            f"actor@{name}",
            ["actor", "--state.dir", node.path, "--actor.state-dir", node.actor,
             "--actor.socket", node.socket, "--policy.file", node.policy,
             "--protect-pid", str(os.getpid())],
            lambda: "" if node.socket.is_socket() else "its socket is not there",
        )  # fmt: skip

    def _node_address(self) -> str:
        return "127.0.0.1"

    def _logs_config(self) -> Path:
        file = self.options.home.path / "logs.json"
        write_private(
            file,
            (json.dumps({"files": [str(self.options.home.log("*"))]}) + "\n").encode(),
        )
        return file

    def _keep_identity(self, node: NodeHome, port: int) -> None:
        """Tell operator and node of moved ports; lay an identity aside that was removed."""
        about = json.loads(node.identity.read_text())
        actor, address = local_actor("up"), f"127.0.0.1:{port}"
        with closing(open_services(self.config)) as services:
            try:
                known = services.nodes.get(actor, about["id"])
            except NotFoundError:
                known = None
            if known is None or known.state is NodeState.REMOVED:
                self.say(f"{node.name} was removed from the operator: it joins anew")
                node.path.rename(node.path.with_name(f"{node.name}.removed-{about['id']}"))
                node.path.mkdir(mode=0o700)
                return
            if known.address != address:
                services.nodes.move(actor, known.id, address=address)
        urls = {
            "operator_url": self.config.web.external_url,
            "gateway_url": self.config.gateway.external_url,
        }
        if urls.items() - about.items():
            content = json.dumps({**about, **urls}, indent=2) + "\n"
            write_durably(node.identity, content.encode(), mode=0o644)

    def _enrol(self, node: NodeHome, port: int) -> None:
        services = open_services(self.config)
        actor = local_actor("up")
        token = services.nodes.add(
            actor, name=node.name, address=f"127.0.0.1:{port}", lifetime=JOIN_LIFETIME
        )
        done = subprocess.run(  # noqa: S603 - argv is built by us
            [sys.executable, "-Im", "narthex_exporter", "join",
             "--operator", self.config.web.external_url, "--ca-pin", token.ca_pin,
             "--state.dir", str(node.path), "--token-file", "-"],
            input=f"{token.token}\n", text=True, capture_output=True, check=False, timeout=60,
        )  # fmt: skip
        if done.returncode:
            raise PartError(f"{node.name} cannot join: {(done.stderr or done.stdout).strip()}")
        services.nodes.approve(actor, node.name)

    def _wait_scraped(self) -> None:
        """Wait until this Prometheus has found and scraped every node."""
        self.say("waiting for the first scrape")
        probe = Probe(port=self.options.ports.prometheus)
        wanted = {node.name for node in self.nodes}
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.stopped():
                raise InterruptedStartError("stopped before all was ready")
            # Its targets, not its samples: those may be an earlier run's.
            wanted -= _scraped(probe)
            if not wanted:
                return
            self.supervisor.tick()
            time.sleep(0.25)
        logs = ", ".join(str(self.options.home.log(f"exporter@{name}")) for name in sorted(wanted))
        self.say(f"Prometheus does not reach {', '.join(sorted(wanted))} yet: see {logs}")


def _scraped(probe: Probe) -> set[str]:
    try:
        targets = probe.json("/api/v1/targets?state=active")["data"]["activeTargets"]
    except (ProbeError, KeyError, TypeError):
        return set()
    return {
        target["labels"].get("node", "")
        for target in targets
        if target["labels"].get("job") == "node" and target["health"] == "up"
    }


@contextmanager
def only_one(home: Home) -> Iterator[None]:
    """Hold the installation's lock. Raises NarthexError when another supervisor holds it."""
    home.create()
    with home.lock_file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise NarthexError(
                f"Narthex runs already in {home.path} (pid {lock.read().strip() or 'unknown'})",
                hint="look with `narthex status`, stop it with script/down, or choose another"
                " NARTHEX_HOME and NARTHEX_PORT_BASE",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)
