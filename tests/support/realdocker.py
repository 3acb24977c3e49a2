"""A Docker engine of our own, in a folder of its own, for tests; no registry, no network."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from narthex_exporter.sources.engines import _Connection

IMAGE = "narthex-lab:1"
APPLETS = ("sh", "sleep", "dd", "true", "false", "cat", "echo", "httpd")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass
class Engine:
    """A running engine."""

    home: Path
    process: "subprocess.Popen[bytes]"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.home / "docker.sock"

    def run(self, *argv: str) -> str:
        """Run the docker program against it."""
        done = subprocess.run(
            ["docker", f"--host=unix://{self.socket}", *argv],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout.strip()

    def ask(self, path: str) -> Any:
        """Ask its API."""
        connection = _Connection(str(self.socket))
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def remove_all(self) -> None:
        """Remove every container."""
        if ids := self.run("ps", "--all", "--quiet").split():
            self.run("rm", "--force", *ids)


@contextlib.contextmanager
def engine(home: Path) -> Iterator[Engine]:
    """Start one with an image of busybox, and leave nothing of it behind."""
    needed = ("dockerd", "docker", "busybox")
    if os.geteuid() != 0 or not all(map(shutil.which, needed)):
        pytest.skip("needs root: apt-get install docker.io busybox-static")
    before = groups()
    with started(home) as one:
        import_image(one)
        try:
            yield one
        finally:
            one.process.send_signal(signal.SIGCONT)
            one.remove_all()
    clean(home, before)


@contextlib.contextmanager
def started(home: Path) -> Iterator[Engine]:
    """Start the daemon, and wait until it answers."""
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "dockerd", f"--data-root={home}/root", f"--exec-root={home}/exec",
                f"--host=unix://{home}/docker.sock", f"--pidfile={home}/pid", "--bridge=none",
                "--iptables=false", "--ip-masq=false", "--ip-forward=false",
            ],
            stdout=log, stderr=log,
        )  # fmt: skip
    one = Engine(home, process)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                one.ask("/version")
                break
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield one
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(30)


def import_image(one: Engine) -> None:
    """Give it an image that is made here."""
    tar = one.home / "image.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(shutil.which("busybox") or "", "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    one.run("import", str(tar), IMAGE)


def groups() -> set[Path]:
    """List the control groups of engines."""
    return {*CGROUPS.glob("docker"), *CGROUPS.glob("*/docker")}


def clean(home: Path, before: set[Path]) -> None:
    """Take away the mounts and the empty groups that an engine leaves."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = line.split()[1]
        if point.startswith(f"{home}/"):
            subprocess.run(["umount", "--lazy", point], check=True)
    for path in groups() - before:
        with contextlib.suppress(OSError):
            path.rmdir()
    shutil.rmtree(home)
