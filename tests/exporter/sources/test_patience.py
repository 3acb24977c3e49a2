"""Calls that hang cost their own limit once, whatever the mix."""

import threading
import time
from collections.abc import Callable

import pytest

from narthex_exporter.sources.patience import Outcome, Patience


@pytest.fixture
def go_on() -> threading.Event:
    return threading.Event()


def _calls(pattern: str, go_on: threading.Event) -> dict[int, Callable[[], str]]:
    """``.`` answers, ``!`` fails, ``h`` hangs."""

    def fail() -> str:
        raise OSError("broken")

    def hang() -> str:
        go_on.wait(10)
        return "late"

    acts = {".": lambda: "well", "!": fail, "h": hang}
    return {number: acts[letter] for number, letter in enumerate(pattern)}


def _pattern(found: dict[int, Outcome[str]]) -> str:
    return "".join(
        "h" if found[n].stuck else "!" if found[n].error else "." for n in sorted(found)
    )


@pytest.mark.parametrize("pattern", ["", ".", "!", "h", ".h.", "hh!.", "..!h", "h.h.h.!"])
def test_every_call_has_its_own_outcome(pattern: str, go_on: threading.Event) -> None:
    patience: Patience[int, str] = Patience("test")
    calls = _calls(pattern, go_on)
    began = time.monotonic()
    found = patience.run(calls, limit=lambda _: 0.05, total_seconds=5)
    assert time.monotonic() - began < 0.05 * pattern.count("h") + 1
    assert _pattern(found) == pattern
    assert len(patience.hung) == pattern.count("h")
    again = patience.run(calls, limit=lambda _: 0.05, total_seconds=5)
    assert _pattern(again) == pattern
    go_on.set()
    deadline = time.monotonic() + 3
    while patience.hung:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    healed = patience.run(calls, limit=lambda _: 1.0, total_seconds=5)
    assert _pattern(healed) == pattern.replace("h", ".")


def test_the_whole_is_bounded_too(go_on: threading.Event) -> None:
    patience: Patience[int, str] = Patience("test")
    began = time.monotonic()
    found = patience.run(_calls("h" * 50, go_on), limit=lambda _: 0.1, total_seconds=0.25)
    assert time.monotonic() - began < 1
    assert _pattern(found) == "h" * 50
    assert len(patience.hung) <= 3
    go_on.set()


def test_few_threads_wait_however_many_calls_hang(go_on: threading.Event) -> None:
    patience: Patience[int, str] = Patience("test", hung_at_most=4)
    found = patience.run(_calls("h" * 50, go_on), limit=lambda _: 0.01, total_seconds=5)
    assert _pattern(found) == "h" * 50
    assert len(patience.hung) == 4
    go_on.set()


def test_runs_at_once_take_turns_and_answer_in_time(go_on: threading.Event) -> None:
    patience: Patience[int, str] = Patience("test")
    found: list[str] = []
    calls = _calls(".h.", go_on)
    threads = [
        threading.Thread(
            target=lambda: found.append(
                _pattern(patience.run(calls, limit=lambda _: 0.1, total_seconds=3))
            )
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert found == [".h."] * 8
    assert len(patience.hung) == 1
    go_on.set()
