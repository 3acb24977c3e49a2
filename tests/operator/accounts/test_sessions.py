import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, text

from narthex_operator.db import Database
from narthex_operator.db.models import AuditEntry, SessionRow
from narthex_operator.errors import InvalidError, NotSignedInError
from narthex_operator.services.access import local_actor
from narthex_operator.services.accounts import MAX_SESSIONS, AccountService

SignIn = Callable[..., str]
NEW = "six unlikely winter boats"


def alive(accounts: AccountService, token: str) -> bool:
    try:
        accounts.session(token, address="192.0.2.1")
    except NotSignedInError:
        return False
    return True


def test_a_session_knows_its_user(accounts: AccountService, sign_in: SignIn) -> None:
    actor, view = accounts.session(sign_in(), address="192.0.2.9")
    assert (actor.name, actor.address, view.user.role) == ("anna", "192.0.2.9", "operator")
    assert view.must_change_password
    assert len(view.csrf) == 43


def test_the_database_holds_no_token(
    accounts: AccountService, sign_in: SignIn, database: Database
) -> None:
    token = sign_in()
    with database.reading() as session:
        rows = session.execute(text("SELECT * FROM sessions")).all()
    assert token not in repr(rows)


def test_each_sign_in_makes_a_new_session(accounts: AccountService, sign_in: SignIn) -> None:
    first, second = sign_in(), sign_in()
    assert first != second
    views = [accounts.session(t, address="")[1].csrf for t in (first, second)]
    assert views[0] != views[1]


def test_a_session_ends_with_signing_out(accounts: AccountService, sign_in: SignIn) -> None:
    token = sign_in()
    accounts.sign_out(token)
    accounts.sign_out(token)
    assert not alive(accounts, token)


def test_an_idle_session_ends_and_a_used_one_goes_on(
    accounts: AccountService, sign_in: SignIn, clock: Any
) -> None:
    idle, used = sign_in(), sign_in()
    for _ in range(4):
        clock.pass_(minutes=10)
        assert alive(accounts, used)
    assert not alive(accounts, idle)


def test_polling_keeps_no_session_alive(
    accounts: AccountService, sign_in: SignIn, clock: Any
) -> None:
    token = sign_in()
    for _ in range(3):
        clock.pass_(minutes=9)
        accounts.session(token, address="", touch=False)
    clock.pass_(minutes=9)
    assert not alive(accounts, token)


def test_no_session_lives_longer_than_twelve_hours(
    accounts: AccountService, sign_in: SignIn, clock: Any
) -> None:
    token = sign_in()
    for _ in range(35):
        clock.pass_(minutes=20)
        assert alive(accounts, token)
    clock.pass_(minutes=20)
    assert not alive(accounts, token)


def test_the_oldest_session_makes_way(
    accounts: AccountService, sign_in: SignIn, clock: Any
) -> None:
    tokens = []
    for _ in range(MAX_SESSIONS + 1):
        tokens.append(sign_in())
        clock.pass_(seconds=1)
    assert [alive(accounts, token) for token in tokens] == [False] + [True] * MAX_SESSIONS


def test_a_changed_password_ends_every_session_and_gives_a_new_one(
    accounts: AccountService, sign_in: SignIn, anna: str
) -> None:
    other, own = sign_in(), sign_in()
    actor, _ = accounts.session(own, address="192.0.2.1")
    fresh = accounts.change_password(actor, own, old=anna, new=NEW)
    assert [alive(accounts, token) for token in (other, own, fresh)] == [False, False, True]
    assert not accounts.session(fresh, address="")[1].must_change_password
    with pytest.raises(NotSignedInError):
        sign_in(anna)
    assert sign_in(NEW)


@pytest.mark.parametrize(
    ("new", "why"),
    [
        ("short", "at least 12"),
        ("password1234", "first that anybody"),
        ("aaaaaaaaaaaaaaaa", "first that anybody"),
        ("anna-anna-123", "user's name"),
        ("x" * 5 + "abcdefgh" * 200, "at most"),
    ],
)
def test_a_weak_password_is_refused_in_words(
    accounts: AccountService, sign_in: SignIn, anna: str, new: str, why: str
) -> None:
    token = sign_in()
    actor, _ = accounts.session(token, address="192.0.2.1")
    with pytest.raises(InvalidError, match=why):
        accounts.change_password(actor, token, old=anna, new=new)


def test_the_old_password_must_be_right_and_be_replaced(
    accounts: AccountService, sign_in: SignIn, anna: str
) -> None:
    token = sign_in()
    actor, _ = accounts.session(token, address="192.0.2.1")
    for old, new in ((NEW, NEW + "!"), (anna, anna)):
        with pytest.raises(InvalidError):
            accounts.change_password(actor, token, old=old, new=new)


def test_a_reset_ends_sessions(accounts: AccountService, sign_in: SignIn) -> None:
    token = sign_in()
    password = accounts.reset_password(local_actor("t"), name="anna")
    assert not alive(accounts, token)
    assert sign_in(password)


def test_parallel_sign_ins_all_succeed(
    accounts: AccountService, sign_in: SignIn, database: Database
) -> None:
    tokens: list[str] = [sign_in()]  # from now on the source is known
    threads = [threading.Thread(target=lambda: tokens.append(sign_in())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tokens)) == 9
    with database.reading() as session:
        assert len(session.scalars(select(SessionRow)).unique().all()) == MAX_SESSIONS
        events = session.scalars(select(AuditEntry.event)).all()
    assert events.count("user.signed-in") == 9
