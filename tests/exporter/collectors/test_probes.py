"""What only root may see is looked at by the probe, and told by an exporter that is not root."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from narthex_exporter.collectors.probes import Probes, leave
from narthex_exporter.collectors.spec import (
    Collector,
    NoData,
    Node,
    Sample,
    collector,
    counter,
    gauges,
)
from narthex_exporter.config import Config
from narthex_exporter.errors import UnavailableError
from narthex_exporter.probe import probe

DISKS = counter("test_disks_total", "Disks.", ("zone", "disk"))
FIELDS = gauges("test_{field}_bytes", "Field {field}.")


def make(act: Callable[[], Iterator[Sample]]) -> Collector:
    @collector(
        name="secret", metrics=(DISKS, FIELDS), every_seconds=60, limit_seconds=5, privileged=True
    )
    def collect(_node: Node) -> Iterator[Sample]:
        yield from act()

    return collect


def found() -> Iterator[Sample]:
    yield DISKS.at(3, "z", 'a"b\\\n\ufffd')
    yield DISKS.at(4.5, "", "sdb")
    yield FIELDS.named(field="x").at(7)


def nothing() -> Iterator[Sample]:
    raise NoData("no disks")
    yield


def told(probes: Probes, each: Collector, node: Node) -> set[tuple[str, tuple[str, ...], float]]:
    return {
        (sample.metric.name, sample.values, sample.value)
        for sample in probes.look(each, node).samples
        if isinstance(sample, Sample)
    }


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()


def test_what_the_probe_found_is_told_as_it_was(node: Node, tmp_path: Path) -> None:
    each = make(found)
    leave(each, node, tmp_path)
    wanted = told(Probes(root=True), each, node)
    assert told(Probes(tmp_path, root=False), each, node) == wanted
    assert len(wanted) == 3


def test_root_looks_itself(node: Node, tmp_path: Path) -> None:
    assert told(Probes(tmp_path, root=True), make(found), node)


def test_without_a_probe_there_is_no_data_and_a_hint(node: Node, tmp_path: Path) -> None:
    with pytest.raises(NoData, match=r"needs root.*narthex-probe\.timer"):
        Probes(tmp_path, root=False).look(make(found), node)


def test_where_the_probe_found_nothing_there_is_no_data(node: Node, tmp_path: Path) -> None:
    leave(make(nothing), node, tmp_path)
    with pytest.raises(NoData, match="found nothing"):
        Probes(tmp_path, root=False).look(make(found), node)


def test_what_is_old_or_broken_is_a_failure(node: Node, tmp_path: Path) -> None:
    each = make(found)
    leave(each, node, tmp_path)
    file = tmp_path / "secret.prom"
    later = file.stat().st_mtime + 901
    with pytest.raises(UnavailableError, match="old"):
        Probes(tmp_path, root=False, now=lambda: later).look(each, node)
    file.write_text("half a li")
    with pytest.raises(UnavailableError, match=r"secret\.prom"):
        Probes(tmp_path, root=False).look(each, node)


def test_names_that_the_collector_does_not_declare_are_left_out(
    node: Node, tmp_path: Path
) -> None:
    (tmp_path / "secret.prom").write_text('node_load1 9\ntest_disks_total{disk="a"} 1\n')
    assert told(Probes(tmp_path, root=False), make(found), node) == {
        ("test_disks_total", ("", "a"), 1)
    }


def test_the_probe_leaves_a_file_for_each_that_is_on(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nx:x:1:1::/:/bin/sh\n")
    (tmp_path / "etc/shadow").write_text("root:*:1:::::::\nx::1:::::::\n")
    config = Config(
        rootfs=tmp_path, probes=tmp_path / "left", modules=("passwords", "loadavg", "apparmor")
    )
    assert probe(config, {}) == []
    files = sorted(path.name for path in config.probes.iterdir())
    assert files == ["apparmor.prom", "passwords.prom"]
    file = config.probes / "passwords.prom"
    assert file.stat().st_mode & 0o777 == 0o644
    assert "narthex_users_without_password 1" in file.read_text()
    before = file.stat().st_mtime_ns
    probe(config, {})
    assert file.stat().st_mtime_ns == before
    probe(config, {}, everything=True)
    assert file.stat().st_mtime_ns > before


def test_one_that_fails_is_named_and_keeps_its_last_file(tmp_path: Path) -> None:
    (tmp_path / "etc/shadow").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    config = Config(rootfs=tmp_path, probes=tmp_path / "left", modules=("passwords",))
    config.probes.mkdir()
    file = config.probes / "passwords.prom"
    file.write_text("narthex_users_without_password 5\n")
    os.utime(file, (1, 1))
    assert probe(config, {}) == ["passwords"]
    assert file.read_text() == "narthex_users_without_password 5\n"
