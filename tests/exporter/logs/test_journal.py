"""Following the journal of a real journald, in a mount namespace of its own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from narthex_exporter.logs.journal import KEY, Journal
from narthex_exporter.logs.record import Counters, Record
from narthex_exporter.logs.redact import Redactor
from shipping import until

DAEMON = Path("/lib/systemd/systemd-journald")
START = f"mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && {DAEMON}"


@dataclass
class Daemon:
    """A journald; it goes, and its mounts with it, when its process ends."""

    pid: int

    @property
    def program(self) -> tuple[str, ...]:
        return ("nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--", "journalctl")

    def write(self, message: bytes, **fields: str) -> None:
        data = b"".join(f"{name}={value}\n".encode() for name, value in fields.items())
        data += b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, f"/proc/{self.pid}/root/run/systemd/journal/socket")


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    if os.geteuid() != 0 or not DAEMON.exists() or shutil.which("unshare") is None:
        pytest.skip("a journald of its own needs root, systemd-journald and unshare")
    process = subprocess.Popen(
        ["unshare", "--mount", "--", "sh", "-c", START.replace(str(DAEMON), f"exec {DAEMON}")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    made = Daemon(process.pid)
    ready = Path(f"/proc/{process.pid}/root/run/systemd/journal/socket")
    own = Path("/proc/self/ns/mnt")
    try:
        until(
            lambda: (
                process.poll() is not None
                or (
                    Path(f"/proc/{process.pid}/ns/mnt").readlink() != own.readlink()
                    and ready.exists()
                )
            )
        )
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.skip(f"journald does not run here: {process.stderr.read()!r}")
        yield made
    finally:
        process.kill()
        process.communicate()


@dataclass
class Reader:
    """Reads a journal and keeps what it gave."""

    program: tuple[str, ...]
    positions: dict[str, str] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)
    records: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.open()

    def open(self) -> None:
        self.journal = Journal(
            labels={"node": "n1"},
            redactor=Redactor(self.counters),
            counters=self.counters,
            positions=self.positions,
            program=self.program,
        )

    def look(self) -> list[str]:
        batch = self.journal.read(0.1)
        self.records += [each for each in batch.records if ("unit", "kernel") not in each.labels]
        self.positions.update(batch.positions)
        return [record.line for record in self.records]


@contextlib.contextmanager
def reading(daemon: Daemon, **more: dict[str, str]) -> Iterator[Reader]:
    reader = Reader(daemon.program, **more)  # type: ignore[arg-type]
    try:
        yield reader
    finally:
        reader.journal.close()


def ours(reader: Reader, *prefixes: str) -> Callable[[], list[str]]:
    return lambda: [line for line in reader.look() if line.startswith(prefixes or "m")]


def test_entries_come_with_their_labels_and_metadata(daemon: Daemon) -> None:
    daemon.write(b"m one\nand more", PRIORITY="3", SYSLOG_IDENTIFIER="me")
    daemon.write(b"m \xff\x00 password=x", PRIORITY="6")
    with reading(daemon) as reader:
        until(lambda: len(ours(reader)()) == 2)
    first, second = [record for record in reader.records if record.line.startswith("m ")]
    assert first.line == "m one\nand more"
    assert second.line == "m \\xff\\x00 password=[redacted]"
    labels, meta = dict(first.labels), dict(first.meta)
    assert (labels["job"], labels["node"]) == ("systemd-journal", "n1")
    assert (meta["level"], meta["priority"], meta["identifier"]) == ("error", "3", "me")
    assert meta["pid"] == str(os.getpid())
    assert first.ts_ns is not None


def test_a_restart_goes_on_behind_the_cursor(daemon: Daemon) -> None:
    positions: dict[str, str] = {}
    daemon.write(b"m 1")
    with reading(daemon, positions=positions) as reader:
        until(lambda: ours(reader)() == ["m 1"])
    daemon.write(b"m 2")
    with reading(daemon, positions=positions) as reader:
        until(lambda: ours(reader)() == ["m 2"])


def test_a_cursor_that_is_of_no_use_is_replaced_by_the_time(daemon: Daemon) -> None:
    positions: dict[str, str] = {}
    daemon.write(b"m 1")
    with reading(daemon, positions=positions) as reader:
        until(lambda: ours(reader)() == ["m 1"])
    saved = json.loads(positions[KEY])
    positions[KEY] = json.dumps({"cursor": "nonsense", "us": saved["us"]})
    daemon.write(b"m 2")
    with reading(daemon, positions=positions) as reader:
        until(lambda: ours(reader)() == ["m 2"])
        assert reader.counters.restarts == 1


def test_journalctl_is_started_again_when_it_ends(daemon: Daemon) -> None:
    daemon.write(b"m 1")
    with reading(daemon) as reader:
        until(lambda: ours(reader)() == ["m 1"])
        process = reader.journal._process
        assert process is not None
        process.kill()
        daemon.write(b"m 2")
        until(lambda: ours(reader)() == ["m 1", "m 2"])


@pytest.mark.parametrize(
    ("entry", "unit"),
    [
        ({"_SYSTEMD_UNIT": "nginx.service"}, "nginx.service"),
        ({"_SYSTEMD_UNIT": "user@1000.service"}, "user@.service"),
        ({"_SYSTEMD_UNIT": "session-12.scope"}, "session.scope"),
        ({"_SYSTEMD_UNIT": "docker-0123abcd.scope"}, "docker.scope"),
        ({"UNIT": "cron.service"}, "cron.service"),
        ({"_TRANSPORT": "kernel"}, "kernel"),
        ({}, "none"),
    ],
)
def test_units_are_few(entry: dict[str, str], unit: str) -> None:
    line = json.dumps({"__CURSOR": "c", "__REALTIME_TIMESTAMP": "5", "MESSAGE": "x", **entry})
    batch = Reader(("true",)).journal._batch(line.encode() + b"\n")
    assert dict(batch.records[0].labels)["unit"] == unit


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"7", b'{"__CURSOR": 1}', b"\xff", b"[" * 100_000, b""]
)
def test_what_journalctl_should_not_say_costs_only_itself(line: bytes) -> None:
    good = b'{"__CURSOR":"c","__REALTIME_TIMESTAMP":"5","MESSAGE":["a","b"],"PRIORITY":"99"}\n'
    batch = Reader(("true",)).journal._batch(line + b"\n" + good)
    assert [record.line for record in batch.records] == ["a"]


def test_a_missing_journalctl_is_tried_again_later(tmp_path: Path) -> None:
    reader = Reader((str(tmp_path / "absent"),))
    assert reader.look() == []
    assert not reader.journal.running
