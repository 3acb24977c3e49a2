import itertools
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from narthex_operator.db import Database
from narthex_operator.errors import InvalidError, LimitedError, NotSignedInError
from narthex_operator.security.passwords import Passwords
from narthex_operator.services.access import local_actor
from narthex_operator.services.accounts import AccountService
from narthex_operator.services.lanes import source_of

SignIn = Callable[..., str]


def evaluated(try_: Callable[[], object]) -> bool:
    """Tell whether a wrong password was looked at, rather than turned away."""
    try:
        try_()
    except NotSignedInError:
        return True
    except LimitedError:
        return False
    raise AssertionError("a wrong password was right")


def test_one_source_gets_few_tries_a_minute(
    accounts: AccountService, sign_in: SignIn, clock: Any
) -> None:
    start, count = clock.now, 0
    for number in itertools.count():
        if clock.now - start >= timedelta(minutes=1):
            break
        count += evaluated(lambda: sign_in("wrong", name=f"user{number}"))  # noqa: B023
        clock.pass_(seconds=0.25)
    assert count <= 15


def test_many_sources_cannot_keep_the_owner_out(
    accounts: AccountService, sign_in: SignIn, clock: Any
) -> None:
    home = "198.51.100.7"
    sign_in(address=home)
    start, count, new_device = clock.now, 0, None
    attackers = itertools.cycle(f"203.0.113.{n}" for n in range(50))
    for number in range(240):
        count += evaluated(lambda: sign_in("wrong", address=next(attackers)))
        if number == 120:
            assert sign_in(address=home)
        if number > 120 and new_device is None:
            try:
                sign_in(address="198.51.100.99")
                new_device = clock.now - start
            except LimitedError as error:
                assert error.retry_after_seconds <= 60  # noqa: PT017
        clock.pass_(seconds=0.5)
    assert count <= 2 * 60 + 5
    assert new_device is not None
    assert new_device < timedelta(seconds=60 + 65)


def test_an_administrator_can_unlock(
    accounts: AccountService, sign_in: SignIn, clock: Any
) -> None:
    for n in range(9):
        evaluated(lambda: sign_in("wrong", address=f"203.0.113.{n}"))  # noqa: B023
        clock.pass_(seconds=1)
    assert not evaluated(lambda: sign_in("wrong", address="203.0.113.8"))
    accounts.unlock(local_actor("t"), name="anna")
    assert sign_in(address="203.0.113.8")


def test_unknown_users_look_like_known_ones(accounts: AccountService, sign_in: SignIn) -> None:
    told = set()
    for name in ("anna", "nobody", "no such name!", "x" * 300, "a\0b", "\udc80"):
        with pytest.raises(NotSignedInError) as caught:
            sign_in("wrong", name=name, address=f"192.0.2.{len(name) % 250}")
        told.add((str(caught.value), caught.value.hint))
    assert len(told) == 1


def test_unknown_users_take_as_long_as_known_ones() -> None:
    passwords = Passwords(b"p" * 32, cost=6)
    stored = passwords.hash("right password")
    took: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(60):
        for known in (True, False):
            begin = time.perf_counter()
            passwords.matches("wrong password", stored if known else None)
            took[known].append(time.perf_counter() - begin)
    gap = statistics.median(took[True]) - statistics.median(took[False])
    assert abs(gap) < 0.01


def test_a_disabled_user_cannot_sign_in(
    accounts: AccountService, sign_in: SignIn, database: Database
) -> None:
    token = sign_in()
    with database.session() as session:
        session.execute(text("UPDATE users SET disabled = true"))
    with pytest.raises(NotSignedInError):
        sign_in()
    with pytest.raises(NotSignedInError):
        accounts.session(token, address="")


@pytest.mark.parametrize("password", ["x" * 72, "x" * 73, "x" * 1024, "a\0b", "\u0435\u0308" * 20])
def test_a_password_of_any_length_and_letters_works(passwords: Passwords, password: str) -> None:
    stored = passwords.hash(password)
    assert passwords.matches(password, stored)
    assert not passwords.matches(password + "x", stored) if len(password) < 1024 else True
    assert not passwords.matches(password[:-1], stored)


def test_two_ways_to_write_a_letter_are_one_password(passwords: Passwords) -> None:
    assert passwords.matches("e\u0301" * 12, passwords.hash("\u00e9" * 12))


@pytest.mark.parametrize("password", ["", "x" * 1025, "x" * (1 << 20), "\udc80" * 12])
def test_what_is_no_password_is_refused(passwords: Passwords, password: str) -> None:
    with pytest.raises(InvalidError):
        passwords.matches(password, None)


def test_a_hash_of_a_lower_cost_is_renewed_at_sign_in(
    accounts: AccountService, sign_in: SignIn, database: Database
) -> None:
    accounts.passwords = Passwords(b"p" * 32, cost=5)
    sign_in()
    with database.reading() as session:
        assert session.scalar(text("SELECT password_hash FROM users")).startswith("v1$$2b$05$")
    accounts.passwords = Passwords(b"p" * 32, cost=4)
    assert sign_in()


def test_the_audit_repeats_no_name_that_nobody_has(
    accounts: AccountService, sign_in: SignIn
) -> None:
    evaluated(lambda: sign_in("wrong", name="my password 1!"))
    rows = accounts.audit.list(local_actor("t")).rows
    assert "my password" not in repr(rows)
    assert rows[0].event == "user.sign-in-failed"


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::5", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_source_is_a_host_or_an_ipv6_network(address: str, source: str) -> None:
    assert source_of(address) == source
