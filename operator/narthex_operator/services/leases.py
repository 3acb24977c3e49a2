"""Let one of several operators do something alone, for as long as it says that it lives."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from narthex_operator.db import Database
from narthex_operator.db.models import Lease

LIFETIME: Final = timedelta(seconds=30)
HEARTBEAT_SECONDS: Final = 10.0


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, kw_only=True)
class Leases:
    """Takes and renews leases in the database's own time, so that clocks may differ.

    ``holder`` names this start of this operator: after a restart it is somebody else, and waits
    until what the one before held has run out, unless ``alone`` (SQLite's file has one
    operator): then nobody else can hold anything.
    """

    database: Database
    alone: bool = False
    holder: str = field(default_factory=lambda: secrets.token_hex(8))
    clock: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    _renewed: dict[str, float] = field(default_factory=dict, init=False)

    def leads(self, name: str) -> bool:
        """Tell whether a lease is ours, renewing it every 10 s."""
        now = self.monotonic()
        if now - self._renewed.get(name, -HEARTBEAT_SECONDS) < HEARTBEAT_SECONDS:
            return True
        if not self.hold(name):
            self._renewed.pop(name, None)
            return False
        self._renewed[name] = now
        return True

    def hold(self, name: str) -> bool:
        """Take a lease or renew it; tell whether it is ours for the next 30 s."""
        with self.database.session() as session:
            now = self.now(session)
            lease = session.get(Lease, name, with_for_update=True)
            if lease is not None:
                if lease.holder != self.holder:
                    if lease.expires_at > now and not self.alone:
                        return False
                    lease.holder, lease.term = self.holder, lease.term + 1
                lease.expires_at = now + LIFETIME
                return True
        return self._make(name)

    def guard(self, session: Session, name: str) -> bool:
        """Tell within a transaction whether a lease still is ours, and keep it so to its end."""
        lease = session.get(Lease, name, with_for_update=True, populate_existing=True)
        return (
            lease is not None
            and lease.holder == self.holder
            and lease.expires_at > self.now(session)
        )

    def release(self) -> None:
        """Let go of everything, so that another need not wait."""
        self._renewed.clear()
        with self.database.session() as session:
            session.execute(
                update(Lease)
                .where(Lease.holder == self.holder)
                .values(expires_at=self.now(session) - timedelta(seconds=1))
            )

    def now(self, session: Session) -> datetime:
        """Tell the time that every operator of this database agrees on."""
        if self.database.engine.dialect.name != "postgresql":
            return self.clock()
        found: datetime = session.scalars(select(func.clock_timestamp())).one()
        return found

    def _make(self, name: str) -> bool:
        try:
            with self.database.session() as session:
                expires = self.now(session) + LIFETIME
                session.add(Lease(name=name, holder=self.holder, term=1, expires_at=expires))
        except IntegrityError:
            return False  # another operator was quicker
        return True
