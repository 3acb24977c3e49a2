"""Fleet runs on real nodes, driven as the operator drives them."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from narthex_operator.app import CATALOGUE
from narthex_operator.clients.prometheus import Sample
from narthex_operator.db import Database
from narthex_operator.db.models import User
from narthex_operator.errors import DeniedError
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import GRANTS, Actor, Role
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.authority import Authority
from narthex_operator.services.clockwork import Clockwork
from narthex_operator.services.delivery import Delivery
from narthex_operator.services.driver import FleetDriver
from narthex_operator.services.fleetruns import FleetRunService
from narthex_operator.services.gates import Gates
from narthex_operator.services.leases import Leases
from narthex_operator.services.nodes import NodeService
from narthex_operator.services.runs import RunService
from narthex_operator.services.schedules import ScheduleService
from narthex_operator.services.strategy import Strategy
from narthex_operator.services.views import FleetRunView
from realnode import RealNode, node_client
from rig import until

ANNA = Actor(id="user:1", name="anna", grants=GRANTS[Role.OPERATOR])
SIGNAL = "process.signal"


@dataclass
class PretendedPrometheus:
    """Answers every query with the values that a test sets."""

    values: list[float] = field(default_factory=lambda: [1.0])
    asked: int = 0

    def instant(self, query: str, *, seconds: float = 3.0) -> list[Sample]:
        del query, seconds
        self.asked += 1
        return [Sample(labels={"instance": "web-1"}, value=value, at=0.0) for value in self.values]


@dataclass
class PretendedSubjects:
    """Says what somebody may do now; a test takes it from them."""

    actors: dict[str, Actor] = field(default_factory=lambda: {ANNA.id: ANNA})

    def subject(self, actor_id: str, *, session: str = "", address: str = "") -> Actor:
        del session, address
        if actor_id not in self.actors:
            raise DeniedError(f"{actor_id} may not act any more")
        return self.actors[actor_id]


@dataclass
class Desk:
    """All that drives fleet runs, as one operator has it."""

    database: Database
    audit: AuditLedger
    delivery: Delivery
    runs: RunService
    fleet: FleetRunService
    driver: FleetDriver
    clockwork: Clockwork
    schedules: ScheduleService
    leases: Leases
    prometheus: PretendedPrometheus
    subjects: PretendedSubjects
    _ending: threading.Event = field(default_factory=threading.Event)

    def start(
        self, params: dict[str, Any], *, on: str = "all", reason: str = "a test", **strategy: Any
    ) -> FleetRunView:
        plan = self.fleet.plan(ANNA, SIGNAL, params, on=on)
        return self.fleet.submit(
            ANNA, plan=plan.digest, strategy=Strategy(**strategy), reason=reason
        )

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Tick as the operator's job does."""

        def drive() -> None:
            while not self._ending.wait(0.1):
                self.driver.tick()
                self.clockwork.tick()

        thread = threading.Thread(target=drive)
        self._ending.clear()
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join()

    def until(self, fleet_run_id: str, *states: str, seconds: float = 20) -> FleetRunView:
        def look() -> FleetRunView | None:
            found = self.fleet.get(ANNA, fleet_run_id)
            return found if found.state in states else None

        found = until(look, seconds=seconds, what=f"the fleet run is {states}")
        assert found is not None
        return found

    def events(self, fleet_run_id: str) -> list[str]:
        page = self.audit.list(ANNA, run=fleet_run_id)
        return [row.event for row in reversed(page.rows)]

    def close(self) -> None:
        self.clockwork.stop()
        self.driver.stop()
        self.delivery.stop()


def make_desk(folder: Path, database: Database, signer: SignerClient) -> Desk:
    audit = AuditLedger(database=database, signer=signer)
    client = node_client(folder, signer)
    client.audit_head = audit.head
    authority = Authority(catalogue=CATALOGUE, require={})
    delivery = Delivery(database=database, audit=audit, nodes=client, authority=authority)
    nodes = NodeService(
        database=database,
        audit=audit,
        signer=signer,
        operator_url="https://127.0.0.1:1",
        gateway_url="https://127.0.0.1:2",
        nonce_key=b"k" * 32,
    )
    runs = RunService(
        database=database, nodes=nodes, client=client, audit=audit, delivery=delivery,
        catalogue=CATALOGUE, authority=authority,
    )  # fmt: skip
    prometheus, subjects = PretendedPrometheus(), PretendedSubjects()
    gates = Gates(prometheus=prometheus)  # type: ignore[arg-type] # it asks for instant alone
    leases = Leases(database=database)
    fleet = FleetRunService(
        database=database, audit=audit, runs=runs, gates=gates, catalogue=CATALOGUE
    )
    driver = FleetDriver(
        database=database, audit=audit, runs=runs, delivery=delivery, subjects=subjects,
        gates=gates, leases=leases, catalogue=CATALOGUE,
    )  # fmt: skip
    clockwork = Clockwork(
        database=database, audit=audit, fleet_runs=fleet, subjects=subjects, leases=leases,
        catalogue=CATALOGUE,
    )  # fmt: skip
    schedules = ScheduleService(
        database=database, audit=audit, gates=gates, clockwork=clockwork, catalogue=CATALOGUE
    )
    return Desk(
        database, audit, delivery, runs, fleet, driver, clockwork, schedules, leases, prometheus,
        subjects,
    )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, database: Database, signer: SignerClient) -> Iterator[Desk]:
    desk = make_desk(tmp_path / "operator-pki", database, signer)
    add_people(database)
    yield desk
    desk.close()


def add_people(database: Database) -> None:
    """Whoever asks for a run is judged by the database again when it is sent."""
    with database.session() as session:
        for number, name in ((1, "anna"), (2, "bob"), (8, "anna-8")):
            session.add(
                User(
                    id=number, name=name, role="operator", password_hash="",
                    created_at=datetime.now(UTC), password_changed_at=datetime.now(UTC),
                )
            )  # fmt: skip


def make_nodes(
    folder: Path, signer: SignerClient, database: Database, count: int, stack: contextlib.ExitStack
) -> list[RealNode]:
    nodes = []
    for number in range(1, count + 1):
        name = f"web-{number}"
        node = RealNode(folder / name, signer, id=f"n{number:012x}", name=name)
        stack.enter_context(node.front())
        stack.enter_context(node.actor())
        node.enter(database)
        nodes.append(node)
    return nodes


@pytest.fixture
def nodes(tmp_path: Path, signer: SignerClient, database: Database) -> Iterator[list[RealNode]]:
    """Five nodes that are reached, with their actors on."""
    with contextlib.ExitStack() as stack:
        yield make_nodes(tmp_path, signer, database, 5, stack)


def executions(node: RealNode) -> int:
    """Count the runs that a node says it has begun, in its own audit."""
    text = (node.folder / "actor" / "audit.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    return sum(row["event"] == "run.accepted" for row in rows)


@pytest.fixture
def victim() -> Iterator[dict[str, Any]]:
    """A process that a signal does not hurt: parameters of process.signal."""
    process = subprocess.Popen(["sleep", "300"])
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    yield {"pid": process.pid, "start_ticks": int(ticks), "signal": "CONT"}
    process.kill()
    process.wait()


@pytest.fixture
def stubborn() -> Iterator[dict[str, Any]]:
    """A process that does not end when it is asked to: its run takes 9 s."""
    code = (
        "import signal,time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    )
    process = subprocess.Popen([sys.executable, "-Ic", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    ticks = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19]
    yield {"pid": process.pid, "start_ticks": int(ticks), "signal": "TERM"}
    process.kill()
    process.wait()
    process.stdout.close()
