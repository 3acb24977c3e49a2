"""A real node with a real actor, and the witness that reads its audit."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.operator.runs.conftest import Desk, make_desk

from narthex_operator.db import Database
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import local_actor
from narthex_operator.services.witness import Witness
from realnode import RealNode

ADMIN = local_actor("tests")


@dataclass
class Site:
    """An operator, its node, and what watches both audits."""

    desk: Desk
    node: RealNode
    witness: Witness

    @property
    def record(self) -> Path:
        return self.node.folder / "actor" / "audit.jsonl"

    def run(self, victim: dict[str, int], nice: int = 5) -> str:
        """Have something done on the node, with all that the operator does for it."""
        params: dict[str, Any] = {**victim, "nice": nice}
        plan = self.desk.runs.plan(ADMIN, "web-1", "process.renice", params)
        run = self.desk.runs.submit(
            ADMIN, "web-1", "process.renice", params, plan=plan.plan.digest, reason="a test"
        )
        assert self.desk.ended(run.id).state == "succeeded"
        return run.id

    def problems(self) -> dict[str, str]:
        return dict(self.witness.problems(self.witness.present()[0]))

    def told(self, event: str) -> list[Any]:
        return list(self.desk.audit.list(ADMIN, event=event).rows)


@pytest.fixture
def victim() -> Iterator[dict[str, int]]:
    process = subprocess.Popen(["sleep", "300"])
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    yield {"pid": process.pid, "start_ticks": int(ticks)}
    process.kill()
    process.wait()


@pytest.fixture
def site(tmp_path: Path, database: Database, signer: SignerClient) -> Iterator[Site]:
    """The node's front is up; its actor runs while a test lets it."""
    node = RealNode(tmp_path / "node", signer)
    desk = make_desk(tmp_path / "operator-pki", database, signer)
    witness = Witness(database=database, audit=desk.audit, nodes=desk.delivery.nodes)
    with node.front():
        node.enter(database)
        yield Site(desk, node, witness)
    desk.delivery.stop()
