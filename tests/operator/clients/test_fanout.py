"""The same for many at once: as it comes, in time, and none at the cost of another."""

import threading
import time
from collections.abc import Callable

import pytest

from narthex_operator.clients import fanout
from narthex_operator.clients.fanout import fan_out
from narthex_operator.errors import NotFoundError, OperatorError, UnreachableError


def asleep(seconds: float) -> Callable[[object, float], str]:
    def work(_item: object, _until: float) -> str:
        time.sleep(seconds)
        return "done"

    return work


def test_each_item_has_its_result() -> None:
    found = dict(fan_out(range(500), lambda n, _until: n * n, parallel=8, seconds=10))
    assert found == {n: n * n for n in range(500)}


def test_nothing_is_no_result() -> None:
    assert list(fan_out([], asleep(0), parallel=8, seconds=10)) == []


def test_results_come_as_they_are_ready() -> None:
    def work(seconds: float, _until: float) -> float:
        time.sleep(seconds)
        return seconds

    found = [one for one, _ in fan_out([0.6, 0.3, 0.0], work, parallel=3, seconds=10)]
    assert found == [0.0, 0.3, 0.6]


def test_no_more_are_under_way_than_was_said() -> None:
    lock, present, most = threading.Lock(), 0, 0

    def work(_item: int, _until: float) -> None:
        nonlocal present, most
        with lock:
            present += 1
            most = max(most, present)
        time.sleep(0.01)
        with lock:
            present -= 1

    assert len(list(fan_out(range(100), work, parallel=7, seconds=10))) == 100
    assert most == 7


def test_the_places_of_those_that_hang_are_given_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout, "PATIENCE_SECONDS", 0.2)
    released = threading.Event()

    def work(item: int, _until: float) -> int:
        if item < 8:
            released.wait(10)
        return item

    # As many hang as there are places, and they come first.
    quick = set()
    for item, _ in fan_out(range(108), work, parallel=8, seconds=8):
        quick.add(item)
        if len(quick) == 100:
            released.set()
    assert quick == set(range(108))
    assert released.is_set()


def test_all_is_over_at_the_deadline_whatever_hangs() -> None:
    began = time.monotonic()
    found = list(fan_out(range(20), asleep(3), parallel=4, seconds=0.5))
    assert time.monotonic() - began < 1.6
    assert sorted(item for item, _ in found) == list(range(20))
    assert all(isinstance(one, UnreachableError) for _, one in found)


def test_an_error_is_a_result_and_a_mistake_of_ours_costs_one_item(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def work(item: int, _until: float) -> int:
        if item == 1:
            raise NotFoundError("not there")
        return 1 // item

    found = dict(fan_out([0, 1, 2], work, parallel=2, seconds=5))
    assert isinstance(found[1], NotFoundError)
    assert isinstance(found[0], OperatorError)
    assert "division" not in str(found[0])
    assert found[2] == 0
    assert "ZeroDivisionError" in caplog.text


def test_who_stops_asking_stops_what_was_not_begun() -> None:
    begun: list[int] = []

    def work(item: int, _until: float) -> None:
        begun.append(item)
        time.sleep(0.02)

    results = fan_out(range(1000), work, parallel=2, seconds=60)
    next(results)
    results.close()  # type: ignore[attr-defined] # it is a generator
    time.sleep(0.2)
    many = len(begun)
    time.sleep(0.2)
    assert many == len(begun) < 20
