"""One holder at a time, whoever dies."""

import threading
from datetime import timedelta

from narthex_operator.db import Database
from narthex_operator.db.models import Lease
from narthex_operator.services.leases import Leases


def test_one_holds_it_until_it_runs_out(database: Database) -> None:
    first, second = Leases(database=database), Leases(database=database)
    assert first.hold("x")
    assert not second.hold("x")
    assert second.hold("y")
    assert first.leads("x")
    with database.session() as session:
        session.get_one(Lease, "x").expires_at -= timedelta(seconds=31)
    assert second.hold("x")
    with database.session() as session:
        assert not first.guard(session, "x")
        assert second.guard(session, "x")
        assert session.get_one(Lease, "x").term == 2
    assert not first.hold("x")


def test_who_lets_go_makes_no_other_wait(database: Database) -> None:
    first, second = Leases(database=database), Leases(database=database)
    assert first.leads("x")
    first.release()
    assert second.hold("x")
    assert not first.leads("x")


def test_a_single_operator_need_not_wait_for_its_dead_self(database: Database) -> None:
    assert Leases(database=database).hold("x")
    assert Leases(database=database, alone=True).hold("x")


def test_of_many_at_once_one_gets_it(database: Database) -> None:
    many = [Leases(database=database) for _ in range(8)]
    got: list[bool] = []
    threads = [threading.Thread(target=lambda one=one: got.append(one.hold("x"))) for one in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]
