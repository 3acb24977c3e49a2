"""What could cut a node off is kept only if it can be reached anew; else the node undoes it."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from tests.exporter.actor.jobcatalogue import CATALOGUE
from tests.exporter.actor.test_jobs import PROGRAM
from tests.operator.runs.conftest import make_desk

from narthex_exporter.contract.wire import RunState
from narthex_operator.db import Database, open_database
from narthex_operator.db.models import Node
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import local_actor
from realnode import RealNode

ADMIN = local_actor("tests")
NAME = "process.guarded"
LISTEN = (
    "import socket, sys\n"
    "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)\n"
    "while True: s.accept()[0].close()\n"
)


@dataclass
class Site:
    """A desk, a node with actions that wait for a confirmation, and its SSH port."""

    desk: Any
    node: RealNode
    file: Path
    ssh: subprocess.Popen[bytes]

    def change(self, *, seconds: float = 40.0, then: str = "") -> str:
        params = {"path": str(self.file), "content": "new\n", "seconds": seconds, "then": then}
        plan = self.desk.runs.plan(ADMIN, "web-1", NAME, params)
        assert plan.plan.confirm_seconds == seconds
        run = self.desk.runs.submit(
            ADMIN, "web-1", NAME, params, plan=plan.plan.digest, reason="try it"
        )
        return str(run.id)

    def watched(self, run_id: str, wanted: Callable[[Any], bool]) -> Any:
        """Do as the operator's job does, until the run is as it should be."""
        deadline = time.monotonic() + 60
        while True:
            self.desk.delivery.watch()
            run = self.desk.runs.get(ADMIN, run_id)
            if wanted(run):
                return run
            assert time.monotonic() < deadline, run
            time.sleep(0.2)

    @property
    def kept(self) -> bool:
        return Path(f"{self.file}.kept").exists()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'operator.sqlite3'}")
    opened.upgrade()
    yield opened
    opened.close()


@pytest.fixture
def site(tmp_path: Path, database: Database, signer: SignerClient) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(
            subprocess.Popen([sys.executable, "-Ic", LISTEN], stdout=subprocess.PIPE)
        )
        stack.callback(ssh.kill)
        assert ssh.stdout is not None
        port = int(ssh.stdout.readline())
        file = tmp_path / "rules"
        file.write_text("old\n")
        node = RealNode(tmp_path / "node", signer, catalogue=CATALOGUE, program=PROGRAM)
        desk = make_desk(
            tmp_path / "operator-pki", database, signer, catalogue=CATALOGUE, ssh_port=port
        )
        stack.callback(desk.delivery.stop)
        stack.enter_context(node.actor())
        yield Site(desk, node, file, ssh)


def enter(site: Site) -> None:
    site.node.enter(site.desk.database)


def test_a_node_that_is_reached_anew_keeps_the_change(site: Site) -> None:
    with site.node.front():
        enter(site)
        run = site.watched(site.change(), lambda run: run.state.final)
    assert (run.state, site.file.read_text(), site.kept) == (RunState.SUCCEEDED, "new\n", True)
    assert [(one.name.partition(" ")[0], one.ok) for one in run.probes] == [
        ("exporter", True), ("ssh", True),
    ]  # fmt: skip
    assert run.undo is not None
    assert run.undo.params == {"path": str(site.file), "content": "old\n"}
    assert "-old" in run.plan.diff
    assert site.desk.events(run.id) == ["run.requested", "run.confirmed", "run.finished"]


def test_a_node_whose_ssh_port_is_cut_off_is_not_confirmed(site: Site) -> None:
    with site.node.front():
        enter(site)
        run_id = site.change(seconds=8, then=f"kill -9 {site.ssh.pid}")
        seen = site.watched(run_id, lambda run: bool(run.probes))
        assert seen.state is RunState.CONFIRMING
        assert seen.confirm_until is not None
        run = site.watched(run_id, lambda run: run.state.final)
    assert (run.state, site.file.read_text(), site.kept) == (RunState.REVERTED, "old\n", False)
    probes = {one.name.partition(" ")[0]: one for one in run.probes}
    assert probes["exporter"].ok
    assert not probes["ssh"].ok
    assert "refused" in probes["ssh"].detail.lower()
    assert site.desk.events(run_id) == ["run.requested", "run.not-confirmed", "run.finished"]


def test_an_ssh_port_that_was_closed_before_is_not_asked_for(site: Site) -> None:
    site.ssh.kill()
    site.ssh.wait()
    with site.node.front():
        enter(site)
        run = site.watched(site.change(), lambda run: run.state.final)
    assert run.state is RunState.SUCCEEDED
    assert [one.name for one in run.probes] == ["exporter"]


def test_79_a_node_that_cut_the_operator_off_comes_back_as_it_was(site: Site) -> None:
    with site.node.front():
        enter(site)
        run_id = site.change(seconds=8)
        deadline = time.monotonic() + 30
        while site.desk.runs.get(ADMIN, run_id).state is not RunState.CONFIRMING:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    # The exporter's port answers nobody any more.
    seen = site.watched(run_id, lambda run: bool(run.probes))
    assert (seen.state, seen.probes[0].ok) == (RunState.CONFIRMING, False)
    while site.file.read_text() != "old\n":
        site.desk.delivery.watch()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with site.node.front():
        with site.desk.database.session() as session:
            session.execute(update(Node).values(address=site.node.address))
        run = site.watched(run_id, lambda run: run.state.final)
    assert (run.state, site.kept) == (RunState.REVERTED, False)
    assert "brought back" in run.error


def test_a_stranger_on_the_port_proves_nothing(site: Site) -> None:
    with site.node.front():
        enter(site)
        run_id = site.change(seconds=8)
        deadline = time.monotonic() + 30
        while site.desk.runs.get(ADMIN, run_id).state is not RunState.CONFIRMING:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        with site.desk.database.session() as session:
            session.execute(update(Node).values(address=address))
        run = site.watched(run_id, lambda run: bool(run.probes))
    assert (run.state, run.probes[0].ok) == (RunState.CONFIRMING, False)
