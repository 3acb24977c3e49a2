"""Run a real node in this process: the exporter's front with TLS, the actor on its socket."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from narthex_exporter.actor.app import build as build_actor
from narthex_exporter.actor.node import CATALOGUE, Config
from narthex_exporter.actor.transient import PROGRAM
from narthex_exporter.actorlink import ActorLink
from narthex_exporter.collectors import loadavg
from narthex_exporter.collectors.scrape import Scraper
from narthex_exporter.collectors.spec import Node as Sources
from narthex_exporter.contract.spec import Catalogue
from narthex_exporter.durable import write_durably
from narthex_exporter.selfmetrics import Requests
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs
from narthex_exporter.transport.keys import (
    key_pem,
    make_csr,
    new_key,
)
from narthex_exporter.transport.server import (
    Limits,
    Listener,
    Server,
    WSGIApp,
    listen_tcp,
    listen_unix,
)
from narthex_exporter.transport.tls import ReloadingContext, TLSFiles
from narthex_exporter.web import Web
from narthex_operator.clients.node import NodeClient, operator_files
from narthex_operator.db import Database
from narthex_operator.db.models import Node
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.signer.messages import NodeCertificateRequest, RoleCertificateRequest

POLICY = "version: 1\nmode: manage\ndanger: {process: disruptive, service: disruptive}\n"
LIMITS = Limits(connections=256, connections_per_peer=256)


@dataclass
class RealNode:
    """One enrolled node; ``actor()`` turns its actor on for a while."""

    folder: Path
    signer: SignerClient
    id: str = "web-1-3fa9c2"
    name: str = "web-1"
    address: str = ""
    catalogue: Catalogue = CATALOGUE
    program: tuple[str, ...] = PROGRAM
    pki: TLSFiles = field(init=False)

    def __post_init__(self) -> None:
        ca = self.signer.ca()
        pki = self.folder / "pki"
        pki.mkdir(mode=0o700, parents=True)
        self.pki = self.files(self.folder)
        key = new_key()
        request = NodeCertificateRequest(csr=make_csr(key), node=self.id, generation=1)
        write_durably(self.pki.key, key_pem(key))
        write_durably(self.pki.cert, self.signer.node_certificate(request).encode())
        write_durably(pki / "ca.pem", ca.certificate.encode())
        node = {"id": self.id, "name": self.name, "cluster": ca.cluster, "generation": 1}
        (self.folder / "node.json").write_text(json.dumps(node))
        (self.folder / "tickets.json").write_text(json.dumps(self.signer.ticket_keys()))
        (self.folder / "policy.yaml").write_text(POLICY)

    @staticmethod
    def files(folder: Path) -> TLSFiles:
        pki = folder / "pki"
        return TLSFiles(cert=pki / "node.pem", key=pki / "node.key", ca=pki / "ca.pem")

    @property
    def socket(self) -> Path:
        return self.folder / "actor.sock"

    @contextlib.contextmanager
    def actor(self, catalogue: Catalogue | None = None) -> Iterator[None]:
        config = Config(
            node_dir=self.folder,
            state_dir=self.folder / "actor",
            socket=self.socket,
            policy_file=self.folder / "policy.yaml",
            program=self.program,
        )
        with build_actor(config, catalogue=catalogue or self.catalogue) as actor:
            listener = Listener(sock=listen_unix(self.socket, mode=0o660))
            with Server(app=actor.wsgi, listeners=[listener], limits=LIMITS):
                yield
        self.socket.unlink(missing_ok=True)

    @contextlib.contextmanager
    def front(self, app: WSGIApp | None = None) -> Iterator[Server]:
        """Listen as the exporter does, or let another application answer in its place."""
        sock = listen_tcp("127.0.0.1", 0)
        self.address = f"127.0.0.1:{sock.getsockname()[1]}"
        listener = Listener(
            sock=sock, tls=ReloadingContext(self.pki), cluster=self.signer.ca().cluster
        )
        with Server(app=app or self._exporter(), listeners=[listener], limits=LIMITS) as server:
            yield server

    def _exporter(self) -> Web:
        sources = Sources(
            proc=Procfs(Path("/proc")),
            sys=Sysfs(Path("/sys")),
            filesystems=Filesystems(procfs=Path("/proc"), root=Path("/")),
            settings={},
        )
        return Web(
            scraper=Scraper(node=sources, collectors=[loadavg.collect]),
            extra=(),
            requests=Requests(),
            actor=ActorLink(socket=self.socket),
            ready=lambda: True,
        )

    def enter(self, database: Database, *, approved: bool = True) -> None:
        """Write the node's row, as enrolment leaves it."""
        now = datetime.now(UTC)
        with database.session() as session:
            session.add(
                Node(
                    id=self.id,
                    name=self.name,
                    address=self.address or "127.0.0.1:9",
                    added_at=now,
                    enrolled_at=now,
                    approved_at=now if approved else None,
                    generation=1,
                )
            )


def operator_pki(folder: Path, signer: SignerClient) -> TLSFiles:
    """Make the operator's client certificate."""
    files = operator_files(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = new_key()
    request = RoleCertificateRequest(csr=make_csr(key), role="operator", id="main")
    write_durably(files.key, key_pem(key))
    write_durably(files.cert, signer.role_certificate(request).encode())
    write_durably(folder / "ca.pem", signer.ca().certificate.encode())
    return files


def node_client(folder: Path, signer: SignerClient) -> NodeClient:
    """Make a client as the operator has it."""
    return NodeClient(cluster=signer.ca().cluster, tls=operator_pki(folder, signer), signer=signer)
