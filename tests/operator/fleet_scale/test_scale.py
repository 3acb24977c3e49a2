"""Two hundred nodes asked at once: real TLS, real tickets, real actors."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from manynodes import PROCESSES, ManyNodes, NoopResult, many_nodes
from narthex_exporter.contract.tickets import Claims
from narthex_operator.clients.exchange import Line
from narthex_operator.clients.node import Asker, NodeClient, NodeRef
from narthex_operator.errors import NodeProblemError, UnreachableError
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.signer.ledger import verified
from realnode import node_client
from signing import signing

COUNT = 200
ASKER = Asker(id="user:1")
# bench/fleet.py measures; here it must only not take what one after the other would.
SECONDS = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")


@pytest.fixture(scope="module")
def one_signer(folder: Path) -> Iterator[SignerClient]:
    with signing(folder) as signer:
        yield signer


@pytest.fixture(scope="module")
def fleet(folder: Path, one_signer: SignerClient) -> Iterator[ManyNodes]:
    with many_nodes(folder / "nodes", one_signer, count=COUNT) as nodes:
        yield nodes


@pytest.fixture
def client(tmp_path: Path, one_signer: SignerClient) -> NodeClient:
    return node_client(tmp_path / "pki", one_signer)


def test_all_answer_and_each_had_a_ticket_of_its_own(
    fleet: ManyNodes, client: NodeClient, folder: Path
) -> None:
    began = time.monotonic()
    found = list(client.query_many(fleet.refs, ASKER, "fleet.noop", {}, NoopResult))
    assert time.monotonic() - began < SECONDS
    assert [answer for _, answer in found] == [NoopResult(word="done")] * COUNT
    assert {node.id for node, _ in found} == {node.id for node in fleet.refs}
    rows = [
        row
        for row in verified(folder / "signer" / "audit.jsonl")
        if row["event"] == "ticket.signed" and row["act"] == "fleet.noop"
    ]
    assert sorted(row["aud"] for row in rows) == sorted(f"node:{node.id}" for node in fleet.refs)
    assert len({row["jti"] for row in rows}) == COUNT


def test_those_that_hang_and_those_that_are_dead_hold_no_other_up(
    fleet: ManyNodes, client: NodeClient
) -> None:
    frozen = fleet.processes[0]
    dead = [NodeRef(id=f"d{n}", name=f"dead-{n}", address="127.0.0.1:1") for n in range(20)]
    # They come first, and are almost as many as are asked at once.
    hanging = [n for i, n in enumerate(fleet.refs) if i % PROCESSES == 0]
    others = [n for i, n in enumerate(fleet.refs) if i % PROCESSES]
    answered: set[str] = set()
    failed: dict[str, object] = {}
    os.kill(frozen.pid, signal.SIGSTOP)
    began = time.monotonic()
    answered_after = 0.0
    try:
        for node, answer in client.query_many(
            [*hanging, *dead, *others], ASKER, "fleet.noop", {}, NoopResult, seconds=10.0
        ):
            if isinstance(answer, NoopResult):
                answered.add(node.id)
                answered_after = time.monotonic() - began
            else:
                failed[node.id] = answer
        took = time.monotonic() - began
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    assert answered == {node.id for node in others}
    assert set(failed) == {node.id for node in [*hanging, *dead]}
    assert all(isinstance(error, UnreachableError) for error in failed.values())
    assert answered_after < 9.0
    assert took < 11.5


class Forger(NodeClient):
    """Has the operator's certificate, and tickets made by or for whom it likes."""

    def __init__(
        self, client: NodeClient, signer: SignerClient, node: NodeRef | None = None
    ) -> None:
        super().__init__(cluster=signer.ca().cluster, tls=client.tls, signer=signer)
        self.honest = client
        self.node = node

    @override
    def _line(self, node: NodeRef) -> Line:
        return self.honest._line(node)

    @override
    def _claims(self, node: NodeRef, *rest: Any) -> Claims:
        return super()._claims(self.node or node, *rest)


def test_tickets_of_another_signer_are_refused_by_every_node(
    fleet: ManyNodes, client: NodeClient, tmp_path: Path
) -> None:
    with signing(tmp_path) as other:
        forger = Forger(client, other)
        found = list(forger.query_many(fleet.refs[:20], ASKER, "fleet.noop", {}, NoopResult))
    assert len(found) == 20
    for _, answer in found:
        assert isinstance(answer, NodeProblemError)
        assert (answer.problem.type, answer.problem.title) == ("ticket-invalid", "key")


def test_a_ticket_for_one_node_is_worth_nothing_at_another(
    fleet: ManyNodes, client: NodeClient, one_signer: SignerClient
) -> None:
    one, other = fleet.refs[:2]
    with pytest.raises(NodeProblemError) as told:
        Forger(client, one_signer, node=one).query(other, ASKER, "fleet.noop", {}, NoopResult)
    assert (told.value.problem.type, told.value.problem.title) == ("ticket-invalid", "invalid")
