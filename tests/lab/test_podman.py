"""The container families on a real Podman, by its own API service."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from containernode import ContainerNode
from narthex_exporter.contract.errors import RefusedError

IMAGE = "localhost/narthex-lab:1"


@dataclass
class Podman:
    """A store of our own, and the service on it."""

    home: Path

    @property
    def socket(self) -> Path:
        return self.home / "podman.sock"

    @property
    def words(self) -> list[str]:
        return [
            "podman", f"--root={self.home}/root", f"--runroot={self.home}/run",
            f"--tmpdir={self.home}/state", "--storage-driver=vfs", "--cgroup-manager=cgroupfs",
            "--events-backend=file",
        ]  # fmt: skip

    def run(self, *argv: str) -> str:
        done = subprocess.run(
            [*self.words, *argv], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout.strip()


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("podman", "busybox"))):
        pytest.skip("needs root: apt-get install podman busybox-static")
    # Its sockets and its monitors' need short paths.
    one = Podman(tmp_path_factory.mktemp("pod"))
    rootfs = one.home / "rootfs/bin"
    rootfs.mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", rootfs / "busybox")
    for applet in ("sh", "sleep", "echo"):
        (rootfs / applet).symlink_to("busybox")
    subprocess.run(["tar", "-cf", one.home / "image.tar", "-C", rootfs.parent, "."], check=True)
    # Its usual limits of open files are higher than a test's machine may set.
    (one.home / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
    )
    service = subprocess.Popen(
        [*one.words, "system", "service", "--time=0", f"unix://{one.socket}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "CONTAINERS_CONF": str(one.home / "containers.conf")},
    )  # fmt: skip
    try:
        one.run("import", str(one.home / "image.tar"), IMAGE)
        deadline = time.monotonic() + 20
        while not one.socket.exists():
            assert service.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield one
        one.run("rm", "--force", "--all", "--time=0")
    finally:
        service.terminate()
        service.wait(10)
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if (point := line.split()[1]).startswith(f"{one.home}/"):
                subprocess.run(["umount", "--lazy", point], check=False)
        with contextlib.suppress(OSError):
            shutil.rmtree(one.home)


@pytest.fixture
def node(podman: Podman) -> ContainerNode:
    return ContainerNode(podman=podman.socket)


def test_podman_is_read_and_acted_on_as_docker_is(podman: Podman, node: ContainerNode) -> None:
    made = node.done(
        "container.create", engine="podman", container="web", image=IMAGE, networks=["none"],
        command=["sh", "-c", "echo hello; sleep 1000"], env=["TEAM=red"], pids=20,
        volumes=["pages:/srv"],
    )  # fmt: skip
    [one] = node.ask("container.list")["containers"]
    assert (one["engine"], one["name"], one["state"]) == ("podman", "web", "created")
    told = node.ask("container.get", engine="podman", container="web")
    assert "TEAM=***" in told["environment"]
    assert told["container"]["mounts"][0]["source"] == "pages"
    [image] = node.ask("image.list")["images"]
    assert (image["tags"], image["used_by"]) == ([IMAGE], ["web"])
    with pytest.raises(RefusedError, match="used by web"):
        node.plan("volume.remove", engine="podman", volume="pages")
    versions = {one["name"]: one["version"] for one in node.ask("container.list")["engines"]}
    assert versions["podman"]
    networks = node.ask("container-network.list")["networks"]
    assert any(one["is_built_in"] and one["driver"] == "bridge" for one in networks)
    node.undo(made)
    assert node.ask("container.list")["containers"] == []
    node.done("volume.remove", engine="podman", volume="pages")
    with pytest.raises(RefusedError, match="no such file"):
        node.plan("container.stop", container="web")


def test_podmans_containers_run_and_write(podman: Podman, node: ContainerNode) -> None:
    node.done(
        "container.run", engine="podman", container="web", image=IMAGE, networks=["none"],
        command=["sh", "-c", "echo hello; sleep 1000"],
    )  # fmt: skip
    deadline = time.monotonic() + 10
    while not (lines := node.ask("container.logs", engine="podman", containers=["web"])["lines"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [(line["stream"], line["text"]) for line in lines] == [("stdout", "hello")]
    node.done("container.stop", engine="podman", container="web", grace_seconds=0)
    node.done("container.remove", engine="podman", container="web")
