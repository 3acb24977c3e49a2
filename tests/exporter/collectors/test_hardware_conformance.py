"""Our metrics of hardware beside those of Debian's node_exporter, on one invented machine."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hardwaretree import CLASSES, HWMON, PROC, plant
from narthex_exporter.collectors import COLLECTORS
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Node
from peers import fetch, node_exporter

# Collectors of theirs that 1.5 has, under the names that ours have too.
THEIRS = (
    "arp", "bonding", "conntrack", "drm", "fibrechannel", "hwmon", "infiniband", "netclass",
    "nvme", "powersupplyclass", "rapl", "tapestats", "thermal_zone", "udp_queues",
)  # fmt: skip
# Labels and names that newer node_exporters have and 1.5 has not.
NEWER_LABELS = {"adminstate", "cntlid"}
NEWER_NAMES = {
    *(f"node_nvme_namespace_{name}_bytes" for name in ("capacity", "logical_block_size", "size")),
    *("node_nvme_namespace_info", "node_nvme_namespace_used_bytes"),
}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant(tmp_path_factory.mktemp("machine"), HWMON, CLASSES, PROC)


@pytest.fixture(scope="module")
def theirs(machine: Path) -> str:
    with node_exporter(
        f"--path.procfs={machine}/proc",
        f"--path.sysfs={machine}/sys",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in THEIRS),
    ) as url:
        return fetch(url)


@pytest.fixture
def ours(machine: Path, make_node: Callable[..., Node]) -> str:
    samples: list[Any] = []
    for collector in COLLECTORS:
        if collector.name in THEIRS:
            samples += look(collector, make_node(machine)).samples
    return Encoder().encode(samples).decode()


def kinds(text: str) -> dict[str, str]:
    families = text_string_to_metric_families(text)
    return {
        sample.name: family.type
        for family in families
        for sample in family.samples
        if _compared(sample.name)
    }


def series(text: str, machine: Path) -> Series:
    return {
        (
            sample.name,
            frozenset(
                # They tell of the tree, we of its machine; and an empty label is none.
                (name, value.replace(f"{machine}/", "/"))
                for name, value in sample.labels.items()
                if value and name not in NEWER_LABELS
            ),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if _compared(sample.name)
    }


def _compared(name: str) -> bool:
    return (
        name.startswith("node_")
        and not name.startswith(("node_scrape_", "node_exporter_"))
        and name not in NEWER_NAMES
    )


def test_each_of_their_collectors_has_something_to_say(theirs: str) -> None:
    found = {
        sample.labels["collector"]: sample.value
        for family in text_string_to_metric_families(theirs)
        for sample in family.samples
        if sample.name == "node_scrape_collector_success"
    }
    assert found == dict.fromkeys(THEIRS, 1.0)


def test_names_and_types_are_the_same(theirs: str, ours: str) -> None:
    assert len(kinds(theirs)) > 120
    assert kinds(ours) == kinds(theirs)


def test_labels_are_the_same(theirs: str, ours: str, machine: Path) -> None:
    their, our = series(theirs, machine).keys(), series(ours, machine).keys()
    assert sorted((name, sorted(labels)) for name, labels in their ^ our) == []


def test_values_are_the_same(theirs: str, ours: str, machine: Path) -> None:
    our = series(ours, machine)
    apart = {
        key: (value, our[key])
        for key, value in series(theirs, machine).items()
        # Their factors of a thousandth leave a last digit wrong.
        if not math.isclose(value, our[key], rel_tol=1e-12)
    }
    assert apart == {}
