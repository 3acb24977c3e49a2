"""SECURITY.md 27: neither a node nor the operator can change its record unseen by the other."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text
from tests.operator.audit.conftest import ADMIN, Site
from typing_extensions import override

from narthex_exporter.contract.chain import GENESIS, row_hash
from narthex_exporter.contract.wire import RunRequest, new_run_id
from narthex_operator.clients.node import Asker
from narthex_operator.db import Database
from narthex_operator.db.models import AuditCheckpoint, AuditEntry, NodeAuditHead
from narthex_operator.errors import LimitedError
from narthex_operator.security.chain import link
from narthex_operator.services.audit import _content
from narthex_operator.services.verification import Verifier
from narthex_operator.telemetry import build_registry

Rows = list[dict[str, Any]]


def read(site: Site) -> Rows:
    return [json.loads(line) for line in site.record.read_text().splitlines()]


def write(site: Site, rows: Rows) -> None:
    lines = [json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in rows]
    site.record.write_text("".join(lines))


def restamped(rows: Rows) -> Rows:
    """Change the first row and make the whole chain fit again, as root can."""
    prev = GENESIS
    found = []
    for number, row in enumerate(rows, start=1):
        fresh = row | {"seq": number, "prev": prev}
        if number == 1:
            fresh["version"] = "forged"
        fresh["hash"] = prev = row_hash(fresh)
        found.append(fresh)
    return found


def filled(site: Site, count: int = 6) -> None:
    """Let the record grow, and be seen."""
    with site.node.actor():
        for _ in range(count):
            site.desk.audit.note(ADMIN, "user.added")  # each is one more head to witness
            site.witness.poll()
    assert site.problems() == {}


ON_NODE: dict[str, tuple[str, Callable[[Rows], Rows]]] = {
    "a flipped byte": (
        "rewritten", lambda rows: [*rows[:3], rows[3] | {"boot": "x"}, *rows[4:]]
    ),
    "a dropped row": ("rewritten", lambda rows: rows[:3] + rows[4:]),
    "swapped rows": ("rewritten", lambda rows: [*rows[:3], rows[4], rows[3], *rows[5:]]),
    "a cut tail": ("truncated", lambda rows: rows[:3]),
    "a cut tail that grew again": ("rewritten", lambda rows: restamped(rows[:3] + rows * 2)),
    "a chain restamped": ("rewritten", restamped),
    "an emptied record": ("truncated", lambda _rows: []),
}  # fmt: skip


@pytest.mark.parametrize("what", [what for what in ON_NODE if what != "an emptied record"])
def test_what_is_changed_on_a_node_the_operator_sees(site: Site, what: str) -> None:
    filled(site)
    kind, alter = ON_NODE[what]
    with site.node.actor():
        # While it runs: an actor does not start on a record that contradicts itself.
        write(site, alter(read(site)))
        site.witness.verify()
    # Until it is started anew it believes to have the rows that were cut: they are missing.
    kinds = set(site.problems())
    assert kinds <= {kind, "rewritten"}
    assert kinds
    rows = site.told("node-audit.contradicted")
    assert rows[-1].outcome.startswith(("rewritten at row ", "truncated at row "))
    assert (rows[-1].node_name, rows[-1].actor) == ("web-1", "local:witness")


@pytest.mark.parametrize("what", ["a cut tail", "a chain restamped", "an emptied record"])
def test_a_tail_that_fits_by_itself_is_seen_within_a_minute(site: Site, what: str) -> None:
    filled(site)
    kind, alter = ON_NODE[what]
    write(site, alter(read(site)))
    with site.node.actor():  # it starts: nothing in the record contradicts the rest of it
        site.witness.poll()
        # A cut one may have grown past where it was by its own start.
        assert set(site.problems()) & {kind, "rewritten"}


def damage(database: Database, sql: str) -> None:
    with database.session() as session:
        session.execute(text(sql))


def restamp_ledger(database: Database) -> None:
    """Change the first row, restamp the chain, and forge every checkpoint's head."""
    prev = GENESIS
    with database.session() as session:
        for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.seq)):
            entry.node, entry.prev = "forged", prev
            entry.hash = prev = link(prev, _content(entry))
        for point in session.scalars(select(AuditCheckpoint)):
            session.delete(point)


