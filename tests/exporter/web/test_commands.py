"""The command: its flags, its file, and its life as a process."""

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from narthex_exporter import app, commands, logfmt, notify
from narthex_exporter.cli import main
from narthex_exporter.collectors import COLLECTORS, systemd
from narthex_exporter.collectors.filesystem import MOUNT_POINTS_EXCLUDE
from narthex_exporter.config import Config
from narthex_exporter.transport.identity import Role
from narthex_exporter.transport.tls import client_context


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """What the command would run with."""
    found: list[Config] = []
    monkeypatch.setattr(app, "build", found.append)
    monkeypatch.setattr(app, "run", lambda _: None)
    monkeypatch.setattr(logfmt, "set_up", lambda **_: None)
    return found


def call(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["exporter", *arguments])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        (":19100", ("0.0.0.0", 19100)),  # noqa: S104
        ("[::1]:9", ("::1", 9)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses_are_understood(text: str, address: tuple[str, int]) -> None:
    assert commands.Address().convert(text, None, None) == address


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--collector.systemd.enable-task-metrics", "True"),
        ("--no-collector.systemd.enable-task-metrics", "False"),
    ],
)
def test_a_switch_needs_no_value(configured: list[Config], flag: str, value: str) -> None:
    done = call(flag, "--web.listen-address=127.0.0.1:0")
    assert done.exit_code == 0, done.output
    assert configured[0].settings == {systemd.TASK_METRICS: value}


def test_other_settings_of_collectors_need_one() -> None:
    assert "requires an argument" in call("--collector.systemd.unit-include").output


@pytest.mark.parametrize("text", ["", "19100", "::1:9", "a:b", "a:70000", "[::1]"])
def test_wrong_addresses_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="host:port"):
        commands.Address().convert(text, None, None)


