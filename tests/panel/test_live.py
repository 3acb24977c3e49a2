"""Live data: one reading for many viewers, only what changed, bounded."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from tests.panel.fakes import World, services
from tests.panel.webapp import COOKIE, make_app

from narthex_operator.errors import LimitedError, NotSignedInError, UnreachableError
from narthex_panel.live import MAX_STREAMS, Events, Live, Shared, changed_rows


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def live(clock: Clock) -> Live:
    return Live(shared=Shared(clock=clock), clock=clock, sleep=clock.sleep)


def events(chunks: list[str]) -> list[tuple[str, Any]]:
    found = []
    for chunk in chunks:
        lines = dict(one.split(": ", 1) for one in chunk.strip().split("\n") if ": " in one)
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def always() -> None:
    return None


@pytest.mark.parametrize(
    ("before", "after", "rows", "removed"),
    [
        ({}, {"a": "1"}, {"a": "1"}, []),
        ({"a": "1"}, {"a": "1"}, None, None),
        ({"a": "1", "b": "2"}, {"a": "9"}, {"a": "9"}, ["b"]),
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, None, None),
    ],
)
def test_only_rows_that_changed_are_sent(
    before: dict[str, str],
    after: dict[str, str],
    rows: dict[str, str] | None,
    removed: list[str] | None,
) -> None:
    found = changed_rows(before, after)
    assert (found.get("rows"), found.get("removed")) == (rows, removed)


def test_many_viewers_cost_one_reading_an_interval(clock: Clock) -> None:
    reads = []
    shared = Shared(clock=clock)
    for _ in range(20):
        shared.get("fleet", lambda: reads.append(1))
    assert len(reads) == 1
    clock.now += 2.0
    shared.get("fleet", lambda: reads.append(1))
    assert len(reads) == 2


def test_a_failed_reading_is_shared_too(clock: Clock) -> None:
    reads = []

    def fail() -> str:
        reads.append(1)
        raise UnreachableError("Prometheus does not answer")

    shared = Shared(clock=clock)
    for _ in range(5):
        with pytest.raises(UnreachableError):
            shared.get("fleet", fail)
    assert len(reads) == 1


def test_what_nobody_asks_for_is_forgotten(clock: Clock) -> None:
    shared = Shared(clock=clock)
    for number in range(100):
        shared.get(number, lambda: 1)
    clock.now += 120
    shared.get("new", lambda: 1)
    assert len(shared._entries) == 1


def test_a_stream_ends_by_itself(live: Live, clock: Clock) -> None:
    chunks = list(live.stream(dict, still_allowed=always))
    assert 590 <= clock.now <= 610
    assert sum(chunk == ": still here\n\n" for chunk in chunks) > 30


def test_a_stream_ends_when_its_session_does(live: Live, clock: Clock) -> None:
    def revoked() -> None:
        raise NotSignedInError("the session has ended")

    chunks = list(live.stream(dict, still_allowed=revoked))
    assert events(chunks) == [("ended", {"reason": "signed-out"})]
    assert clock.now <= 18


def test_a_stream_tells_of_problems_and_goes_on(live: Live) -> None:
    def fail() -> Events | None:
        raise UnreachableError("no answer", hint="look")

    answers: list[Callable[[], Events | None]] = [
        lambda: {"rows": 1},
        fail,
        fail,
        lambda: {"rows": 2},
        lambda: None,
    ]

    def look() -> Events | None:
        return answers.pop(0)()

    chunks = list(live.stream(look, still_allowed=always))
    assert [name for name, _ in events(chunks)] == [
        "rows",
        "problem",
        "recovered",
        "rows",
        "ended",
    ]


def test_streams_are_bounded(live: Live) -> None:
    for _ in range(MAX_STREAMS):
        live.admit()
    with pytest.raises(LimitedError):
        live.admit()
    live.leave()
    live.admit()


def test_the_fleet_stream_sends_all_then_only_what_changed(
    world: World, live: Live, clock: Clock
) -> None:
    world.now = world.time
    live.lifetime_seconds = 5.0
    real = clock.sleep

    def sleep(seconds: float) -> None:
        real(seconds)
        world.cpu = 0.01

    live.sleep = sleep
    client = make_app(services(world), live=live).test_client()
    client.set_cookie(COOKIE, "t", domain="localhost")
    found = events(client.get("/live/fleet").text.split("\n\n"))
    first, second = (data for name, data in found if name == "rows")
    assert len(first["rows"]) == 7
    # Five nodes have a CPU figure; those without are not sent again.
    assert len(second["rows"]) == 5
    assert "part" in dict(found)


def test_a_finished_run_ends_its_stream(client: FlaskClient) -> None:
    found = events(client.get("/live/runs/0190-a").text.split("\n\n"))
    assert [name for name, _ in found] == ["parts", "ended"]


def test_slots_come_back_when_a_browser_goes(world: World, live: Live) -> None:
    live.lifetime_seconds = 0.0
    client = make_app(services(world), live=live).test_client()
    client.set_cookie(COOKIE, "t", domain="localhost")
    for _ in range(200):
        client.get("/live/alerts").close()
    live.admit()
