"""What an actor did is told as it says itself; nothing else in its file gets into metrics."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.collectors import actor
from narthex_exporter.sources.actorstatus import read_actor_status

TOLD: dict[str, Any] = {
    "version": 1,
    "written_at": 0.0,
    "running": True,
    "mode": "manage",
    "policy_sha256": "ab" * 32,
    "audit_seq": 17,
    "runs_accepted": {"service.restart": 3, "process.signal": 1},
    "requests_refused": {"policy": 2},
    "runs_under_way": 1,
}


def write(file: Path, **changes: Any) -> Path:
    file.write_text(json.dumps(TOLD | {"written_at": time.time()} | changes))
    return file


@pytest.fixture
def tell(measure: Callable[..., Any], tmp_path: Path) -> Callable[..., dict[str, float]]:
    def told(**changes: Any) -> dict[str, float]:
        settings = {actor.FILE: write(tmp_path / "actor.json", **changes)}
        found: dict[str, float] = measure(actor.collect, settings=settings)
        return found

    return told


def test_what_it_did_is_told(tell: Callable[..., dict[str, float]]) -> None:
    found = tell()
    assert found['narthex_actor_runs_accepted_total{action="service.restart"}'] == 3
    assert found['narthex_actor_runs_accepted_total{action="process.signal"}'] == 1
    assert found['narthex_actor_requests_refused_total{reason="policy"}'] == 2
    assert found["narthex_actor_audit_rows_total"] == 17
    assert found["narthex_actor_runs_under_way"] == found["narthex_actor_running"] == 1
    labels = f'mode="manage",sha256="{"ab" * 32}"'
    assert found[f"narthex_actor_policy_info{{{labels}}}"] == 1


@pytest.mark.parametrize("changes", [{"running": False}, {"written_at": 1.7e9}])
def test_one_that_stopped_or_was_killed_runs_no_more_and_its_sums_stay(
    tell: Callable[..., dict[str, float]], changes: dict[str, Any]
) -> None:
    found = tell(**changes)
    assert found["narthex_actor_running"] == 0
    assert found["narthex_actor_audit_rows_total"] == 17


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"audit_seq": -1},
        {"audit_seq": "17"},
        {"audit_seq": 1e300},
        {"runs_under_way": True},
        {"mode": 'x"} 1\nforged 1'},
        {"runs_accepted": []},
        {"runs_accepted": {"a\nb": 1}},
        {"runs_accepted": {f"a{number}": 1 for number in range(1000)}},
        {"requests_refused": {"x": None}},
    ],
)
def test_what_is_no_status_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="status"):
        read_actor_status(write(tmp_path / "actor.json", **changes))


def test_where_no_actor_ran_there_is_nothing_to_tell(tmp_path: Path) -> None:
    assert read_actor_status(tmp_path / "actor.json") is None
    (tmp_path / "link.json").symlink_to(write(tmp_path / "actor.json"))
    assert read_actor_status(tmp_path / "link.json") is None
