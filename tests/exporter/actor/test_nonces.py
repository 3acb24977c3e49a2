from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from narthex_exporter.actor.nonces import Nonces
from narthex_exporter.actor.throttle import Throttle


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_nonce_is_good_once() -> None:
    nonces = Nonces()
    nonce = nonces.issue()
    assert [nonces.spend(nonce) for _ in range(100)] == [True, *[False] * 99]


def test_a_nonce_is_good_once_for_a_hundred_at_once() -> None:
    nonces = Nonces()
    nonce = nonces.issue()
    with ThreadPoolExecutor(20) as pool:
        assert sum(pool.map(nonces.spend, [nonce] * 100)) == 1


def test_a_nonce_of_another_start_is_not_good() -> None:
    assert not Nonces().spend(Nonces().issue())


def test_a_nonce_grows_stale_and_stays_spent_until_then() -> None:
    clock = Clock()
    nonces = Nonces(clock=clock, lifetime_seconds=300)
    spent, kept = nonces.issue(), nonces.issue()
    assert nonces.spend(spent)
    clock.now += 299
    assert not nonces.spend(spent)
    clock.now += 2
    assert not nonces.spend(kept)


def test_asking_for_many_pushes_out_none() -> None:
    nonces = Nonces(capacity=10)
    first = nonces.issue()
    for _ in range(1000):
        nonces.issue()
    assert nonces.spend(first)


def test_a_full_memory_refuses_and_recovers() -> None:
    clock = Clock()
    nonces = Nonces(clock=clock, capacity=4)
    assert all(nonces.spend(nonces.issue()) for _ in range(4))
    assert not nonces.spend(nonces.issue())
    clock.now += 301
    assert nonces.spend(nonces.issue())


@given(st.text(max_size=80))
def test_no_made_up_nonce_is_good(text: str) -> None:
    assert not Nonces().spend(text)


@pytest.mark.parametrize("change", [lambda n: n + "=", lambda n: n[:-1], lambda n: n + "x"])
def test_a_nonce_can_be_written_in_one_way_only(change: Callable[[str], str]) -> None:
    nonces = Nonces()
    assert not nonces.spend(change(nonces.issue()))


def test_a_throttle_counts_what_it_leaves_out() -> None:
    clock = Clock()
    throttle = Throttle(count=2, seconds=60, clock=clock)
    assert [throttle.admit() for _ in range(5)] == [0, 0, None, None, None]
    clock.now += 61
    assert throttle.admit() == 3
