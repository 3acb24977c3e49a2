"""What is gathered of several containers is bounded, counted and lets go."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from narthex_exporter.contract.containerfacts import LogFact
from narthex_exporter.contract.errors import RefusedError
from narthex_exporter.follows.container import Gathered, Read


def line(at: float, text: str = "x", container: str = "web") -> LogFact:
    return LogFact(container=container, stream="stdout", at_seconds=at, text=text)


def once(*lines: LogFact) -> Read:
    def read(name: str, since: float, _cancelled: Callable[[], bool]) -> Iterator[LogFact]:
        yield from (one for one in lines if one.container == name and one.at_seconds >= since)

    return read


def settled(gathered: Gathered, count: int) -> tuple[list[LogFact], int, dict[str, float]]:
    lines: list[LogFact] = []
    dropped = 0
    deadline = time.monotonic() + 5
    while True:
        more, left_out, reached = gathered.take()
        lines, dropped = lines + more, dropped + left_out
        if len(lines) + dropped >= count:
            return lines, dropped, reached
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_moment_s_own_line_is_not_told_again_and_one_without_a_time_is() -> None:
    gathered = Gathered(once(line(5.0, "old"), line(6.0, "new")), lambda: True)
    with gathered.reading({"web": 5.0}):
        lines, _, reached = settled(gathered, 1)
    assert [one.text for one in lines] == ["new"]
    assert reached == {"web": 6.0}
    gathered = Gathered(once(line(0.0, "timeless")), lambda: True)
    with gathered.reading({"web": 0.0}):
        assert settled(gathered, 1)[2] == {"web": 0.0}


def test_what_a_slow_listener_does_not_take_is_left_out_and_counted() -> None:
    lines = [line(float(at), "x" * 8192) for at in range(1, 1001)]
    read_whole = threading.Event()

    def read(_name: str, _since: float, cancelled: Callable[[], bool]) -> Iterator[LogFact]:
        yield from lines
        read_whole.set()
        while not cancelled():
            time.sleep(0.01)

    gathered = Gathered(read, lambda: True)
    with gathered.reading({"web": 0.0}):
        # It reads on to the end though nobody takes anything.
        assert read_whole.wait(5)
        kept, dropped, reached = settled(gathered, 1000)
    assert len(kept) == (1 << 20) // 8192
    assert dropped == 1000 - len(kept)
    assert reached == {"web": 1000.0}


def test_an_engine_s_end_is_raised_behind_what_it_told() -> None:
    def read(_name: str, _since: float, _cancelled: Callable[[], bool]) -> Iterator[LogFact]:
        yield line(7.0, "last")
        raise RefusedError("docker does not answer")

    gathered = Gathered(read, lambda: True)
    with gathered.reading({"web": 0.0}):
        assert [one.text for one in settled(gathered, 1)[0]] == ["last"]
        with pytest.raises(RefusedError, match="does not answer"):
            settled(gathered, 1)


def test_readers_end_with_their_listener() -> None:
    def read(_name: str, _since: float, cancelled: Callable[[], bool]) -> Iterator[LogFact]:
        while not cancelled():
            time.sleep(0.01)
        yield from ()

    before = threading.active_count()
    with Gathered(read, lambda: True).reading({"web": 0.0, "db": 0.0}):
        assert threading.active_count() == before + 2
    assert threading.active_count() == before