def test_flags_become_a_configuration(configured: list[Config]) -> None:
    done = call(
        "--web.listen-address", "127.0.0.1:1", "--web.listen-address", ":2",
        "--collector.disable-defaults", "--collector.loadavg", "--no-collector.cpu",
        "--collector.filesystem", "--collector.filesystem.mount-points-exclude", "^/x",
        "--logs.push-url", "https://x", "--no-logs",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    config = configured[0]
    assert config.listen == (("127.0.0.1", 1), ("0.0.0.0", 2))  # noqa: S104
    assert [each.name for each in app.choose_collectors(config)] == ["filesystem", "loadavg"]
    assert config.modules == ("filesystem", "loadavg")
    assert config.settings == {MOUNT_POINTS_EXCLUDE: "^/x"}
    assert config.logs.push_url == ""


def test_a_file_gives_defaults_and_flags_win(configured: list[Config], tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(
        "web.listen-address: ['127.0.0.1:3']\ncollector.cpu: false\n"
        "web.telemetry-path: /a\nweb.max-requests: 3\nno-logs: true\n"
    )
    done = call("--config.file", str(file), "--web.telemetry-path", "/b")
    assert done.exit_code == 0, done.output
    config = configured[0]
    assert config.listen == (("127.0.0.1", 3),)
    assert config.telemetry_path == "/b"
    assert config.max_requests == 3
    assert "cpu" not in [each.name for each in app.choose_collectors(config)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("web.listen-adress: x", "web.listen-adress"),
        ("no-collector.cpu: true", "no-collector.cpu"),
        ("[1, 2]", "names and values"),
        ("a: [", "cannot read"),
        ("web.max-requests: many", "many"),
    ],
)
def test_a_wrong_file_is_told(
    configured: list[Config], tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(text)
    done = call("--config.file", str(file))
    assert done.exit_code != 0
    assert told in done.output + done.stderr
    assert "Traceback" not in done.output
    assert not configured


@pytest.mark.parametrize(
    ("flag", "value"),
    [("mount-points-exclude", "("), ("mount-timeout", "9"), ("mount-timeout", "nan")],
)
def test_a_wrong_setting_is_told_by_its_flag(tmp_path: Path, flag: str, value: str) -> None:
    web = tmp_path / "web.yml"
    web.write_text("")
    done = call(
        "--web.config.file", str(web), "--state.dir", str(tmp_path),
        f"--collector.filesystem.{flag}", value,
    )  # fmt: skip
    assert done.exit_code == 1
    assert f"--collector.filesystem.{flag}: {value!r}" in done.output


def test_every_collector_can_be_turned_on_and_off() -> None:
    text = call("--help").output
    for collector in COLLECTORS:
        assert f"--no-collector.{collector.name}" in text.replace("\n", "").replace(" ", "")


class Process:
    """An exporter as systemd would start it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.settimeout(20)
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.web = folder / "web.yml"
        self.web.write_text("")
        log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                sys.executable, "-Im", "narthex_exporter", "exporter",
                "--web.listen-address", f"127.0.0.1:{self.port}",
                *(arguments or ("--web.config.file", str(self.web), "--state.dir", str(folder))),
            ],
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "400000"},
            stderr=log,
        )  # fmt: skip
        log.close()

    def wait_for(self, state: bytes) -> None:
        while self.socket.recv(100) != state:
            pass

    def ask(self, path: str, context: ssl.SSLContext | None = None) -> str:
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)
            if context
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        )
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def close(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self.socket.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    found = Process(tmp_path)
    yield found
    found.close()


def test_a_process_starts_reloads_drains_and_ends(process: Process, tmp_path: Path) -> None:
    began = time.monotonic()
    process.wait_for(b"READY=1")
    assert process.ask("/-/ready") == "ready\n"
    assert time.monotonic() - began < 15
    process.wait_for(b"WATCHDOG=1")
    process.web.write_text("http_server_config: {headers: {X-Made-Up: y}}")
    process.process.send_signal(signal.SIGHUP)
    process.wait_for(b"RELOADING=1")
    process.wait_for(b"READY=1")
    assert "narthex_config_last_reload_successful 0" in process.ask("/metrics")
    process.web.write_text("")
    process.process.send_signal(signal.SIGHUP)
    process.wait_for(b"RELOADING=1")
    process.wait_for(b"READY=1")
    assert "narthex_config_last_reload_successful 1" in process.ask("/metrics")
    descriptors = process.descriptors()
    for _ in range(20):
        process.ask("/metrics")
    time.sleep(0.2)
    assert process.descriptors() <= descriptors + 1
    process.process.send_signal(signal.SIGTERM)
    process.wait_for(b"STOPPING=1")
    assert process.process.wait(15) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_an_enrolled_process_answers_its_cluster(
    tmp_path: Path, state: Path, authority: Any
) -> None:
    process = Process(tmp_path, "--state.dir", str(state))
    try:
        process.wait_for(b"READY=1")
        context = client_context(authority.leaf(Role.SCRAPE, "prometheus"))
        text = process.ask("/metrics", context)
        assert "narthex_certificate_renewals_total" in text
        assert f'path="{state}/pki/node.pem"' in text
        process.process.send_signal(signal.SIGTERM)
        assert process.process.wait(15) == 0
    finally:
        process.close()


def test_a_taken_port_is_told_without_a_traceback(tmp_path: Path) -> None:
    web = tmp_path / "web.yml"
    web.write_text("")
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        done = call(
            "--web.listen-address", f"127.0.0.1:{port}",
            "--web.config.file", str(web), "--state.dir", str(tmp_path),
        )  # fmt: skip
    assert done.exit_code == 1
    assert f"127.0.0.1:{port}" in done.output
    assert "what to do: see who has it" in done.output


def test_nobody_is_told_where_systemd_did_not_start_us() -> None:
    notify.notify("READY=1", environment={})
    notify.notify("READY=1", environment={"NOTIFY_SOCKET": "/nowhere/at/all"})
    assert notify.watchdog_seconds(environment={}) is None
    assert notify.watchdog_seconds(environment={"WATCHDOG_USEC": "x"}) is None
    assert notify.watchdog_seconds(environment={"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}) is None
