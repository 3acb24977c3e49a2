"""A collector that fails, hangs or has nothing to say costs its own metrics only."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

from narthex_exporter.collectors import diskstats, filesystem, netclass, netdev
from narthex_exporter.collectors.background import Background
from narthex_exporter.collectors.registry import to_families
from narthex_exporter.collectors.scrape import Scraper, look
from narthex_exporter.collectors.spec import (
    Collector,
    NoData,
    Node,
    Option,
    Sample,
    collector,
    counter,
    gauge,
    gauges,
    limit_option,
)

VALUE = gauge("test_value", "A value.", ("who",))


def make(name: str, act: Callable[[], float], limit: float = 2.0) -> Collector:
    @collector(name=name, metrics=(VALUE,), limit_seconds=limit)
    def collect(_node: Node) -> Iterator[Sample]:
        yield VALUE.at(act(), name)

    return collect


def read(scraper: Scraper, wanted: frozenset[str] | None = None) -> dict[tuple[str, str], float]:
    found = {}
    for family in to_families(scraper.samples(wanted)):
        for sample in family.samples:
            found[sample.name, next(iter(sample.labels.values()), "")] = sample.value
    return found


@collector(name="slow", metrics=(VALUE,), every_seconds=10)
def slow(node: Node) -> Iterator[Sample]:
    """Look slowly."""
    yield VALUE.at(float(node.proc.text("loadavg").split()[0]), "slow")


MAX = limit_option("max", 2, "How many at most.")


@collector(name="many", metrics=(VALUE,), options=(MAX,))
def many(node: Node) -> Iterator[Sample]:
    """Find many."""
    for who in node.capped(MAX, node.proc.text("loadavg").split()):
        yield VALUE.at(1, who)


def fail() -> float:
    raise ValueError("broken")


def nothing() -> float:
    raise NoData("not on this machine")


def test_a_failure_costs_its_own_metrics(
    make_node: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    scraper = Scraper(node=make_node(), collectors=[make("a", fail), make("b", lambda: 7.0)])
    for _ in range(3):
        found = read(scraper)
    assert found["test_value", "b"] == 7
    assert ("test_value", "a") not in found
    assert found["node_scrape_collector_success", "a"] == 0
    assert found["node_scrape_collector_success", "b"] == 1
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        "collector.failed"
    ]


def test_nothing_to_report_is_no_warning(
    make_node: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    found = read(Scraper(node=make_node(), collectors=[make("a", nothing)]))
    assert found["node_scrape_collector_success", "a"] == 0
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_what_is_absent_is_asked_again_now_and_then(make_node: Callable[..., Node]) -> None:
    asked, clock, there = [], [100.0], [False]

    def act() -> float:
        asked.append(1)
        if not there[0]:
            raise NoData("not plugged in")
        return 7.0

    scraper = Scraper(
        node=make_node(), collectors=[make("a", act)], clock=lambda: clock[0], absent_seconds=30
    )
    for _ in range(3):
        found = read(scraper)
        assert found["narthex_collector_no_data", "a"] == 1
        assert found["node_scrape_collector_success", "a"] == 0
    assert len(asked) == 1
    there[0] = True
    clock[0] += 30
    for _ in range(2):
        assert read(scraper)["test_value", "a"] == 7
    assert len(asked) == 3


def test_a_hang_costs_one_limit_once_and_heals(make_node: Callable[..., Node]) -> None:
    go_on = threading.Event()

    def hang() -> float:
        go_on.wait(10)
        return 1.0

    scraper = Scraper(node=make_node(), collectors=[make("a", hang, 0.3), make("b", lambda: 7.0)])
    began = time.monotonic()
    first = read(scraper)
    assert 0.25 < time.monotonic() - began < 1.0
    assert (first["node_scrape_collector_success", "a"], first["test_value", "b"]) == (0, 7)
    before = threading.active_count()
    for _ in range(5):
        began = time.monotonic()
        assert read(scraper)["node_scrape_collector_success", "a"] == 0
        assert time.monotonic() - began < 0.2
    assert threading.active_count() <= before
    go_on.set()
    deadline = time.monotonic() + 2
    while read(scraper)["node_scrape_collector_success", "a"] == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_only_wanted_collectors_run(make_node: Callable[..., Node]) -> None:
    scraper = Scraper(node=make_node(), collectors=[make("a", fail), make("b", lambda: 7.0)])
    assert ("node_scrape_collector_success", "a") not in read(scraper, frozenset({"b"}))


def without_success(page: Any) -> set[str]:
    encode, _ = choose_encoder("")
    return {
        sample.labels["collector"]
        for family in text_string_to_metric_families(encode(page).decode())
        if family.name == "node_scrape_collector_success"
        for sample in family.samples
        if not sample.value
    }


@pytest.mark.parametrize(
    ("file", "data", "spoilt"),
    [
        ("proc/stat", b"cpu0 x y\n", {"cpu", "stat"}),
        ("proc/stat", b"", set()),
        ("proc/loadavg", b"nonsense", {"loadavg"}),
        ("proc/loadavg", b"", {"loadavg"}),
        ("proc/meminfo", b"MemTotal: many kB\n", {"meminfo"}),
        ("proc/meminfo", b"\n:\nA:\nB b: 3\n", set()),
        ("proc/diskstats", b"8 0 s\xffda 1 2 3 4 5 6 7 8 9 10 11\n", set()),
        ("proc/net/dev", b'x\ny\n a"b\\c: 1 2 3\n\xff\xfe: 4\n', set()),
        ("proc/net/sockstat", b"\xff\xff: a b\n", {"sockstat"}),
        ("proc/vmstat", b"pgfault\npgfault x\n", {"vmstat"}),
        ("proc/1/mountinfo", b"1 2 3\n\\999 - -\n\xff", {"filesystem"}),
        ("proc/sys/kernel/hostname", b'ev"il\\\n\xff\x00name\n', set()),
        ("sys/class/net/eth0/mtu", b"not a number", set()),
        ("sys/class/net/eth0/ifalias", b'"},x="\n1', set()),
    ],
)
def test_malformed_files_spoil_their_own_part(
    make_page: Callable[..., Any], tree: Path, file: str, data: bytes, spoilt: set[str]
) -> None:
    absent = without_success(make_page(tree))
    (tree / file).write_bytes(data)
    assert without_success(make_page(tree)) - absent == spoilt


def test_absent_files_are_told_as_failures(make_page: Callable[..., Any], tmp_path: Path) -> None:
    samples = [s for family in make_page(tmp_path).collect() for s in family.samples]
    # adjtimex(2) is the machine's, whatever the paths.
    samples = [s for s in samples if not s.name.startswith("node_timex_")]
    assert {s.name for s in samples} <= {
        "narthex_collector_no_data",
        "narthex_collector_truncated",
        "node_scrape_collector_duration_seconds",
        "node_scrape_collector_success",
        "node_selinux_enabled",
        "node_time_seconds",
        "node_time_zone_offset_seconds",
    }


def test_twice_the_same_labels_count_once(make_node: Callable[..., Node]) -> None:
    @collector(name="twice", metrics=(VALUE,))
    def collect(_node: Node) -> Iterator[Sample]:
        yield VALUE.sample(1, who="x")
        yield VALUE.sample(2, who="x")

    assert read(Scraper(node=make_node(), collectors=[collect]))["test_value", "x"] == 2


@pytest.mark.parametrize(
    ("declare", "name"),
    [
        (counter, "narthex_a_count"),
        (gauge, "narthex_a_total"),
        (gauge, "a-b"),
        (gauge, "1"),
    ],
)
def test_a_wrong_name_cannot_be_declared(declare: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        declare(name, "Help.")


def test_a_sample_wants_every_label() -> None:
    with pytest.raises(KeyError):
        VALUE.sample(1)


def test_a_family_cleans_the_kernels_names() -> None:
    family = gauges("test_{field}_bytes", "{field}.")
    assert family.named(field="a b-c{").name == "test_a_b_c__bytes"
    assert family.matches("test_a_b_c__bytes")
    assert not family.matches("test_a")


def test_an_option_has_its_default_until_it_is_set(make_node: Callable[..., Node]) -> None:
    option = Option("size", "3", int, "A size.")
    assert make_node().setting(option) == 3
    assert make_node(settings={option: 4}).setting(option) == 4


def test_a_slow_one_runs_on_its_own_schedule(make_node: Callable[..., Node], tree: Path) -> None:
    node, clock = make_node(tree), [100.0]
    background = Background(node=node, collectors=[slow], look=look, clock=lambda: clock[0])
    scraper = Scraper(node=node, collectors=[slow], background=background)
    load = tree / "proc/loadavg"
    load.write_text("1.5 0 0\n")
    assert not read(scraper)
    background.run_due()
    load.write_text("2.5 0 0\n")
    for _ in range(3):
        background.run_due()
        assert read(scraper)["test_value", "slow"] == 1.5
    clock[0] += 10
    background.run_due()
    found = read(scraper)
    assert found["test_value", "slow"] == 2.5
    assert found["narthex_collector_last_success_timestamp_seconds", "slow"] > 0
    assert not read(scraper, frozenset())


def test_a_slow_one_that_fails_is_told_of_and_in_the_end_left_out(
    make_node: Callable[..., Node], tree: Path
) -> None:
    node, clock = make_node(tree), [100.0]
    background = Background(node=node, collectors=[slow], look=look, clock=lambda: clock[0])
    scraper = Scraper(node=node, collectors=[slow], background=background)
    background.run_due()
    (tree / "proc/loadavg").write_text("nonsense")
    clock[0] += 11
    background.run_due()
    found = read(scraper)
    assert found["node_scrape_collector_success", "slow"] == 0
    assert ("test_value", "slow") in found
    clock[0] += 31
    found = read(scraper)
    assert ("test_value", "slow") not in found
    assert ("narthex_collector_last_success_timestamp_seconds", "slow") not in found


def test_a_limit_cuts_and_tells(make_node: Callable[..., Node], tree: Path) -> None:
    (tree / "proc/loadavg").write_text("a b")
    scraper = Scraper(node=make_node(tree), collectors=[many])
    found = read(scraper)
    assert {who for name, who in found if name == "test_value"} == {"a", "b"}
    assert found["narthex_collector_truncated", "many"] == 0
    (tree / "proc/loadavg").write_text("a b c")
    found = read(scraper)
    assert {who for name, who in found if name == "test_value"} == {"a", "b"}
    assert found["narthex_collector_truncated", "many"] == 1


@pytest.mark.parametrize(
    ("module", "series"),
    [
        (netdev, "node_network_receive_bytes_total"),
        (netclass, "node_network_mtu_bytes"),
        (diskstats, "node_disk_reads_completed_total"),
        (filesystem, "node_filesystem_files"),
    ],
)
def test_devices_and_mounts_have_a_limit(
    make_node: Callable[..., Node], module: Any, series: str
) -> None:
    for most, truncated in ((1, 1), (1000, 0)):
        node = make_node(settings={module.MAX: most})
        for _ in range(2):
            found = look(module.collect, node.fresh())
            told = [s for s in found.samples if s.metric.name == series]
            assert found.truncated is bool(truncated)
            assert (len(told) == 1) is bool(truncated)


def test_filesystems_are_chosen_by_include_and_exclude(measure: Callable[..., Any]) -> None:
    everything = measure(filesystem.collect)
    settings = {filesystem.FS_TYPES_INCLUDE: re.compile("^ext4$")}
    some = measure(filesystem.collect, settings=settings)
    assert set(some) < set(everything)
    assert all('fstype="ext4"' in key for key in some if "fstype" in key)
    settings = {filesystem.MOUNT_POINTS_INCLUDE: re.compile("^/$")}
    root = measure(filesystem.collect, settings=settings)
    assert all('mountpoint="/"' in key for key in root)
