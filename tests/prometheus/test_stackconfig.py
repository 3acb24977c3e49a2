"""The configuration of Prometheus and Alertmanager, judged by their own tools."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from narthex_operator.config import OperatorConfig
from narthex_operator.services.stackconfig import (
    render_alertmanager,
    render_prometheus,
    shipped_rules,
)

ROOT = Path(__file__).parents[2]
ROUTES = [
    (["alertname=Watchdog", "severity=none"], "operator"),
    (["alertname=NodeDown", "severity=critical"], "operator"),
    (["alertname=Mine"], "operator"),
]


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def rendered(config: OperatorConfig, tmp_path: Path) -> dict[str, Path]:
    files = {"prometheus": tmp_path / "prometheus.yml", "alertmanager": tmp_path / "am.yml"}
    files["prometheus"].write_text(render_prometheus(config))
    files["alertmanager"].write_text(render_alertmanager(config))
    return files


def test_promtool_accepts_what_is_rendered(rendered: dict[str, Path]) -> None:
    assert "is valid prometheus config file syntax" in run(
        "promtool", "check", "config", rendered["prometheus"]
    )


def test_the_composed_configuration_is_well_formed() -> None:
    run("promtool", "check", "config", "--syntax-only", ROOT / "prometheus" / "prometheus.yml")
    run("amtool", "check-config", ROOT / "alertmanager" / "alertmanager.yml")


@pytest.mark.parametrize(("labels", "receivers"), ROUTES)
@pytest.mark.parametrize("which", ["rendered", "composed"])
def test_every_alert_reaches_the_operator(
    rendered: dict[str, Path], which: str, labels: list[str], receivers: str
) -> None:
    file = {
        "rendered": rendered["alertmanager"],
        "composed": ROOT / "alertmanager" / "alertmanager.yml",
    }[which]
    run("amtool", "check-config", file)
    run(
        "amtool", "config", "routes", "test", f"--config.file={file}",
        f"--verify.receivers={receivers}", *labels,
    )  # fmt: skip


def test_nodes_are_found_through_the_operator_and_scraped_with_a_certificate(
    config: OperatorConfig,
) -> None:
    job: dict[str, Any] = yaml.safe_load(render_prometheus(config))["scrape_configs"][0]
    found = job["http_sd_configs"][0]
    assert job["job_name"] == "node"
    assert found["url"] == "https://127.0.0.1:19101/api/v1/sd/prometheus"
    assert found["authorization"] == {
        "type": "Bearer",
        "credentials_file": str(config.secrets_dir / "sd.token"),
    }
    assert job["tls_config"]["cert_file"] == str(config.pki_dir / "scrape.pem")
    assert "insecure_skip_verify" not in render_prometheus(config)


def test_scrapes_follow_the_configured_interval(config: OperatorConfig) -> None:
    told = yaml.safe_load(render_prometheus(config))["global"]
    assert told == {
        "scrape_interval": "3s", "scrape_timeout": "3s", "evaluation_interval": "3s"
    }  # fmt: skip


def test_own_rules_and_further_ones_stand_beside_the_shipped_ones(config: OperatorConfig) -> None:
    told = yaml.safe_load(render_prometheus(config, extra_rule_globs=["/etc/more/*.yml"]))
    assert told["rule_files"] == [
        str(shipped_rules() / "*.yml"),
        str(config.home / "prometheus" / "rules.d" / "*.yml"),
        "/etc/more/*.yml",
    ]
