from pathlib import Path
from typing import Any

import pytest
import yaml

from narthex_operator.config import ConfigError, load_operator_config, split_address

GOOD: dict[str, Any] = {
    "home": "/h",
    "database_url": "sqlite:////h/db",
    "web": {
        "listen": "127.0.0.1:19101",
        "external_url": "https://panel.example.org/",
        "cert_file": "/h/a.pem",
        "key_file": "/h/a.key",
        "trusted_hosts": ["other.example.org"],
    },
    "gateway": {
        "listen": "[::1]:19105",
        "external_url": "https://127.0.0.1:19105",
        "cert_file": "/h/g.pem",
        "key_file": "/h/g.key",
    },
    "signer_socket": "/h/s",
    "secrets_dir": "/h/secrets",
    "pki_dir": "/h/pki",
    "prometheus_url": "http://127.0.0.1:1",
    "alertmanager_url": "http://127.0.0.1:2",
    "logs_url": "http://127.0.0.1:3/",
}


def write(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "operator.yaml"
    path.write_text(yaml.safe_dump(GOOD | changes))
    return path


def test_a_configuration_is_read(tmp_path: Path) -> None:
    config = load_operator_config(write(tmp_path))
    assert config.web.hosts == ("panel.example.org", "other.example.org")
    assert config.logs_url == "http://127.0.0.1:3"
    assert config.scrape_interval_seconds == 15
    assert "sqlite" not in repr(config)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"colour": "red"}, "colour: unknown key"),
        ({"gateway": GOOD["gateway"] | {"port": 1}}, r"gateway\.port: unknown key"),
        ({"web": GOOD["web"] | {"listen": "localhost:1"}}, r"web\.listen"),
        ({"web": GOOD["web"] | {"listen": "127.0.0.1:0"}}, r"web\.listen"),
        ({"prometheus_url": "file:///etc/passwd"}, "prometheus_url"),
        ({"scrape_interval_seconds": "15"}, "scrape_interval_seconds"),
        ({"home": None}, "home"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_operator_config(write(tmp_path, **changes))


@pytest.mark.parametrize("content", ["- a\n- b\n", "{", "", "a: !!python/object:x.y {}\n", "\0"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"operator\.yaml"):
        load_operator_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none") as caught:
        load_operator_config(tmp_path / "none")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "1", "::1:5", "[::1]", "127.0.0.1:+5", "127.0.0.1:٣", ":5"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        split_address(text)
