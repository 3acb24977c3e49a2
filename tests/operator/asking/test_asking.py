"""Ask many nodes: all of those named or none, equal answers together, each failure its own."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from manynodes import CATALOGUE, ManyNodes, many_nodes
from narthex_exporter.contract.spec import Result
from narthex_operator.clients.node import NodeRef
from narthex_operator.db import Database
from narthex_operator.db.models import Node
from narthex_operator.errors import (
    ConflictError,
    DeniedError,
    InvalidError,
    NotFoundError,
    OperatorError,
    UnreachableError,
)
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import GRANTS, Actor, Grant, Role, local_actor
from narthex_operator.services.asking import AskingService, _Heard
from narthex_operator.services.targets import MAX_NODES
from narthex_operator.services.views import FleetAnswer
from narthex_operator.signer.ledger import verified
from realnode import RealNode, node_client
from signing import signing

ADMIN = local_actor("tests")
VIEWER = Actor(id="user:9", name="vera", grants=GRANTS[Role.VIEWER])
BLIND = Actor(id="user:7", name="bo", grants=(Grant(pattern="query:*"),))
MUTE = Actor(id="user:6", name="mo", grants=(Grant(pattern="node:read"),))
COUNT = 10


@dataclass
class Fleet:
    """Ten nodes, and an operator that knows them."""

    many: ManyNodes
    asking: AskingService
    database: Database
    audit: Path

    @property
    def names(self) -> list[str]:
        return [node.name for node in self.many.nodes]

    def change(self, name: str, **values: Any) -> None:
        with self.database.session() as session:
            session.execute(update(Node).where(Node.name == name).values(**values))

    def tickets(self) -> int:
        """How many tickets were ever signed: without one nothing reaches an actor."""
        return sum(row["event"] == "ticket.signed" for row in verified(self.audit))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("asking")


@pytest.fixture(scope="module")
def one_signer(folder: Path) -> Iterator[SignerClient]:
    with signing(folder) as signer:
        yield signer


@pytest.fixture(scope="module")
def many(folder: Path, one_signer: SignerClient) -> Iterator[ManyNodes]:
    with many_nodes(folder / "nodes", one_signer, count=COUNT, processes=1) as nodes:
        yield nodes


@pytest.fixture
def fleet(
    tmp_path: Path, folder: Path, one_signer: SignerClient, many: ManyNodes, database: Database
) -> Fleet:
    for node in many.nodes:
        node.enter(database)
    client = node_client(tmp_path / "operator-pki", one_signer)
    asking = AskingService(database=database, client=client, catalogue=CATALOGUE)
    return Fleet(many, asking, database, folder / "signer" / "audit.jsonl")


def test_equal_answers_stand_together_and_each_failure_alone(fleet: Fleet) -> None:
    dead = RealNode.__new__(RealNode)
    dead.id, dead.name, dead.address = "dead1", "dead", "127.0.0.1:1"
    dead.enter(fleet.database)
    found = fleet.asking.ask(VIEWER, "fleet.noop", {"word": "hi"}, [*fleet.names, "dead"])
    assert [(group.nodes, group.result) for group in found.groups] == [
        (tuple(sorted(fleet.names)), {"word": "hi"})
    ]
    assert [(one.node, one.kind) for one in found.failures] == [("dead1", "unreachable")]
    assert found.summary == "10 nodes: same; 1 gave no answer"
    assert found.asked == 11


def test_a_node_is_found_by_its_id_too(fleet: Fleet) -> None:
    found = fleet.asking.ask(ADMIN, "fleet.noop", {}, ["n0001", "sim-0002"])
    assert found.groups[0].nodes == ("sim-0001", "sim-0002")


REFUSED: list[tuple[str, Sequence[str], type[OperatorError], str]] = [
    ("nobody", [], InvalidError, "at least one"),
    ("wildcard", ["*"], DeniedError, r"by the name of \*"),
    ("pattern", ["sim-*"], DeniedError, "by the name of"),
    ("empty name", [""], DeniedError, "by the name of"),
    ("twice", ["sim-0000", "sim-0001", "sim-0000"], InvalidError, "more than once: sim-0000"),
    ("name and id", ["sim-0000", "n0000"], InvalidError, "more than once: sim-0000"),
    ("unknown", [*(f"sim-{n:04}" for n in range(9)), "ghost"], DeniedError, "ghost"),
    ("hostile", ["sim-0000", "\x1b[2J\n"], DeniedError, "by the name of"),
    ("too many", [f"x{n}" for n in range(10_001)], InvalidError, f"at most {MAX_NODES}"),
    ("one removed", [f"sim-{n:04}" for n in range(10)], DeniedError, "sim-0007"),
    ("one locked", [f"sim-{n:04}" for n in range(7)], ConflictError, "sim-0004 is locked"),
    ("one not approved", ["sim-0000", "sim-0005"], ConflictError, "sim-0005 is not approved"),
]


def test_a_list_with_one_wrong_node_in_it_touches_none(fleet: Fleet) -> None:
    before = fleet.tickets()
    fleet.change("sim-0004", locked_reason="cloned")
    fleet.change("sim-0005", approved_at=None)
    fleet.change("sim-0007", removed_at=datetime.now(UTC))
    for case, refs, kind, words in REFUSED:
        with pytest.raises(kind, match=words) as told:
            fleet.asking.ask(ADMIN, "fleet.noop", {}, refs)
        assert "\x1b" not in str(told.value), case
    assert fleet.tickets() == before
    assert fleet.asking.ask(ADMIN, "fleet.noop", {}, ["sim-0000"]).groups


@pytest.mark.parametrize(
    ("actor", "name", "params", "kind"),
    [
        (BLIND, "fleet.noop", {}, DeniedError),
        (MUTE, "fleet.noop", {}, DeniedError),
        (ADMIN, "no.such", {}, NotFoundError),
        (ADMIN, "fleet.noop", {"more": 1}, InvalidError),
    ],
)
def test_what_may_not_be_asked_is_asked_of_nobody(
    fleet: Fleet, actor: Actor, name: str, params: dict[str, Any], kind: type[OperatorError]
) -> None:
    before = fleet.tickets()
    with pytest.raises(kind):
        fleet.asking.ask(actor, name, params, fleet.names)
    assert fleet.tickets() == before


def test_nodes_that_say_much_cannot_fill_the_memory(fleet: Fleet) -> None:
    narrow = dataclasses.replace(fleet.asking, max_bytes=30)
    found = narrow.ask(ADMIN, "fleet.noop", {"word": "x" * 40}, fleet.names)
    assert not found.groups
    assert {one.error for one in found.failures} == {
        "the answers are too large together: this one is left out"
    }
    assert found.summary == "nobody answered; 10 gave no answer"


@pytest.mark.parametrize(
    ("words", "failed", "summary"),
    [
        ("aaaa", 0, "4 nodes: same"),
        ("a", 0, "1 node: same"),
        ("aaab", 0, "3 nodes: same, 1 differs"),
        ("babac", 2, "2 nodes: same, 3 differ; 2 gave no answer"),
        ("", 3, "nobody answered; 3 gave no answer"),
    ],
)
def test_equal_answers_are_counted_in_words(words: str, failed: int, summary: str) -> None:
    heard = _Heard(1 << 20)
    for number, word in enumerate(words):
        ref = NodeRef(id=f"n{number}", name=f"n{number}", address="")
        heard.note(ref, CATALOGUE.queries["fleet.noop"].result(word=word))
    for number in range(failed):
        heard.note(NodeRef(id=f"d{number}", name="d", address=""), UnreachableError("gone"))
    found = FleetAnswer(
        query="q",
        asked=len(words) + failed,
        groups=heard.groups(),
        failures=tuple(heard.failures),
        seconds=0,
    )
    assert found.summary == summary
    assert sorted(name for group in found.groups for name in group.nodes) == [
        f"n{number}" for number in range(len(words))
    ]


def test_the_order_of_keys_makes_no_difference() -> None:
    heard = _Heard(1 << 20)
    for number, value in enumerate([{"a": 1, "b": 2}, {"b": 2, "a": 1}]):
        heard.note(NodeRef(id=f"n{number}", name=f"n{number}", address=""), _Free(value=value))
    assert [group.nodes for group in heard.groups()] == [("n0", "n1")]


class _Free(Result):
    value: dict[str, int]


def test_one_ticket_a_node_is_what_it_takes(fleet: Fleet) -> None:
    before = fleet.tickets()
    found = fleet.asking.ask(ADMIN, "host.info", {}, fleet.names)
    # One machine under all of them says one thing.
    assert len(found.groups) == 1
    assert found.groups[0].result["cpus"] >= 1
    assert fleet.tickets() == before + COUNT
