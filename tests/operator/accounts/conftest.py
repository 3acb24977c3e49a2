from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from narthex_operator.db import Database
from narthex_operator.security.passwords import Passwords
from narthex_operator.services.access import local_actor
from narthex_operator.services.accounts import AccountService
from narthex_operator.services.audit import AuditLedger


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, **amount: float) -> None:
        self.now += timedelta(**amount)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def passwords() -> Passwords:
    return Passwords(b"p" * 32, cost=4)


@pytest.fixture
def accounts(database: Database, passwords: Passwords, clock: Clock) -> AccountService:
    audit = AuditLedger(database=database, clock=clock)
    return AccountService(database=database, audit=audit, passwords=passwords, clock=clock)


@pytest.fixture
def anna(accounts: AccountService) -> str:
    """The password of a user, anna, an operator."""
    return accounts.add_user(local_actor("t"), name="anna", role="operator", password=None)


@pytest.fixture
def sign_in(accounts: AccountService, anna: str) -> Callable[..., str]:
    def do(password: str = anna, *, address: str = "192.0.2.1", name: str = "anna") -> str:
        return accounts.sign_in(name, password, address=address, user_agent="test")

    return do
