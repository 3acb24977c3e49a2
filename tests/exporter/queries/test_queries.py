from typing import Any

import pytest
from pydantic import ValidationError
from tests.exporter.actions.conftest import PretendedFacts, pretended

from narthex_exporter.queries import CATALOGUE

PROCESSES = [
    {"pid": 3, "start_ticks": 1, "comm": "idle", "rss_bytes": 30, "cpu_ratio": 0.0},
    {"pid": 1, "start_ticks": 1, "comm": "busy", "rss_bytes": 10, "cpu_ratio": 0.9},
    {"pid": 2, "start_ticks": 1, "comm": "new", "rss_bytes": 20, "cpu_ratio": None, "user": "bob",
     "cmdline": "new\x00--password=hunter2"},
]  # fmt: skip
UNITS = [
    {"name": "b.service"},
    {"name": "a.service"},
    {"name": "a.timer"},
    {"name": "a.mount"},
    {"name": "a.socket"},
]


def ask(name: str, params: dict[str, Any], facts: PretendedFacts | None = None) -> Any:
    query = CATALOGUE[name]
    known = facts or pretended({"processes": PROCESSES, "units": UNITS})
    return query.read(query.params.model_validate(params), known)


@pytest.mark.parametrize(
    ("params", "pids"),
    [
        ({}, [1, 2, 3]),
        ({"order": "memory"}, [3, 2, 1]),
        ({"order": "pid", "limit": 2}, [1, 2]),
        ({"match": "BUSY"}, [1]),
        ({"match": "bob"}, [2]),
        ({"match": "nothing"}, []),
        ({"match": "hunter"}, []),
    ],
)
def test_processes_are_ordered_bounded_and_found(params: dict[str, Any], pids: list[int]) -> None:
    assert [one.pid for one in ask("process.list", params).processes] == pids


def test_a_list_tells_how_many_there_are_in_all() -> None:
    assert ask("process.list", {"limit": 1}).total == 3
    assert ask("service.list", {"limit": 1}).total == 2


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({}, ["a.service", "b.service"]),
        ({"type": "timer"}, ["a.timer"]),
        ({"type": "all"}, ["a.mount", "a.service", "a.socket", "a.timer", "b.service"]),
        ({"type": "mount"}, ["a.mount"]),
    ],
)
def test_units_are_listed_by_name_and_type(params: dict[str, Any], names: list[str]) -> None:
    assert [unit.name for unit in ask("service.list", params).units] == names


def test_a_unit_is_told_with_its_last_lines() -> None:
    facts = pretended({"units": UNITS})
    facts.units.logged = tuple(str(number) for number in range(30))
    detail = ask("service.get", {"unit": "a.service"}, facts)
    assert detail.unit.name == "a.service"
    assert detail.journal == tuple(str(number) for number in range(10, 30))


def test_what_is_not_there_is_none() -> None:
    assert ask("service.get", {"unit": "no.service"}).unit is None
    assert ask("process.get", {"pid": 99}).process is None


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("process.list", {"limit": 0}),
        ("process.list", {"limit": 5001}),
        ("process.list", {"order": "name"}),
        ("process.list", {"match": "x" * 129}),
        ("process.get", {"pid": 0}),
        ("service.get", {"unit": "--help"}),
        ("service.list", {"type": "device"}),
        ("host.info", {"x": 1}),
    ],
)
def test_wrong_parameters_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CATALOGUE[name].params.model_validate(params)
