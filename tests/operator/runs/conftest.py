"""The runs service with a real signer, a real node and a real database."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.contract.spec import Catalogue, Danger
from narthex_operator.app import CATALOGUE
from narthex_operator.db import Database
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import local_actor
from narthex_operator.services.approvals import ApprovalService
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.authority import Authority
from narthex_operator.services.delivery import Delivery
from narthex_operator.services.nodes import NodeService
from narthex_operator.services.runs import RunService
from realnode import RealNode, node_client
from rig import until

ADMIN = local_actor("tests")


@dataclass
class Desk:
    """What an operator needs to act on nodes."""

    database: Database
    audit: AuditLedger
    delivery: Delivery
    runs: RunService
    approvals: ApprovalService

    def events(self, run_id: str) -> list[str]:
        page = self.audit.list(ADMIN, run=run_id)
        return [row.event for row in reversed(page.rows)]

    def ended(self, run_id: str) -> Any:
        def look() -> Any:
            run = self.runs.get(ADMIN, run_id)
            return run if run.state.final else None

        return until(look, what="the run has ended")


def make_desk(
    folder: Path,
    database: Database,
    signer: SignerClient,
    *,
    catalogue: Catalogue = CATALOGUE,
    require: Mapping[Danger, int] | None = None,
    ssh_port: int = 22,
) -> Desk:
    audit = AuditLedger(database=database, signer=signer)
    client = node_client(folder, signer)
    client.audit_head = audit.head
    authority = Authority(catalogue=catalogue, require=require or {})
    delivery = Delivery(
        database=database, audit=audit, nodes=client, authority=authority, ssh_port=ssh_port
    )
    nodes = NodeService(
        database=database,
        audit=audit,
        signer=signer,
        operator_url="https://127.0.0.1:1",
        gateway_url="https://127.0.0.1:2",
        nonce_key=b"k" * 32,
    )
    runs = RunService(
        database=database,
        nodes=nodes,
        client=client,
        audit=audit,
        delivery=delivery,
        catalogue=catalogue,
        authority=authority,
    )
    approvals = ApprovalService(
        database=database, audit=audit, delivery=delivery, authority=authority
    )
    return Desk(database, audit, delivery, runs, approvals)


@pytest.fixture
def desk(tmp_path: Path, database: Database, signer: SignerClient) -> Iterator[Desk]:
    desk = make_desk(tmp_path / "operator-pki", database, signer)
    yield desk
    desk.delivery.stop()


@pytest.fixture
def node(tmp_path: Path, signer: SignerClient, database: Database) -> Iterator[RealNode]:
    """A node that is reached; its actor is off until a test turns it on."""
    node = RealNode(tmp_path / "node", signer)
    with node.front():
        node.enter(database)
        yield node


@pytest.fixture
def victim() -> Iterator[dict[str, int]]:
    """A process to end: its pid and start time."""
    process = subprocess.Popen(["sleep", "300"])
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    yield {"pid": process.pid, "start_ticks": int(ticks)}
    process.kill()
    process.wait()
