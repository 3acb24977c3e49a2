"""Decide how a fleet run goes on: a pure function of what is known of it."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from narthex_exporter.contract.wire import RunState
from narthex_operator.services.strategy import Strategy

# Who comes back to a fleet run after longer than this must be asked first.
AWAY: Final = timedelta(minutes=10)
# What nobody lets go on within this is over.
FORGOTTEN: Final = timedelta(hours=24)
# A gate that was not asked for longer than this may have been red in between.
GAP: Final = timedelta(seconds=20)


class FleetRunState(enum.StrEnum):
    """Where a fleet run stands.

    ``pausing``: between waves · ``gating``: until its gate has held · ``halted``: nothing more is
    begun until a person lets it go on, or cancels it.
    """

    RUNNING = "running"
    PAUSING = "pausing"
    GATING = "gating"
    HALTED = "halted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Tell whether it is over."""
        return self in {self.SUCCEEDED, self.FAILED, self.CANCELLED}


class MemberState(enum.StrEnum):
    """Where one node of a fleet run stands: as its run does, once that is written.

    ``waiting``: its turn has not come · ``withdrawn``: it never came · ``left_out``: it refused
    at the plan.
    """

    WAITING = "waiting"
    WITHDRAWN = "withdrawn"
    LEFT_OUT = "left_out"
    UNAPPROVED = "unapproved"
    QUEUED = "queued"
    RUNNING = "running"
    CONFIRMING = "confirming"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REVERTED = "reverted"
    EXPIRED = "expired"
    LOST = "lost"

    @property
    def open(self) -> bool:
        """Tell whether its run is written and not over."""
        return self in _OPEN

    @property
    def failed(self) -> bool:
        """Tell whether its run is over, and not well."""
        return self in _FAILED


_OPEN: Final = frozenset(MemberState(state) for state in RunState if not state.final)
_FAILED: Final = frozenset(
    MemberState(state) for state in RunState if state.final and state is not RunState.SUCCEEDED
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What the decision needs to know of one node."""

    run_id: str
    wave: int
    state: MemberState


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is known of a fleet run. ``gate_since`` is since when its gate has held."""

    state: FleetRunState
    strategy: Strategy
    members: Sequence[Member]
    wave: int
    waves: int
    forgiven: int
    cancelled: bool
    now: datetime
    driven_at: datetime
    halted_at: datetime | None = None
    pause_until: datetime | None = None
    gate_began_at: datetime | None = None
    gate_since: datetime | None = None
    gate_told: str = ""

    @property
    def failures(self) -> int:
        """How many have failed."""
        return sum(member.state.failed for member in self.members)

    @property
    def waiting(self) -> list[Member]:
        """Whose turn has not come."""
        return [one for one in self.members if one.state is MemberState.WAITING]

    @property
    def open(self) -> list[Member]:
        """Whose run is under way."""
        return [one for one in self.members if one.state.open]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What comes next. ``begin`` are runs to be begun, ``error`` why it is halted."""

    state: FleetRunState
    wave: int
    begin: tuple[str, ...] = ()
    withdraw: bool = False
    stop: bool = False
    error: str = ""
    hint: str = ""


_GO_ON: Final = "look at the nodes, then let it go on, or cancel it"


def decide(now: Standing) -> Decision:
    """Decide what comes next; calling it again with the same gives the same."""
    if now.cancelled:
        return _cancel(now)
    if now.state is FleetRunState.HALTED:
        if now.halted_at is not None and now.now - now.halted_at > FORGOTTEN:
            return _cancel(now, error="nobody let it go on within a day")
        return _wait(now)
    if now.waiting and now.now - now.driven_at > AWAY:
        since, until = f"{now.driven_at:%Y-%m-%d %H:%M}", f"{now.now:%H:%M} UTC"
        return _halt(now, f"no operator looked after it from {since} to {until}")
    if now.waiting and now.failures - now.forgiven >= now.strategy.stop_after:
        told = f"{now.failures} of {len(now.members)} nodes failed"
        return _wait(now) if now.open else _halt(now, told)
    phases = {FleetRunState.PAUSING: _pause, FleetRunState.GATING: _gate}
    return phases.get(now.state, _run)(now)


def _wait(now: Standing) -> Decision:
    return Decision(state=now.state, wave=now.wave)


def _pause(now: Standing) -> Decision:
    if now.pause_until is not None and now.now < now.pause_until:
        return _wait(now)
    return _after_pause(now)


def _run(now: Standing) -> Decision:
    due = [member for member in now.waiting if member.wave <= now.wave]
    if due:
        room = max(0, now.strategy.parallel - len(now.open))
        begin = tuple(member.run_id for member in due[:room])
        return Decision(state=now.state, wave=now.wave, begin=begin)
    if now.open:
        return _wait(now)
    if not now.waiting:
        done = FleetRunState.FAILED if now.failures else FleetRunState.SUCCEEDED
        return Decision(state=done, wave=now.wave)
    if now.strategy.pause_seconds:
        return Decision(state=FleetRunState.PAUSING, wave=now.wave)
    return _after_pause(now)


def _after_pause(now: Standing) -> Decision:
    if now.strategy.gate:
        return Decision(state=FleetRunState.GATING, wave=now.wave)
    return _next_wave(now)


def _gate(now: Standing) -> Decision:
    held = timedelta(seconds=now.strategy.gate_for_seconds)
    if now.gate_since is not None and now.now - now.gate_since >= held:
        return _next_wave(now)
    patience = timedelta(seconds=now.strategy.gate_timeout_seconds)
    if now.gate_began_at is not None and now.now - now.gate_began_at >= patience:
        seconds = f"{now.strategy.gate_timeout_seconds:g} s"
        why = now.gate_told or "it was red in between"
        return _halt(now, f"the gate did not hold within {seconds}: {why}")
    return _wait(now)


def _next_wave(now: Standing) -> Decision:
    return Decision(state=FleetRunState.RUNNING, wave=min(now.wave + 1, now.waves - 1))


def _halt(now: Standing, error: str) -> Decision:
    return Decision(state=FleetRunState.HALTED, wave=now.wave, error=error, hint=_GO_ON)


def _cancel(now: Standing, error: str = "") -> Decision:
    state = now.state if now.open else FleetRunState.CANCELLED
    return Decision(state=state, wave=now.wave, withdraw=True, stop=True, error=error)
