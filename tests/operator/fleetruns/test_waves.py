"""How a fleet run goes on, decided by a pure function."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from narthex_operator.clients.prometheus import Sample
from narthex_operator.services.gates import judge
from narthex_operator.services.strategy import Strategy, spread
from narthex_operator.services.waves import (
    Decision,
    FleetRunState,
    Member,
    MemberState,
    Standing,
    decide,
)

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
ENDS = (MemberState.SUCCEEDED, MemberState.FAILED, MemberState.LOST, MemberState.TIMED_OUT)


@pytest.mark.parametrize(
    ("strategy", "nodes", "sizes"),
    [
        ({}, 5, (5,)),
        ({"canary": 1}, 5, (1, 4)),
        ({"canary": 1, "batch": "2"}, 6, (1, 2, 2, 1)),
        ({"batch": "10%"}, 25, (3, 3, 3, 3, 3, 3, 3, 3, 1)),
        ({"batch": "1%"}, 3, (1, 1, 1)),
        ({"canary": 9}, 3, (3,)),
        ({"canary": 3, "batch": "100%"}, 3, (3,)),
    ],
)
def test_waves_are_as_large_as_asked(
    strategy: dict[str, Any], nodes: int, sizes: tuple[int, ...]
) -> None:
    assert Strategy(**strategy).waves(nodes) == sizes


@pytest.mark.parametrize(
    "wrong",
    [{"batch": "0"}, {"batch": "0%"}, {"batch": "101%"}, {"batch": "ten"}, {"batch": "1e3"},
     {"batch": "1\n"}, {"canary": -1}, {"parallel": 0}, {"parallel": 65}, {"stop_after": 0},
     {"gate": "up", "gate_for_seconds": 90, "gate_timeout_seconds": 60},
     {"pause_seconds": float("inf")}, {"gate_for_seconds": float("nan")}, {"unknown": 1}],
)  # fmt: skip
def test_what_is_no_strategy_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Strategy(**wrong)


@given(
    st.integers(1, 300),
    st.integers(0, 20),
    st.one_of(st.integers(1, 50).map(str), st.integers(1, 100).map(lambda n: f"{n}%")),
)
def test_waves_take_in_every_node_once(nodes: int, canary: int, batch: str) -> None:
    sizes = Strategy(canary=canary, batch=batch).waves(nodes)
    assert sum(sizes) == nodes == len(spread(sizes))
    assert min(sizes) > 0


def standing(sizes: Sequence[int], **more: Any) -> Standing:
    members = [
        Member(run_id=str(number), wave=wave, state=MemberState.WAITING)
        for number, wave in enumerate(spread(sizes))
    ]
    return Standing(**{
        "state": FleetRunState.RUNNING, "strategy": Strategy(), "members": members, "wave": 0,
        "waves": len(sizes), "forgiven": 0, "cancelled": False, "now": NOW, "driven_at": NOW,
        **more,
    })  # fmt: skip


def with_states(now: Standing, **states: MemberState) -> Standing:
    changed = [replace(m, state=states.get(f"m{m.run_id}", m.state)) for m in now.members]
    return replace(now, members=changed)


def follow(now: Standing, decision: Decision, seconds: float = 1.0) -> Standing:
    """Apply a decision as the driver does."""
    members = [
        replace(m, state=MemberState.WITHDRAWN)
        if decision.withdraw and m.state is MemberState.WAITING
        else replace(m, state=MemberState.QUEUED)
        if m.run_id in decision.begin
        else m
        for m in now.members
    ]
    changed = decision.state is not now.state
    at = now.now + timedelta(seconds=seconds)
    return replace(
        now,
        state=decision.state,
        wave=decision.wave,
        members=members,
        now=at,
        driven_at=at,
        pause_until=at + timedelta(seconds=now.strategy.pause_seconds)
        if changed and decision.state is FleetRunState.PAUSING
        else now.pause_until,
        gate_began_at=at
        if changed and decision.state is FleetRunState.GATING
        else now.gate_began_at,
        halted_at=at if changed and decision.state is FleetRunState.HALTED else now.halted_at,
    )


def test_no_more_run_at_once_than_asked() -> None:
    now = standing([9], strategy=Strategy(parallel=4))
    assert len(decide(now).begin) == 4
    now = with_states(now, m0=MemberState.RUNNING, m1=MemberState.UNKNOWN, m2=MemberState.QUEUED)
    assert len(decide(now).begin) == 1


def test_the_next_wave_waits_for_the_last_of_the_one_before() -> None:
    now = with_states(standing([2, 3]), m0=MemberState.SUCCEEDED, m1=MemberState.RUNNING)
    assert decide(now) == Decision(state=FleetRunState.RUNNING, wave=0)
    assert decide(with_states(now, m1=MemberState.SUCCEEDED)).wave == 1


def test_it_stops_after_so_many_failures_and_says_so() -> None:
    now = with_states(standing([1, 4], strategy=Strategy(canary=1)), m0=MemberState.FAILED)
    halted = decide(now)
    assert halted.state is FleetRunState.HALTED
    assert "1 of 5 nodes failed" in halted.error
    forgiven = replace(now, forgiven=1)
    assert decide(forgiven).wave == 1


def test_what_runs_is_waited_for_before_it_halts() -> None:
    now = with_states(standing([4]), m0=MemberState.FAILED, m1=MemberState.RUNNING)
    assert decide(now) == Decision(state=FleetRunState.RUNNING, wave=0)


def test_an_end_with_failures_is_no_success() -> None:
    now = with_states(
        standing([2], strategy=Strategy(stop_after=5)),
        m0=MemberState.FAILED, m1=MemberState.SUCCEEDED,
    )  # fmt: skip
    assert decide(now).state is FleetRunState.FAILED


def test_a_gate_must_hold_without_a_gap_for_as_long_as_asked() -> None:
    gated = Strategy(gate="up", gate_for_seconds=60, gate_timeout_seconds=100)
    now = standing(
        [1, 1], strategy=gated, state=FleetRunState.GATING,
        gate_began_at=NOW - timedelta(seconds=99),
    )  # fmt: skip
    assert decide(now).state is FleetRunState.GATING
    held = replace(now, gate_since=NOW - timedelta(seconds=60))
    assert decide(held) == Decision(state=FleetRunState.RUNNING, wave=1)
    late = replace(now, gate_began_at=NOW - timedelta(seconds=100), gate_told="{} is 0")
    assert decide(late).state is FleetRunState.HALTED
    assert "{} is 0" in decide(late).error


def test_who_comes_back_after_long_asks_before_it_goes_on() -> None:
    now = replace(standing([3]), driven_at=NOW - timedelta(minutes=11))
    assert decide(now).state is FleetRunState.HALTED
    assert "no operator looked after it" in decide(now).error
    # What has begun already is only looked after.
    begun = with_states(now, m0=MemberState.RUNNING, m1=MemberState.QUEUED, m2=MemberState.LOST)
    assert decide(begun).state is FleetRunState.RUNNING


def test_what_nobody_lets_go_on_is_over_after_a_day() -> None:
    now = standing([3], state=FleetRunState.HALTED, halted_at=NOW - timedelta(hours=25))
    assert decide(now).state is FleetRunState.CANCELLED
    assert decide(now).withdraw


def test_a_cancel_withdraws_what_waits_and_stops_what_runs() -> None:
    now = with_states(standing([4], cancelled=True), m0=MemberState.RUNNING)
    first = decide(now)
    assert (first.withdraw, first.stop, first.state) == (True, True, FleetRunState.RUNNING)
    over = with_states(follow(now, first), m0=MemberState.CANCELLED)
    assert decide(over).state is FleetRunState.CANCELLED


STRATEGIES = st.builds(
    Strategy,
    canary=st.integers(0, 4),
    batch=st.sampled_from(["1", "3", "10%", "50%", "100%"]),
    parallel=st.integers(1, 8),
    stop_after=st.integers(1, 4),
    pause_seconds=st.sampled_from([0.0, 3.0]),
    gate=st.sampled_from(["", "up"]),
    gate_for_seconds=st.sampled_from([0.0, 4.0]),
    gate_timeout_seconds=st.sampled_from([5.0, 50.0]),
)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32), STRATEGIES, st.integers(1, 20))
def test_whatever_happens_each_member_begins_once_in_its_wave_and_it_ends(
    seed: int, strategy: Strategy, nodes: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's
    now = standing(strategy.waves(nodes), strategy=strategy)
    begun: list[str] = []
    for step in range(600):
        decision = decide(now)
        assert decide(now) == decision
        running = len(now.open)
        begun += decision.begin
        assert running + len(decision.begin) <= strategy.parallel
        for member in now.members:
            assert member.run_id not in decision.begin or member.wave <= now.wave
        now = follow(now, decision)
        if decision.begin:
            earlier = [m for m in now.members if m.wave < decision.wave]
            assert not [m for m in earlier if m.state.open or m.state is MemberState.WAITING]
        if now.state.final:
            break
        if now.state is FleetRunState.HALTED:
            assert not now.open
            if step > 300 or chance.random() < 0.5:
                now = replace(now, cancelled=True)
            else:
                now = replace(now, state=FleetRunState.RUNNING, forgiven=now.failures)
        green = chance.random() < 0.5 if step < 200 else True
        since = (now.gate_since or now.now) if green else None
        now = replace(now, gate_since=since if now.state is FleetRunState.GATING else None)
        for member in now.open:
            ended = step > 300 or chance.random() < 0.5
            end = chance.choice(ENDS) if ended else MemberState.RUNNING
            now = with_states(now, **{f"m{member.run_id}": end})
    assert now.state.final
    assert len(begun) == len(set(begun))
    done = {m.run_id for m in now.members if m.state is MemberState.SUCCEEDED}
    assert (now.state is FleetRunState.SUCCEEDED) is (len(done) == nodes)


def sample(value: float) -> Sample:
    return Sample(labels={"instance": "a"}, value=value, at=0.0)


@pytest.mark.parametrize(
    ("values", "holds"),
    [([], False), ([1.0], True), ([0.0], False), ([1.0, 0.0], False), ([3.5, -1.0], True),
     ([float("nan")], False), ([1.0, float("nan")], False), ([float("inf")], True)],
)  # fmt: skip
def test_a_gate_holds_while_there_is_a_sample_and_none_is_zero(
    values: list[float],
    holds: bool,  # noqa: FBT001 - a case's
) -> None:
    verdict = judge([sample(value) for value in values])
    assert verdict.holds is holds
    assert bool(verdict.told) is not holds
