"""Write the configuration of Prometheus and Alertmanager for an installation on one machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from narthex_operator.config import OperatorConfig
from narthex_operator.errors import NarthexError

# Scraping more than this from one node is a mistake there, not a figure to store.
SAMPLE_LIMIT: Final = 20_000
_WATCHDOG_SECONDS: Final = 60


def shipped_rules() -> Path:
    """Find the rules that come with this release. Raises NarthexError.

    A wheel carries them inside the package, a checkout at its root.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "rules", package.parents[1] / "prometheus" / "rules"):
        if any(folder.glob("*.yml")):
            return folder
    raise NarthexError(
        f"the alert rules of this release are not beside {package}",
        hint="install Narthex anew: script/up, or pip install --force-reinstall narthex",
    )


def render_prometheus(config: OperatorConfig, *, extra_rule_globs: Sequence[str] = ()) -> str:
    """Write prometheus.yml: nodes through the operator, over mutual TLS.

    Rules are ours, then ``<home>/prometheus/rules.d/*.yml``, then ``extra_rule_globs``.
    """
    operator = urlsplit(config.web.external_url)
    seconds = config.scrape_interval_seconds
    pki, secrets = Path(config.pki_dir), Path(config.secrets_dir)
    # Prometheus 2.42's HTTP discovery sends the token without the word unless the type is named.
    token = {"type": "Bearer", "credentials_file": str(secrets / "sd.token")}
    value: dict[str, Any] = {
        "global": {
            "scrape_interval": f"{seconds}s",
            # A scrape may take as long as its interval, and never longer than ten seconds.
            "scrape_timeout": f"{min(seconds, 10)}s",
            "evaluation_interval": f"{seconds}s",
        },
        "alerting": {"alertmanagers": [_static(config.alertmanager_url)]},
        "rule_files": [
            str(shipped_rules() / "*.yml"),
            str(Path(config.home) / "prometheus" / "rules.d" / "*.yml"),
            *extra_rule_globs,
        ],
        "scrape_configs": [
            {
                "job_name": "node",
                "scheme": "https",
                "sample_limit": SAMPLE_LIMIT,
                "tls_config": {
                    "ca_file": str(pki / "ca.pem"),
                    "cert_file": str(pki / "scrape.pem"),
                    "key_file": str(pki / "scrape.key"),
                    "min_version": "TLS13",
                },
                "http_sd_configs": [
                    {
                        "url": f"{config.web.external_url}/api/v1/sd/prometheus",
                        "refresh_interval": f"{max(seconds, 3)}s",
                        "authorization": token,
                        "tls_config": {"ca_file": str(pki / "ca.pem")},
                    }
                ],
                "relabel_configs": [
                    {"source_labels": ["__meta_narthex_name"], "target_label": "node"},
                    {"source_labels": ["__meta_narthex_group"], "target_label": "group"},
                ],
            },
            {
                "job_name": "narthex-operator",
                "scheme": operator.scheme,
                "authorization": token,
                "tls_config": {"ca_file": str(pki / "ca.pem")},
                **_static(config.web.external_url),
            },
            {"job_name": "prometheus", **_static(config.prometheus_url)},
            {"job_name": "alertmanager", **_static(config.alertmanager_url)},
            {"job_name": "logstore", **_static(config.logs_url)},
        ],
    }
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def render_alertmanager(config: OperatorConfig) -> str:
    """Write alertmanager.yml: every alert goes to the operator at once."""
    value: dict[str, Any] = {
        "global": {"resolve_timeout": "5m"},
        "route": {
            "receiver": "nobody",
            "group_by": ["alertname", "instance"],
            "routes": [
                {
                    "matchers": ['alertname="Watchdog"'],
                    "receiver": "operator",
                    "group_wait": "0s",
                    "group_interval": f"{_WATCHDOG_SECONDS}s",
                    "repeat_interval": f"{_WATCHDOG_SECONDS}s",
                },
                {
                    "receiver": "operator",
                    "group_by": ["..."],
                    "group_wait": "0s",
                    "group_interval": "5s",
                    "repeat_interval": "12h",
                    "continue": True,
                },
            ],
        },
        "inhibit_rules": [
            {
                "source_matchers": ['alertname="NodeDown"'],
                "target_matchers": ['alertname!="NodeDown"', 'instance=~".+"'],
                "equal": ["instance"],
            },
            {
                "source_matchers": ['severity="critical"'],
                "target_matchers": ['severity=~"warning|info"'],
                "equal": ["alertname", "instance"],
            },
        ],
        "receivers": [
            {"name": "nobody"},
            {
                "name": "operator",
                "webhook_configs": [
                    {
                        "url": f"{config.web.external_url}/api/v1/alertmanager/webhook",
                        "send_resolved": True,
                        "http_config": {
                            "authorization": {
                                "credentials_file": str(Path(config.secrets_dir) / "webhook.token")
                            },
                            "tls_config": {"ca_file": str(Path(config.pki_dir) / "ca.pem")},
                        },
                    }
                ],
            },
        ],
    }
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True)


def _static(url: str) -> dict[str, Any]:
    return {"static_configs": [{"targets": [urlsplit(url).netloc]}]}
