"""Operator and actor killed with -9: every run ends as it really ended, none is done twice.

SECURITY.md's test 72 (12 points of the operator's), and the proof of the issue on actions:
actor and operator killed at random points of many runs.
"""

import random
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import pytest
from sqlalchemy import select, update
from typing_extensions import override

from killable import ActorProgram, Counter, OperatorProgram
from narthex_exporter.actor.audit import rows as node_rows
from narthex_exporter.actor.audit import verify_all
from narthex_exporter.actor.store import RunStore
from narthex_exporter.contract.wire import RunState, new_run_id
from narthex_operator.db import Database, open_database
from narthex_operator.db.models import RunRow
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.audit import AuditLedger
from narthex_operator.services.bootstrap import bootstrap
from operatorprogram import POINTS
from realnode import RealNode
from realoperator import make_config

NAME = "process.signal"
LANES = 4
FINAL = {state.value for state in RunState if state.final}


@dataclass
class House:
    """A node and an operator as programs, and what each of them wrote down."""

    folder: Path
    node: RealNode
    actor: ActorProgram
    operator: OperatorProgram
    database: Database
    signer: SignerClient
    counters: list[Counter] = field(default_factory=list)

    def counter(self) -> Counter:
        made = Counter(self.folder / f"hits-{len(self.counters)}")
        self.counters.append(made)
        return made

    def row(self, run: str) -> RunRow | None:
        with self.database.reading() as session:
            return session.get(RunRow, run)

    def on_node(self, run: str) -> str:
        store = RunStore(self.node.folder / "actor" / "runs.sqlite3")
        try:
            stored = store.get(run)
        finally:
            store.close()
        return "" if stored is None else stored.run.state.value

    def accepted(self, run: str) -> int:
        rows = node_rows(self.node.folder / "actor" / "audit.jsonl")
        return sum(row["event"] == "run.accepted" and row.get("op") == run for row in rows)

    def check_audits(self) -> None:
        assert verify_all(self.node.folder / "actor" / "audit.jsonl") is not None
        found = AuditLedger(database=self.database, signer=self.signer).verify()
        assert found.intact, found.problem

    def check(self, run: str, hits: int) -> str:
        """Hold what the operator says of a run against what happened."""
        row = self.row(run)
        if row is None:
            assert (hits, self.accepted(run)) == (0, 0), run
            return "never written"
        assert row.state in FINAL, (run, row.state, row.error)
        assert self.accepted(run) <= 1
        if row.state == RunState.SUCCEEDED:
            assert hits == 1, (run, row.state, hits)
        elif "nothing was done" in row.error:
            assert hits == 0, (run, row.state, row.error)
        else:
            assert hits <= 1, (run, row.state, row.error)
            assert row.state == RunState.LOST or not hits, (run, row.state, row.error)
        known = self.on_node(run)
        assert known in {"", row.state}, (run, row.state, known)
        return row.state


@pytest.fixture
def house(tmp_path: Path, signer: SignerClient) -> Iterator[House]:
    with ExitStack() as stack:
        home = tmp_path / "operator"
        home.mkdir()
        config = make_config(home, tmp_path / "signer.sock")
        first = bootstrap(config)
        database = open_database(config.database_url)
        stack.callback(database.close)
        node = RealNode(tmp_path / "node", signer)
        stack.enter_context(node.front())
        node.enter(database)
        actor, operator = ActorProgram(node), OperatorProgram(config, first.api_token)
        made = House(tmp_path, node, actor, operator, database, signer)
        for program in (actor, operator):
            stack.callback(program.kill)
        actor.start()
        yield made
        for one in made.counters:
            one.stop()