IN_LEDGER: dict[str, str] = {
    "a flipped byte": "UPDATE audit SET outcome = 'x' WHERE seq = 3",
    "a dropped row": "DELETE FROM audit WHERE seq = 2",
    "swapped rows":
        "UPDATE audit SET event = CASE seq WHEN 2 THEN 'b' ELSE 'a' END WHERE seq IN (2, 3)",
    "a cut tail": "DELETE FROM audit WHERE seq > 3",
    "a chain restamped": "",
}  # fmt: skip


@pytest.mark.parametrize("what", IN_LEDGER)
def test_what_is_changed_in_the_ledger_is_seen(site: Site, database: Database, what: str) -> None:
    """Even by somebody who owns the database, and removes the checkpoints, too."""
    filled(site)
    damage(database, "DELETE FROM audit_checkpoints")
    if what == "a chain restamped":
        restamp_ledger(database)
    else:
        damage(database, IN_LEDGER[what])
    verifier = Verifier(audit=site.desk.audit, witness=site.witness)
    with site.node.actor():
        verifier.run()
    assert verifier.last is not None
    by_chain, by_node = not verifier.last.ledger.intact, "ledger" in site.problems()
    assert by_chain or by_node
    if what in {"a cut tail", "a chain restamped"}:
        assert by_node
        assert "of our own ledger" in site.problems()["ledger"]


def test_what_was_asked_for_is_no_problem_over_restarts_of_the_actor(
    site: Site, victim: dict[str, int], database: Database
) -> None:
    for nice in (5, 6):
        with site.node.actor():
            site.run(victim, nice)
            site.witness.poll()
            site.witness.verify()
    assert site.problems() == {}
    assert site.told("node-audit") == []
    registry = build_registry(database, version="x", watchdog_at=lambda: None)[0]

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"narthex_operator_{name}", {"node": "web-1", **labels})

    assert value("runs_authorised_total") == 2
    assert value("node_audit_problem", kind="unauthorised") == 0
    assert value("node_audit_verified_seq") == read(site)[-2]["seq"]  # before `actor.stopped`
    assert 0 <= (value("node_audit_age_seconds") or 0) < 60


def test_a_run_that_the_operator_never_asked_for_is_told(
    site: Site, victim: dict[str, int], database: Database
) -> None:
    """Somebody with the operator's keys, past its ledger: the node tells on them."""
    client, asker = site.desk.delivery.nodes, Asker(id="user:9")
    params = {**victim, "nice": 3}
    with site.node.actor():
        node = site.witness.present()[0]
        plan = client.plan(node, asker, "process.renice", params)
        body = RunRequest(params=params, plan=plan.digest, reason="x").model_dump_json().encode()
        run_id = new_run_id()
        client.run(node, asker, "process.renice", run_id=run_id, body=body,
                   before_sending=lambda _claims: None)  # fmt: skip
        site.witness.poll()
        site.witness.poll()
        site.witness.verify()
    assert "which we never asked it for" in site.problems()["unauthorised"]
    rows = site.told("node-audit.contradicted")
    assert [row.run for row in rows] == [run_id]
    registry = build_registry(database, version="x", watchdog_at=lambda: None)[0]
    name = "narthex_operator_node_audit_problem"
    assert registry.get_sample_value(name, {"node": "web-1", "kind": "unauthorised"}) == 1
    assert site.witness.accept(ADMIN, "web-1", reason="it was a drill") == 1
    assert site.problems() == {}
    with site.node.actor():
        site.witness.verify()
    assert site.problems() == {}


def test_a_run_with_another_request_than_ours_is_told(
    site: Site, victim: dict[str, int], database: Database
) -> None:
    with site.node.actor():
        run_id = site.run(victim)
        digest = hashlib.sha256(b"another").hexdigest()
        forged = [row | {"ph": digest} if row.get("op") == run_id else row for row in read(site)]
        write(site, restamped(forged))
        site.witness.poll()
    assert "with another request than ours" in site.problems()["unauthorised"]


