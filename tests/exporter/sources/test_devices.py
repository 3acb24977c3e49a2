"""What devices there are is looked up again after some seconds, not at each scrape."""

from narthex_exporter.sources.devices import Devices


def test_what_was_found_is_kept_for_ten_seconds_of_its_own_kind() -> None:
    now, looks = [100.0], ["first", "second", "third"]
    devices = Devices(clock=lambda: now[0])
    assert devices.remembered("fans", lambda: looks.pop(0)) == "first"
    now[0] += 9.9
    assert devices.remembered("fans", lambda: looks.pop(0)) == "first"
    assert devices.remembered("tapes", lambda: looks.pop(0)) == "second"
    now[0] += 0.1
    assert devices.remembered("fans", lambda: looks.pop(0)) == "third"


def test_that_there_is_nothing_is_remembered_too() -> None:
    looks: list[str | None] = [None, "later"]
    devices = Devices(clock=lambda: 1.0)
    for _ in range(3):
        assert devices.remembered("fans", lambda: looks.pop(0)) is None
