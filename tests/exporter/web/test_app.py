"""The parts beside the web server start, stop and are replaced together."""

from collections.abc import Iterable
from typing import Any

import pytest

from narthex_exporter.app import Part, Parts
from narthex_exporter.collectors.spec import Sample, gauge
from narthex_exporter.errors import ConfigError


class Fake:
    """A part that tells what is done to it."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name = name
        self.told = told

    def start(self) -> None:
        self.told.append(f"start {self.name}")

    def stop(self) -> None:
        self.told.append(f"stop {self.name}")

    def samples(self) -> Iterable[Sample]:
        return [gauge(self.name, "Help.").at(1)]


def test_parts_stop_in_reverse_and_restart_as_new() -> None:
    told: list[str] = []
    rounds = iter([["a", "b"], ["c"]])
    parts = Parts(lambda: [Fake(name, told) for name in next(rounds)])
    parts.start()
    assert [sample.metric.name for sample in parts.samples()] == ["a", "b"]
    parts.restart()
    parts.stop()
    assert told == ["start a", "start b", "stop b", "stop a", "start c", "stop c"]
    assert not parts.started


def test_a_wrong_file_stops_nothing_that_runs() -> None:
    told: list[str] = []
    rounds: Any = iter([[Fake("a", told)]])

    def make() -> list[Part]:
        found: list[Part] | None = next(rounds, None)
        if found is None:
            raise ConfigError("wrong")
        return found

    parts = Parts(make)
    parts.start()
    with pytest.raises(ConfigError):
        parts.restart()
    assert told == ["start a"]
    assert parts.started
