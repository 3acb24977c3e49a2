from typing import Any

import pytest
from pydantic import ValidationError
from tests.exporter.actions.conftest import PretendedFacts, pretended

from narthex_exporter.contract.errors import RefusedError
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


TREE = [
    {"pid": 1, "start_ticks": 1, "ppid": 0, "comm": "init", "user": "root"},
    {"pid": 20, "start_ticks": 1, "ppid": 10, "comm": "worker", "user": "www",
     "owner_unit": "web.service"},
    {"pid": 10, "start_ticks": 1, "ppid": 1, "comm": "web", "owner_unit": "web.service"},
    {"pid": 30, "start_ticks": 1, "ppid": 1, "comm": "db", "owner_container": "0123456789ab"},
    # Parents that lead back to themselves are no tree, and must not hang it.
    {"pid": 40, "start_ticks": 1, "ppid": 41, "comm": "loop"},
    {"pid": 41, "start_ticks": 1, "ppid": 40, "comm": "loop"},
]  # fmt: skip
NET = {
    "listeners": [{"protocol": "tcp", "address": "::", "port": 80, "pid": 10,
                   "unit": "web.service"}],
    "connections": [{"protocol": "tcp", "local_address": "10.0.0.1", "local_port": 5432,
                     "peer_address": "10.0.0.2", "peer_port": 9, "pid": 30}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("params", "rows"),
    [
        ({"match": "init"}, [(1, 0, True)]),
        ({"user": "www"}, [(1, 0, False), (10, 1, False), (20, 2, True)]),
        ({"unit": "web.service"}, [(1, 0, False), (10, 1, True), (20, 2, True)]),
        ({"port": 80}, [(1, 0, False), (10, 1, True)]),
        ({"match": "nothing"}, []),
    ],
)
def test_a_tree_leads_to_what_matches(
    params: dict[str, Any], rows: list[tuple[int, int, bool]]
) -> None:
    found = ask("process.tree", params, pretended({"processes": TREE, **NET}))
    assert [(one.pid, one.depth, one.matches) for one in found.processes] == rows
    assert found.total == sum(matches for _, _, matches in rows)


def test_parents_that_go_round_in_circles_are_no_tree() -> None:
    found = ask("process.tree", {"match": "loop"}, pretended({"processes": TREE}))
    assert found.total == 2


@pytest.mark.parametrize(
    ("params", "pids"),
    [
        ({"user": "www"}, [20]),
        ({"unit": "web.service"}, [10, 20]),
        ({"unit": "0123456789ab"}, [30]),
        ({"port": 5432}, [30]),
        ({"port": 1}, []),
    ],
)
def test_processes_are_filtered_by_user_unit_and_port(
    params: dict[str, Any], pids: list[int]
) -> None:
    facts = pretended({"processes": TREE, **NET})
    found = ask("process.list", {"order": "pid", **params}, facts)
    assert [one.pid for one in found.processes] == pids


def test_a_process_is_told_with_its_relatives_and_sockets() -> None:
    found = ask("process.get", {"pid": 10}, pretended({"processes": TREE, **NET}))
    assert [one.pid for one in found.parents] == [1]
    assert [(one.pid, one.depth) for one in found.children] == [(20, 0)]
    assert [(one.local, one.peer) for one in found.sockets] == [("[::]:80", "")]
    assert [(one.kind, one.shared) for one in found.namespaces] == [("net", True), ("pid", False)]


def test_an_environment_is_masked_by_its_names() -> None:
    facts = pretended({"processes": TREE})
    facts.processes.variables = (
        "DB_PASS=a", "DJANGO_SECRET=b", "SSH_AUTH_SOCK=c", "HOME=/root", "URL=http://u:p@h/",
        "EMPTY_TOKEN=", "NOVALUE",
    )  # fmt: skip
    found = ask("process.environment", {"pid": 10, "start_ticks": 1}, facts)
    assert found.variables == (
        "DB_PASS=***", "DJANGO_SECRET=***", "SSH_AUTH_SOCK=***", "HOME=/root",
        "URL=http://u:***@h/", "EMPTY_TOKEN=", "NOVALUE",
    )  # fmt: skip
    assert ask("process.environment", {"pid": 10, "start_ticks": 2}, facts).variables is None


def test_only_a_permission_of_its_own_shows_an_environment() -> None:
    assert CATALOGUE["process.environment"].permission == "inspect:process.environment"


def test_units_are_filtered_and_failed_ones_stand_first() -> None:
    units = [*UNITS, {"name": "z.service", "active_state": "failed", "description": "The web"},
             {"name": "c.service", "active_state": "inactive"}]  # fmt: skip
    facts = pretended({"units": units})
    assert ask("service.list", {}, facts).units[0].name == "z.service"
    for params, names in (
        ({"state": "failed"}, ["z.service"]),
        ({"state": "inactive"}, ["c.service"]),
        ({"match": "WEB"}, ["z.service"]),
    ):
        assert [one.name for one in ask("service.list", params, facts).units] == names


def test_the_units_of_a_user_are_told_or_why_they_are_not() -> None:
    facts = pretended({"users_units": {"alice": {"units": [{"name": "own.service"}]}}})
    found = ask("service.list", {"user": "alice"}, facts)
    assert [one.name for one in found.units] == ["own.service"]
    with pytest.raises(RefusedError, match="bob has no systemd running"):
        ask("service.list", {"user": "bob"}, facts)


def test_the_files_of_a_unit_are_masked_and_those_of_ours_named() -> None:
    folder = "/etc/systemd/system/web.service.d"
    files = [
        {
            "path": "/lib/systemd/system/web.service",
            "content": '[Service]\nEnvironment=A=1 "API_TOKEN=x y" DB_PASS=z\n'
            "ExecStart=/a --token=q",
        },
        {"path": f"{folder}/limits.conf", "content": "[Service]\nNice=5\n"},
    ]  # fmt: skip
    conditions = [{"name": "ConditionHost", "argument": "!x", "met": False},
                  {"name": "ConditionPathExists", "argument": "/", "met": True}]  # fmt: skip
    unit = {"name": "web.service", "files": files, "conditions": conditions}
    facts = pretended({"units": [unit], "processes": TREE, **NET})
    found = ask("service.get", {"unit": "web.service"}, facts)
    assert found.files[0].content == (
        '[Service]\nEnvironment=A=1 "API_TOKEN=***" DB_PASS=***\nExecStart=/a --token=***'
    )
    assert [one.drop_in for one in found.files] == ["", "limits"]
    assert [(one.name, one.argument) for one in found.unmet] == [("ConditionHost", "!x")]
    assert [one.pid for one in found.processes] == [10, 20]
    assert [one.local for one in found.sockets] == ["[::]:80"]


def test_programs_of_supervisord_are_told() -> None:
    program = {"name": "web:web_0", "state": "RUNNING", "pid": 10, "since_seconds": 1.0}
    facts = pretended({"programs": [program]})
    (one,) = ask("supervisor.list", {}, facts).programs
    assert (one.name, one.state, one.pid) == ("web:web_0", "RUNNING", 10)
    assert ask("supervisor.tail", {"program": "web:web_0"}, facts).text == "web:web_0 printed"


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("process.list", {"limit": 0}),
        ("process.list", {"port": 65536}),
        ("service.journal", {"unit": "a.service", "lines": 1001}),
        ("service.journal", {"unit": "a.service", "priority": "--all"}),
        ("service.list", {"user": "../0"}),
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