def until_final(house: House, runs: list[str], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with house.database.reading() as session:
            rows = session.execute(select(RunRow.id, RunRow.state)).all()
        left = [row for row in rows if row.id in set(runs) and row.state not in FINAL]
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.timeout(1500)
def test_72_an_operator_killed_at_twelve_points_does_nothing_twice(
    house: House, rounds: int
) -> None:
    counter = house.counter()
    assert len(POINTS) == 12
    trials = [(point, new_run_id()) for point in list(POINTS) * rounds]
    before, last = 0, ("", "")
    # Each start looks after what the one before left, and is killed at the next point.
    for point, run in [*trials, ("", "")]:
        house.operator.start(*((point, run) if point else ()))
        house.operator.ready()
        if last[1]:
            check_killed(house, *last, hits=counter.hits - before)
        if not point:
            break
        before, last = counter.hits, (point, run)
        digest = house.operator.planned(NAME, counter.params)
        house.operator.submit(NAME, counter.params, digest, run)
        assert house.operator.process is not None
        assert house.operator.process.wait(60) == -9, point
    house.check_audits()


def check_killed(house: House, point: str, run: str, *, hits: int) -> None:
    row = house.row(run)
    if row is not None and row.sent_at is not None and not house.on_node(run):
        # The request never left; that is known for sure once its ticket is too old.
        old = datetime.now(UTC) - timedelta(seconds=121)
        with house.database.session() as session:
            session.execute(update(RunRow).where(RunRow.id == run).values(ticket_expires_at=old))
    until_final(house, [run], seconds=60)
    state = house.check(run, hits)
    told = house.operator.call("GET", f"/api/v1/audit?run={run}").json()["items"]
    ends = [one["event"] for one in told].count("run.finished")
    assert ends == int(state != "never written"), (point, state)


class Lane(threading.Thread):
    """One user who runs something again and again, whatever is killed meanwhile."""

    def __init__(self, house: House, count: int) -> None:
        super().__init__(daemon=True)
        self.house, self.count, self.counter = house, count, house.counter()
        self.done: list[tuple[str, int]] = []
        self.problem: AssertionError | None = None

    @override
    def run(self) -> None:
        try:
            for _ in range(self.count):
                self.one()
        except AssertionError as error:
            self.problem = error

    def one(self) -> None:
        run, params = new_run_id(), self.counter.params
        before = self.counter.hits
        digest = self.house.operator.planned(NAME, params, seconds=180)
        status = self.house.operator.submit(NAME, params, digest, run)
        deadline = time.monotonic() + 240
        while status in {0, 202} or status >= 500:
            row = self.house.row(run)
            if row is None and status != HTTPStatus.ACCEPTED:
                # Nobody answered, or the node did not: ask again with the same id, as a careful
                # script does.
                status = self.house.operator.submit(NAME, params, digest, run)
            elif row is not None and row.state in FINAL:
                break
            assert time.monotonic() < deadline, (run, row and row.state)
            time.sleep(0.05)
        time.sleep(0.1)
        self.done.append((run, self.counter.hits - before))


def kill_at_random(house: House, lanes: list[Lane], kills: int) -> Tally[str]:
    """Kill one of the two now and then, while there is work, and start it again."""
    chance, killed = random.Random(72), Tally[str]()  # noqa: S311 - a reproducible test
    total = sum(lane.count for lane in lanes)
    for number in range(kills):
        # Spread over the runs: each kill waits for its share of them.
        due = total * number // kills
        while sum(len(one.done) for one in lanes) < due and any(x.is_alive() for x in lanes):
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.4))
        if not any(lane.is_alive() for lane in lanes):
            break
        name, program = chance.choice((("actor", house.actor), ("operator", house.operator)))
        program.kill()
        killed[name] += 1
        time.sleep(chance.uniform(0, 0.2))
        program.start()
        if name == "operator":
            house.operator.ready()
    return killed


@pytest.mark.parametrize(
    ("kills", "runs"), [(8, 40), pytest.param(40, 200, marks=pytest.mark.slow)]
)
@pytest.mark.timeout(1500)
# A connection of the script's whose operator was killed is dropped by its library, not closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_actor_and_operator_killed_at_random_points_do_nothing_twice(
    house: House, kills: int, runs: int
) -> None:
    house.operator.start()
    house.operator.ready()
    lanes = [Lane(house, runs // LANES) for _ in range(LANES)]
    for lane in lanes:
        lane.start()
    killed = kill_at_random(house, lanes, kills)
    # What the last actor never got is settled by the next one's start.
    while any(lane.is_alive() for lane in lanes):
        for lane in lanes:
            lane.join(5)
        if any(lane.is_alive() for lane in lanes):
            house.actor.kill()
            house.actor.start()
    assert [lane.problem for lane in lanes] == [None] * LANES
    states = Tally(house.check(run, hits) for lane in lanes for run, hits in lane.done)
    sums = f"{dict(killed)} killed; {dict(states)}"
    print(sums)  # noqa: T201 - the figures of the long form
    assert (states.total(), killed.total()) == (runs, kills), sums
    assert states[RunState.SUCCEEDED] > runs // 2, sums
    house.check_audits()
