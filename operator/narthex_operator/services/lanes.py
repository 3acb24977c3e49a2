"""Slow guessing down without letting anybody lock somebody else out.

A try to sign in passes some lanes, each with a pace of its own. A *source* is an IPv4 address
or an IPv6 /64.

- every source: ten tries, then 2, 4, 8, … s between them, at most 15 min;
- an account, from sources where it has not signed in before: after five failures at most one
  try a second in all, and for each such source 2, 4, … 60 s between its own;
- an account from a source where it has signed in before: a lane of its own, so that what
  outsiders do never slows its owner.

One failure is forgotten a minute. Nothing is ever locked.
"""

import hashlib
import ipaddress
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete
from sqlalchemy.orm import Session

from narthex_operator.db.models import SignInLane
from narthex_operator.errors import LimitedError
from narthex_operator.security.chain import clean

_FORGET_SECONDS: Final = 60.0
_KEEP: Final = timedelta(hours=1)
_MOST: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """So many tries are free; then the wait doubles up to ``most_seconds``."""

    free: int
    most_seconds: float

    def wait_seconds(self, failures: float) -> float:
        """Tell how long to wait after so many failures."""
        over = math.ceil(failures) - self.free
        return 0.0 if over < 0 else min(2.0 ** (over + 1), self.most_seconds)


SOURCE: Final = Pace(free=10, most_seconds=900)
ACCOUNT: Final = Pace(free=5, most_seconds=60)
KNOWN: Final = Pace(free=10, most_seconds=60)
_SPACING_SECONDS: Final = 1.0


def source_of(address: str) -> str:
    """Name the network that an address stands for: /32, or /64 for IPv6."""
    try:
        ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    except ValueError:
        return clean(address, limit=63)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.ip_network((ip, 64), strict=False))
    return str(ip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """The lanes of one try."""

    name: str
    source: str
    known: bool

    def enter(self, session: Session, now: datetime) -> None:
        """Count a try that is about to be made, as if it failed. Raises LimitedError instead."""
        session.execute(delete(SignInLane).where(SignInLane.changed_at < now - _KEEP))
        lanes = [_lane(session, f"source/{self.source}", now)]
        if self.known:
            lanes.append(_lane(session, f"known/{self._key}/{self.source}", now))
        else:
            lanes.append(_lane(session, f"account/{self._key}", now))
            lanes.append(_lane(session, f"pair/{self._key}/{self.source}", now))
        wait = max((lane.next_at - now).total_seconds() for lane in lanes)
        if wait > 0:
            raise LimitedError(
                "too many tries to sign in", retry_after_seconds=wait, hint="wait, then try again"
            )
        for lane in lanes:
            lane.failures = min(lane.failures + 1, _MOST)
        _pause(lanes[0], SOURCE.wait_seconds(lanes[0].failures), now)
        if self.known:
            _pause(lanes[1], KNOWN.wait_seconds(lanes[1].failures), now)
            return
        wait = ACCOUNT.wait_seconds(lanes[1].failures)
        if wait:
            _pause(lanes[1], _SPACING_SECONDS, now)
            _pause(lanes[2], wait, now)

    def succeed(self, session: Session, now: datetime) -> None:
        """Take back what ``enter`` counted, once the password was right."""
        for name in (f"known/{self._key}/{self.source}", f"pair/{self._key}/{self.source}"):
            session.execute(delete(SignInLane).where(SignInLane.lane == name))
        for name in (f"source/{self.source}", f"account/{self._key}"):
            lane = _lane(session, name, now)
            lane.failures = max(0.0, lane.failures - 1)
            lane.next_at = now

    def forget(self, session: Session) -> None:
        """Forget every failure of the account: an administrator's word."""
        for kind in ("account", "pair", "known"):
            start = f"{kind}/{self._key}"
            session.execute(
                delete(SignInLane).where(
                    (SignInLane.lane == start) | SignInLane.lane.startswith(f"{start}/")
                )
            )

    @property
    def _key(self) -> str:
        # Names that nobody has are tried too, of any length: their lanes look the same.
        return hashlib.sha256(self.name.encode(errors="replace")).hexdigest()[:32]


def _lane(session: Session, name: str, now: datetime) -> SignInLane:
    lane = session.get(SignInLane, name)
    if lane is None:
        lane = SignInLane(lane=name, failures=0.0, changed_at=now, next_at=now)
        session.add(lane)
    quiet = max(0.0, (now - lane.changed_at).total_seconds())
    lane.failures = max(0.0, lane.failures - quiet / _FORGET_SECONDS)
    lane.changed_at = now
    return lane


def _pause(lane: SignInLane, seconds: float, now: datetime) -> None:
    lane.next_at = max(lane.next_at, now + timedelta(seconds=seconds))
