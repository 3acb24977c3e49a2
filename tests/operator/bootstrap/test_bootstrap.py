import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from cryptography import x509
from sqlalchemy import text

from narthex_exporter.cli import main
from narthex_exporter.contract.errors import NarthexError
from narthex_exporter.transport.tls import TLSFiles, client_context, server_context
from narthex_operator.config import EndpointConfig, OperatorConfig, WebConfig
from narthex_operator.errors import NotSignedInError
from narthex_operator.security.signer_client import SignerClient
from narthex_operator.services.access import local_actor
from narthex_operator.services.bootstrap import bootstrap, open_services, refresh_certificates

Run = Callable[..., Result]


@pytest.fixture
def config(signer: SignerClient, empty_database_url: str, tmp_path: Path) -> OperatorConfig:
    pki = tmp_path / "pki"

    def endpoint(name: str, port: int) -> dict[str, object]:
        return {
            "listen": f"127.0.0.1:{port}", "external_url": f"https://192.0.2.9:{port}",
            "cert_file": pki / f"{name}.pem", "key_file": pki / f"{name}.key",
        }  # fmt: skip

    return OperatorConfig(
        home=tmp_path,
        database_url=empty_database_url,
        web=WebConfig.model_validate(endpoint("panel", 19101)),
        gateway=EndpointConfig.model_validate(endpoint("gateway", 19105)),
        signer_socket=signer.socket,
        secrets_dir=tmp_path / "secrets",
        pki_dir=pki,
        prometheus_url="http://127.0.0.1:1",
        alertmanager_url="http://127.0.0.1:2",
        logs_url="http://127.0.0.1:3",
    )


@pytest.fixture
def narthex(config: OperatorConfig, monkeypatch: pytest.MonkeyPatch) -> Run:
    path = config.home / "operator.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    monkeypatch.setenv("NARTHEX_HOME", str(config.home))
    return lambda *arguments: CliRunner().invoke(main, arguments)


def test_an_installation_is_made_once(config: OperatorConfig) -> None:
    first = bootstrap(config)
    second = bootstrap(config)
    assert first.admin_password
    assert first.admin_must_change
    assert (second.admin_password, second.api_token) == ("", "")
    services = open_services(config)
    assert services.accounts.authenticate_token(first.api_token, address="").may("node:write")
    token = services.accounts.sign_in("admin", first.admin_password, address="", user_agent="")
    assert services.accounts.session(token, address="")[1].must_change_password
    services.close()
    assert first.admin_password not in repr(first)


def test_all_that_is_secret_is_closed_to_others(config: OperatorConfig) -> None:
    bootstrap(config)
    names = {path.name for path in config.secrets_dir.iterdir()}
    assert names == {"pepper", "csrf.key", "sd.token", "webhook.token"}
    for path in [*config.secrets_dir.iterdir(), *config.pki_dir.glob("*.key")]:
        assert path.stat().st_mode & 0o077 == 0
    for name in ("panel", "gateway", "operator", "scrape"):
        assert (config.pki_dir / f"{name}.pem").exists()


def test_its_certificates_serve_and_call(config: OperatorConfig) -> None:
    bootstrap(config)
    for name, context in (("panel", server_context), ("gateway", server_context),
                          ("operator", client_context), ("scrape", client_context)):  # fmt: skip
        files = TLSFiles(
            cert=config.pki_dir / f"{name}.pem", key=config.pki_dir / f"{name}.key",
            ca=config.pki_dir / "ca.pem",
        )  # fmt: skip
        assert context(files)


def test_certificates_are_renewed_at_half_of_their_life(config: OperatorConfig) -> None:
    bootstrap(config)

    def serials() -> dict[str, int]:
        return {
            path.name: x509.load_pem_x509_certificate(path.read_bytes()).serial_number
            for path in config.pki_dir.glob("*.pem")
        }

    before = serials()
    assert not refresh_certificates(config)
    assert refresh_certificates(config, now=datetime.now(tz=UTC) + timedelta(hours=13))
    changed = {name for name, serial in serials().items() if before[name] != serial}
    assert changed == {"operator.pem"}
    (config.pki_dir / "panel.key").chmod(0o644)
    assert refresh_certificates(config)


def test_another_ca_is_not_taken_for_ours(config: OperatorConfig) -> None:
    bootstrap(config)
    (config.pki_dir / "ca.pem").write_text("another")
    with pytest.raises(NarthexError, match="not the signer's CA"):
        bootstrap(config)


def test_a_secret_that_others_can_read_is_refused(config: OperatorConfig) -> None:
    bootstrap(config)
    (config.secrets_dir / "pepper").chmod(0o644)
    with pytest.raises(NarthexError, match="pepper"):
        open_services(config)


def test_nodes_are_managed_from_the_command_line(config: OperatorConfig, narthex: Run) -> None:
    bootstrap(config)
    added = narthex("node", "add", "web-1", "--address", "192.0.2.17:19100", "--ttl", "5m")
    assert added.exit_code == 0, added.stderr
    assert "script/join --operator https://192.0.2.9:19101 --ca-pin sha256:" in added.stdout
    assert "joining" in narthex("node", "list").stdout
    early = narthex("node", "approve", "web-1")
    assert (early.exit_code, "not joined yet" in early.stderr) == (1, True)
    assert narthex("node", "remove", "web-1").exit_code == 0
    assert narthex("node", "list").stdout == ""


def test_accounts_are_managed_from_the_command_line(config: OperatorConfig, narthex: Run) -> None:
    bootstrap(config)
    added = narthex("user", "add", "anna", "--role", "viewer")
    assert added.exit_code == 0, added.output
    old, new = (out.stdout.split()[-1] for out in (added, narthex("user", "passwd", "anna")))
    services = open_services(config)
    with pytest.raises(NotSignedInError):
        services.accounts.sign_in("anna", old, address="", user_agent="")
    assert services.accounts.sign_in("anna", new, address="", user_agent="")
    assert narthex("user", "unlock", "anna").exit_code == 0
    assert "anna" in narthex("user", "list").stdout
    token = narthex("token", "create", "ci", "--role", "viewer", "--ttl", "1d").stdout.strip()
    assert services.accounts.authenticate_token(token, address="").name == "ci"
    rows = services.audit.list(local_actor("t")).rows
    assert any(row.actor.startswith("local:") and row.event == "user.added" for row in rows)
    with services.database.reading() as session:
        assert token not in repr(session.execute(text("SELECT * FROM api_tokens")).all())
    services.close()


def test_a_missing_configuration_is_told_in_words(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-Im", "narthex_exporter", "node", "list"],
        env={"NARTHEX_HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "script/up" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_signer_is_a_process_of_its_own(tmp_path: Path) -> None:
    socket_path = tmp_path / "s.sock"
    command = [sys.executable, "-Im", "narthex_exporter", "signer", "--state.dir",
               str(tmp_path / "state"), "--socket", str(socket_path)]  # fmt: skip
    made = subprocess.run([*command, "--init"], capture_output=True, text=True, check=True)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not socket_path.is_socket() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert SignerClient(socket=socket_path).ca().pin in made.stdout
        assert socket_path.stat().st_mode & 0o077 == 0
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    assert not socket_path.exists()
