"""A node's policy is told as the actor itself reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.actions import CATALOGUE
from narthex_exporter.collectors import policy
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Node
from narthex_exporter.sources.programs import run

MANAGE = "version: 1\nmode: manage\ndanger: {process: reversible, service: 'off'}\n"


def allowed(family: str, danger: str) -> str:
    return f'narthex_policy_allowed{{family="{family}",danger="{danger}"}}'


@pytest.fixture
def told(measure: Callable[..., Any], tmp_path: Path) -> Callable[[str | None], dict[str, float]]:
    def tell(text: str | None) -> dict[str, float]:
        file = tmp_path / "policy.yaml"
        if text is not None:
            file.write_text(text)
            file.chmod(0o644)
        found: dict[str, float] = measure(policy.collect, settings={policy.FILE: file})
        return found

    return tell


def test_what_may_be_done_is_told_by_family(told: Callable[..., dict[str, float]]) -> None:
    found = told(MANAGE)
    assert found['narthex_policy_mode{mode="manage"}'] == 1
    assert found['narthex_policy_mode{mode="off"}'] == 0
    assert found[allowed("process", "safe")] == found[allowed("process", "reversible")] == 1
    assert found[allowed("process", "disruptive")] == found[allowed("service", "safe")] == 0
    assert found["narthex_policy_valid"] == 1
    assert found["narthex_policy_root_equivalent_actions"] == 0
    assert found["narthex_policy_changed_timestamp_seconds"] > 1e9


def test_each_action_is_told_and_the_file_is_named_by_its_hash(
    told: Callable[..., dict[str, float]],
) -> None:
    found = told(f"{MANAGE}require_approvals: {{destructive: 2}}\n")
    actions = {
        name.split('"')[1]: value
        for name, value in found.items()
        if name.startswith("narthex_actor_action_allowed")
    }
    assert actions["process.renice"] == 1
    assert actions["process.signal"] == actions["service.restart"] == 0
    assert set(actions) == set(CATALOGUE)
    assert found['narthex_policy_required_approvals{danger="destructive"}'] == 2
    assert found['narthex_policy_required_approvals{danger="safe"}'] == 0
    (before,) = (name for name in found if name.startswith("narthex_policy_info"))
    (after,) = (name for name in told(MANAGE) if name.startswith("narthex_policy_info"))
    assert before != after


def test_where_nobody_may_act_nothing_is_allowed(told: Callable[..., dict[str, float]]) -> None:
    found = told(MANAGE.replace("manage", "read-only"))
    assert found['narthex_policy_mode{mode="read-only"}'] == 1
    assert found[allowed("process", "safe")] == 0
    assert found['narthex_actor_action_allowed{action="process.renice"}'] == 0


@pytest.mark.parametrize("text", ["version: 2\nmode: manage\n", "mode: [", "\0"])
def test_a_wrong_policy_is_told_as_void(told: Callable[..., dict[str, float]], text: str) -> None:
    found = told(text)
    assert found["narthex_policy_valid"] == 0
    assert found['narthex_policy_mode{mode="off"}'] == 1


def test_a_node_without_a_policy_lets_nobody_act(told: Callable[..., dict[str, float]]) -> None:
    found = told(None)
    assert found['narthex_policy_mode{mode="off"}'] == 1
    assert found["narthex_policy_valid"] == 1
    assert found["narthex_policy_changed_timestamp_seconds"] == 0


def test_a_policy_is_read_again_only_when_it_changes(
    make_node: Callable[..., Node], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(MANAGE)
    file.chmod(0o644)
    started: list[tuple[str, ...]] = []

    def count(argv: tuple[str, ...], *, timeout_seconds: float) -> Any:
        started.append(argv)
        return run(argv, timeout_seconds=timeout_seconds)

    monkeypatch.setattr("narthex_exporter.sources.ownpolicy.run", count)
    node = make_node(settings={policy.FILE: file})
    for _ in range(3):
        look(policy.collect, node)
    assert len(started) == 1
    file.write_text(MANAGE.replace("manage", "off"))
    look(policy.collect, node)
    assert len(started) == 2
