"""A real systemd as PID 1: this machine's own /usr booted in systemd-nspawn."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.exporter.actor.conftest import Client, Enrolled
from typing_extensions import override

from narthex_exporter.actor.node import Config

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "exporter" / "systemd"
BOOT_SECONDS = 40
CGROUPS = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified")]

# The shipped unit, started from this checkout instead of from /usr/bin; that may lie in /tmp.
DROP_IN = f"""\
[Service]
ExecStart=
ExecStart={sys.executable} -Im narthex_exporter actor --log.format=json
PrivateTmp=no
"""
POLICY = """\
version: 1
mode: manage
danger: {process: disruptive, service: disruptive}
service: {deny: ["lab-protected*"]}
root_equivalent:
  - process.start-as-root
  - service.create-timer-as-root
  - service.edit-drop-in
  - service.remove-drop-in
  - service.revert
"""


@dataclass
class Machine:
    """A booted system. ``root`` is its file system as seen from here."""

    init: int

    @property
    def root(self) -> Path:
        return Path(f"/proc/{self.init}/root")

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(
            ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", *argv],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert not check or done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def unit(self, name: str, text: str) -> None:
        self.write(f"/run/systemd/system/{name}", text)
        self.run("systemctl", "daemon-reload")

    def show(self, unit: str, prop: str) -> str:
        return self.run("systemctl", "show", "--value", f"--property={prop}", unit)


class EnrolledInside(Enrolled):
    """A node's files inside the machine, where the shipped units expect them."""

    @override
    def layout(self) -> Config:
        root = self.home.parents[2]
        (root / "etc/narthex").mkdir()
        return Config(
            node_dir=self.home,
            state_dir=root / "var/lib/narthex-actor",
            socket=root / "run/narthex/actor.sock",
            policy_file=root / "etc/narthex/policy.yaml",
        )


@dataclass
class Lab:
    """A machine with the actor installed as its units install it."""

    machine: Machine
    enrolled: Enrolled
    client: Client


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("needs root and systemd-nspawn: apt-get install systemd-container dbus")
    with booted() as one:
        yield one


@pytest.fixture(scope="session")
def lab(machine: Machine) -> Lab:
    with (machine.root / "etc/group").open("a") as groups:
        groups.write("narthex:x:900:\nalice:x:1000:\ndocker:x:901:bob\n")
    with (machine.root / "etc/passwd").open("a") as users:
        users.write("alice:x:1000:1000::/tmp:/bin/sh\nbob:x:1001:1000::/tmp:/bin/sh\n")
    for unit in ("narthex-actor.service", "narthex-actor.socket"):
        machine.write(f"/etc/systemd/system/{unit}", (UNITS / unit).read_text())
    machine.write("/etc/systemd/system/narthex-actor.service.d/checkout.conf", DROP_IN)
    enrolled = EnrolledInside(machine.root / "var/lib/narthex")
    enrolled.write_policy(POLICY)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "narthex-actor.socket")
    return Lab(machine, enrolled, Client(enrolled))


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    before = {path for parent in CGROUPS for path in _payloads(parent)}
    process = subprocess.Popen(
        [
            "systemd-nspawn", "--quiet", "--directory=/", "--volatile=yes", "--boot",
            "--private-network", "--register=no", "--keep-unit", "--console=pipe",
            f"--machine=narthex-lab-{os.getpid()}", *_binds(),
            "systemd.firstboot=off", "systemd.unit=basic.target",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    machine = None
    try:
        machine = _await_boot(process)
        yield machine
    finally:
        if machine is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(machine.init, signal.SIGRTMIN + 4)  # power off, see systemd(1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20 if machine else 0.1)
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
        _remove_cgroups(before)


def _binds() -> list[str]:
    """Show the checkout and the interpreter inside, wherever they are."""
    wanted = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
    return [f"--bind-ro={path}" for path in sorted(wanted) if not path.is_relative_to("/usr")]


def _await_boot(process: subprocess.Popen[bytes]) -> Machine:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            machine = Machine(int(child))
            if machine.run("systemctl", "is-system-running", check=False) in {
                "running",
                "degraded",
            }:
                return machine
        time.sleep(0.2)
    raise AssertionError("systemd did not boot in time")


def _payloads(parent: Path) -> list[Path]:
    found = [parent / "payload", parent / "supervisor"]
    return [path for path in found if path.is_dir()]


def _remove_cgroups(before: set[Path]) -> None:
    """Take away the empty groups that nspawn leaves where it registers nowhere."""
    for parent in CGROUPS:
        for path in set(_payloads(parent)) - before:
            for folder, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
