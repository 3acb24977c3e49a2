"""A configuration as an installation on one machine has it."""

from pathlib import Path

import pytest

from narthex_operator.config import EndpointConfig, OperatorConfig, WebConfig


@pytest.fixture
def config(tmp_path: Path) -> OperatorConfig:
    pki, secrets = tmp_path / "pki", tmp_path / "secrets"
    for folder in (pki, secrets, tmp_path / "prometheus" / "rules.d"):
        folder.mkdir(parents=True)
    for file in (pki / "ca.pem", pki / "scrape.pem", pki / "scrape.key"):
        file.touch()
    for file in (secrets / "sd.token", secrets / "webhook.token"):
        file.write_text("token")
    return OperatorConfig(
        home=tmp_path,
        database_url=f"sqlite:///{tmp_path / 'operator.sqlite3'}",
        web=WebConfig(
            listen="127.0.0.1:19101",
            external_url="https://127.0.0.1:19101",
            cert_file=pki / "panel.pem",
            key_file=pki / "panel.key",
        ),
        gateway=EndpointConfig(
            listen="127.0.0.1:19105",
            external_url="https://127.0.0.1:19105",
            cert_file=pki / "gateway.pem",
            key_file=pki / "gateway.key",
        ),
        signer_socket=tmp_path / "signer.sock",
        secrets_dir=secrets,
        pki_dir=pki,
        prometheus_url="http://127.0.0.1:19103",
        alertmanager_url="http://127.0.0.1:19104",
        logs_url="http://127.0.0.1:19102",
        scrape_interval_seconds=3,
    )
