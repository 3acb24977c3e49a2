import json
import threading
from typing import Any

import pytest
from sqlalchemy import select, text

from narthex_operator.db import Database
from narthex_operator.db.models import AuditEntry
from narthex_operator.errors import DeniedError
from narthex_operator.security.chain import GENESIS, canonical, clean, clean_details, link
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import GRANTS, Actor, Role, local_actor
from narthex_operator.services.audit import AuditLedger, _content

ME = local_actor("t")


@pytest.fixture
def ledger(database: Database, signer: SignerClient) -> AuditLedger:
    return AuditLedger(database=database, signer=signer)


def fill(ledger: AuditLedger, rows: int = 5) -> None:
    for number in range(rows):
        ledger.note(ME, "node.added", node=f"n{number}", details={"number": number, "f": 0.1})


def test_rows_follow_from_one_another(ledger: AuditLedger) -> None:
    fill(ledger)
    assert ledger.checkpoint()
    assert ledger.verify().intact
    page = ledger.list(ME)
    assert [row.seq for row in page.rows] == [5, 4, 3, 2, 1]
    assert (page.verified_up_to, page.intact) == (5, True)
    head = ledger.head()
    assert head is not None
    assert (head.seq, head.head) == (5, page.rows[0].hash)


def restamp(database: Database) -> None:
    """Change the first row, and make the whole chain fit again."""
    prev = GENESIS
    with database.session() as session:
        for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.seq)):
            entry.node, entry.prev = "forged", prev
            entry.hash = prev = link(prev, _content(entry))
    assert AuditLedger(database=database).verify().problem.startswith("row 5")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("UPDATE audit SET outcome = 'x' WHERE seq = 3", "row 3"),
        ("UPDATE audit SET details = '{}' WHERE seq = 2", "row 2"),
        ("DELETE FROM audit WHERE seq = 2", "row 2 is missing"),
        ("UPDATE audit SET node = CASE seq WHEN 2 THEN 'n2' ELSE 'n1' END WHERE seq IN (2, 3)",
         "row 2"),
        ("DELETE FROM audit WHERE seq > 3", "rows 4 to 5 were witnessed"),
        ("restamp", "row 5 is not the one"),
        ("UPDATE audit_checkpoints SET signature = 'AAAA'", "not the signer's"),
    ],
)  # fmt: skip
def test_every_change_is_seen(
    ledger: AuditLedger, database: Database, damage: str, told: str
) -> None:
    fill(ledger)
    assert ledger.checkpoint()
    if damage == "restamp":
        restamp(database)
    else:
        with database.session() as session:
            session.execute(text(damage))
    assert told in ledger.verify().problem
    assert not ledger.list(ME).intact


def test_a_row_changed_after_it_was_proven_is_seen_on_its_page(
    ledger: AuditLedger, database: Database
) -> None:
    fill(ledger)
    assert ledger.list(ME).intact
    with database.session() as session:
        session.execute(text("UPDATE audit SET reason = 'x' WHERE seq = 4"))
    page = ledger.list(ME)
    assert (page.intact, page.verified_up_to) == (False, 3)


def test_the_signer_is_asked_after_a_hundred_rows_or_a_minute(database: Database) -> None:
    now = [0.0]

    class Witness:
        asked = 0

        def checkpoint(self, _request: Any) -> str:
            self.asked += 1
            return "sig"

    witness = Witness()
    ledger = AuditLedger(
        database=database,
        signer=witness,  # type: ignore[arg-type] # the part of it that is used
        monotonic=lambda: now[0],
    )
    assert not ledger.checkpoint()
    fill(ledger)
    assert ledger.checkpoint()
    fill(ledger)
    assert not ledger.checkpoint()
    now[0] += 61
    assert ledger.checkpoint()
    fill(ledger, 100)
    assert ledger.checkpoint()
    assert witness.asked == 3


def test_parallel_writers_make_one_chain(ledger: AuditLedger) -> None:
    threads = [threading.Thread(target=fill, args=(ledger, 10)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = ledger.verify()
    assert (found.up_to, found.problem) == (60, "")


def test_a_failed_transaction_leaves_no_row(ledger: AuditLedger, database: Database) -> None:
    def fail() -> None:
        with database.session() as session:
            ledger.record(session, actor=ME, event="x.happened")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert ledger.head() is None


def test_hostile_text_is_shown_not_sent(ledger: AuditLedger) -> None:
    evil = "a\r\nforged row\x1b[2J\0\u202e\udc80" + "x" * 100_000
    actor = Actor(id=evil, name=evil, grants=(), address=evil)
    details = {evil: [evil, {"deep": {"deeper": {"deepest": [evil]}}}]}
    texts = dict.fromkeys(("node", "resource", "run", "reason", "outcome"), evil)
    ledger.note(actor, "x.happened", details=details, **texts)
    assert ledger.verify().intact
    row = ledger.list(ME).rows[0]
    shown = json.dumps(row.model_dump(mode="json"), ensure_ascii=False)
    assert not any(c in shown for c in "\r\n\x1b\0\u202e")
    assert len(shown) < 40_000


def test_what_is_too_large_is_told_by_its_size() -> None:
    assert clean_details({"x": ["y" * 1000] * 100}) == {"omitted_bytes": 100_307}
    assert canonical(clean_details({"nan": float("nan"), "inf": float("inf")}))
    assert clean("x" * 300, limit=10) == "x" * 9 + "…"


def test_pages_follow_one_another_and_can_be_filtered(ledger: AuditLedger) -> None:
    fill(ledger)
    ledger.note(ME, "run.requested", run="r1", node="n1")
    first = ledger.list(ME, limit=2)
    assert [row.seq for row in first.rows] == [6, 5]
    second = ledger.list(ME, limit=2, before=first.next_before)
    assert [row.seq for row in second.rows] == [4, 3]
    assert [row.seq for row in ledger.list(ME, node="n1").rows] == [6, 2]
    assert [row.seq for row in ledger.list(ME, event="run.").rows] == [6]
    assert [row.seq for row in ledger.list(ME, run="r1").rows] == [6]
    assert ledger.list(ME, event="%").rows == ()
    assert ledger.list(ME, node="' OR 1=1 --").rows == ()


def test_who_may_not_read_it_may_not(ledger: AuditLedger) -> None:
    with pytest.raises(DeniedError):
        ledger.list(Actor(id="user:1", name="v", grants=GRANTS[Role.VIEWER]))
