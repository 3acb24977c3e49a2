"""Rules and alerts: complete, documented, and proven by promtool."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from narthex_exporter.collectors.reference import is_declared
from narthex_operator.db import open_database
from narthex_operator.telemetry import build_registry

ROOT = Path(__file__).parents[2]
RULE_FILES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
RULES: list[dict[str, Any]] = [
    rule
    for file in RULE_FILES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
TESTS = sorted((ROOT / "prometheus" / "tests").glob("*.test.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
ANNOTATIONS = {"summary", "summary_ru", "description", "description_ru", "runbook_url"}
# Prometheus' own.
OTHER_METRICS = {"up"}


def run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_promtool_accepts_the_rules() -> None:
    done = run("promtool", "check", "rules", *RULE_FILES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_rules_do_what_their_cases_say(file: Path) -> None:
    done = run("promtool", "test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_file_has_cases() -> None:
    assert {file.stem for file in RULE_FILES} == {file.name.split(".")[0] for file in TESTS}


def test_each_alert_is_proven_to_fire_and_to_be_quiet() -> None:
    firing: set[str] = set()
    quiet: set[str] = set()
    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test.get("alert_rule_test", ()):
                (firing if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert firing == set(ALERTS)
    assert quiet == set(ALERTS) - {"Watchdog"}, "Watchdog alone is never quiet"


def test_each_record_is_proven() -> None:
    asked = {
        case["expr"]
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("promql_expr_test", ())
    }
    assert asked == {rule["record"] for rule in RULES if "record" in rule}


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_tells_all_that_a_person_needs(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning", "info", "none"}
    assert set(rule["annotations"]) == ANNOTATIONS
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_has_a_runbook_without_gaps(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    assert parts[0].strip() == f"# {name}"
    titles = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts[1:]}
    assert list(titles) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(titles.values())


def test_no_runbook_is_left_over() -> None:
    assert {file.stem for file in RUNBOOKS.glob("*.md")} == set(ALERTS)


def test_what_the_operator_asks_for_is_promised() -> None:
    asked = {
        name
        for file in (ROOT / "operator/narthex_operator/services").rglob("*.py")
        for name in re.findall(r"(?<![:\w.])(?:node|narthex)_[a-z]\w*(?=\{)", file.read_text())
    }
    assert {"node_filesystem_avail_bytes", "node_network_receive_bytes_total"} < asked
    assert not {name for name in asked if not is_declared(name)}


@pytest.fixture
def operators_own(tmp_path: Path) -> set[str]:
    """What the operator tells of itself."""
    database = open_database(f"sqlite:///{tmp_path / 'operator.sqlite3'}")
    database.upgrade()
    registry = build_registry(database, version="x", watchdog_at=lambda: None)[0]
    families = list(registry.collect())
    database.close()
    return {
        f"{family.name}_total" if family.type == "counter" else family.name for family in families
    }


def test_rules_name_only_metrics_that_we_promise(operators_own: set[str]) -> None:
    named = {
        name
        for rule in RULES
        for name in re.findall(r"(?<![:\w])(?:node|narthex)_\w+|\bup\b", rule["expr"])
        if not name.endswith("ratio")
    }
    foreign = {name for name in named - OTHER_METRICS if not is_declared(name)}
    assert not foreign - operators_own