def test_rows_that_went_by_rotation_are_no_attack(
    site: Site, victim: dict[str, int], database: Database
) -> None:
    filled(site)
    with site.node.actor():
        for _ in range(9):
            site.desk.audit.note(ADMIN, "user.added")
            site.desk.delivery.nodes.audit(site.witness.present()[0], Asker(id="user:1"), after=0)
        write(site, read(site)[-3:])
        site.witness.poll()
        assert site.problems() == {}
        gone = site.told("node-audit.skipped")
        assert [row.details["why"] for row in gone] == ["gone by rotation"]
        site.run(victim)
        site.witness.poll()
        site.witness.verify()
    assert site.problems() == {}


class Hostile:
    """A node that answers what it likes."""

    cluster = "c"

    def __init__(self, **reply: Any) -> None:
        self.reply = reply

    def audit(self, *_args: Any, **_more: Any) -> Any:
        from narthex_exporter.contract.wire import AuditRows

        return AuditRows.model_validate({"seq": 9, "head": "x", "first": 1} | self.reply)


HOSTILE: dict[str, dict[str, Any]] = {
    "rows that it claims and keeps": {"rows": []},
    "rows without numbers": {"rows": [{}, {"seq": "1"}, {"seq": None, "hash": "x"}]},
    "huge numbers": {"rows": [{"seq": 1 << 90, "hash": "0" * 64}]},
    "negative numbers": {"rows": [{"seq": -1, "hash": "0" * 64}]},
    "the same row for ever": {"rows": [{"seq": 1, "hash": "0" * 64}] * 500},
    "runs in plenty": {
        "rows": [
            {"seq": n, "hash": "0" * 64, "event": "run.accepted", "op": f"\0\ud800{n}"}
            for n in range(1, 400)
        ]
    },
    "heads of ours that never were": {
        "rows": [{"seq": n, "hash": "0" * 64, "operator_head": {"seq": 1 << (n * 4), "head": []}}
                 for n in range(1, 40)]
    },
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_node_is_told_and_breaks_nothing(site: Site, what: str) -> None:
    site.witness.nodes = Hostile(**HOSTILE[what])  # type: ignore[assignment] # the part in use
    site.witness.poll()
    site.witness.poll()
    assert site.problems()
    assert len(site.told("node-audit")) <= 42
    assert site.desk.audit.verify().intact


class Scarce(Hostile):
    """A node for which there is no ticket at first."""

    def __init__(self, times: int) -> None:
        super().__init__(seq=0, head=GENESIS, first=0)
        self.times = times

    @override
    def audit(self, *args: Any, **more: Any) -> Any:
        self.times -= 1
        if self.times >= 0:
            raise LimitedError("too many tickets", retry_after_seconds=5)
        return super().audit(*args, **more)


def test_where_tickets_are_scarce_it_waits(site: Site) -> None:
    waited: list[float] = []
    site.witness.sleep = waited.append
    site.witness.nodes = Scarce(3)  # type: ignore[assignment] # the part in use
    site.witness.poll()
    assert waited == [5, 5, 5]
    assert (site.problems(), site.witness._silent) == ({}, set())
    site.witness.nodes = Scarce(99)  # type: ignore[assignment]
    site.witness.poll()
    assert site.witness._silent == {site.node.id}


def test_heads_are_kept_but_not_without_end(site: Site, database: Database) -> None:
    from narthex_operator.services import witness

    filled(site, 4)
    with database.session() as session:
        for seq in range(1000, 1000 + 2 * witness._KEPT_HEADS):
            session.add(NodeAuditHead(node=site.node.id, seq=seq, head="x", at=witness._now()))
    with database.session() as session:
        witness._keep_head(
            session, site.witness.present()[0], witness.Known(seq=9999, head="y"), witness._now()
        )
    with database.reading() as session:
        kept = list(session.scalars(select(NodeAuditHead.seq).order_by(NodeAuditHead.seq)))
    assert (len(kept), kept[-1]) == (witness._KEPT_HEADS, 9999)


def test_a_node_that_does_not_answer_is_no_contradiction(site: Site) -> None:
    site.witness.poll()  # its actor is off
    assert site.problems() == {}
