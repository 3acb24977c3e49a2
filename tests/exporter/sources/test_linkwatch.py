"""A change of a network device is heard of at once, and nothing is believed for ever."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from narthex_exporter.sources.linkwatch import LinkWatch
from narthex_exporter.sources.place import Paths


@pytest.fixture
def device() -> Iterator[str]:
    name = "nxwatch0"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "nxwatch1"], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name], check=False)


@pytest.mark.parametrize(
    "change", [("mtu", "1400"), ("up",), ("txqueuelen", "7"), ("address", "02:00:00:00:00:07")]
)
def test_a_change_is_told_once(device: str, change: tuple[str, ...]) -> None:
    watch = LinkWatch()
    watch.changed()
    while watch.changed():
        pass
    subprocess.run(["ip", "link", "set", device, *change], check=True)
    assert watch.changed()
    watch.close()


def test_nothing_is_told_while_nothing_happens() -> None:
    now = [0.0]
    watch = LinkWatch(clock=lambda: now[0])
    assert watch.changed()
    while watch.changed():
        pass
    now[0] = 59
    assert not watch.changed()
    now[0] = 61
    assert watch.changed()
    assert not watch.changed()
    watch.close()


def test_a_flood_of_changes_is_no_failure(device: str) -> None:
    watch = LinkWatch()
    watch.changed()
    batch = "".join(f"link set {device} mtu {1300 + n % 2}\n" for n in range(3000))
    subprocess.run(["ip", "-batch", "-"], input=batch.encode(), check=True)
    assert watch.changed()
    watch.close()


def test_devices_of_another_tree_may_always_have_changed(tmp_path: Path) -> None:
    watch = LinkWatch.of(Paths(sys=tmp_path))
    assert watch.changed()
    assert watch.changed()
