"""Our metrics beside those of Debian's node_exporter, on this machine, now."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from narthex_exporter.collectors import COLLECTORS, diskstats, filesystem, netdev
from narthex_exporter.collectors.background import Background
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import Scraper, look
from narthex_exporter.collectors.spec import Node
from narthex_exporter.sources.filesystems import Filesystems
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs
from peers import fetch, node_exporter

# What they have and we have not, each with its reason.
ABSENT = {
    "node_tcp_connection_states": "moves as it is asked for; see test_tcpstat.py",
}
# Labels that newer node_exporters have and 1.5 has not.
NEWER_LABELS = {"device_error", "adminstate", "rotational"}
# What moves between two reads a moment apart, and by how much of itself it may.
TOLERANCE = 0.05
SLACK = {"node_procs_running": 20, "node_procs_blocked": 20, "node_disk_io_now": 50}
# What other programs drive up and down between the two reads.
MOVING = (
    "node_filefd", "node_load", "node_netstat", "node_nf_conntrack", "node_processes",
    "node_sockstat", "node_softnet", "node_timex", "node_udp_queues", "node_vmstat",
)  # fmt: skip
# Nobody may be in one of these states at one of the two moments.
STATES = {"node_processes_state", "node_processes_threads_state"}
# Absolute room for counters that another program may drive in between.
ROOM = {"seconds": 2.0, "bytes": 400e6}


@dataclass
class Family:
    kind: str
    values: dict[frozenset[tuple[str, str]], float]


def parse(text: str) -> dict[str, Family]:
    found: dict[str, Family] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset((k, v) for k, v in sample.labels.items() if k not in NEWER_LABELS)
            found.setdefault(sample.name, Family(family.type, {})).values[labels] = sample.value
    return found


@pytest.fixture(scope="module")
def theirs() -> Iterator[str]:
    with node_exporter(
        # More of theirs than they have on by default.
        "--collector.processes",
        "--collector.tcpstat",
        # Debian has other defaults than upstream, so both get ours.
        f"--collector.filesystem.mount-points-exclude={filesystem.MOUNT_POINTS_EXCLUDE.default}",
        f"--collector.filesystem.fs-types-exclude={filesystem.FS_TYPES_EXCLUDE.default}",
        f"--collector.diskstats.device-exclude={diskstats.DEVICE_EXCLUDE.default}",
        f"--collector.netdev.device-exclude={netdev.DEVICE_EXCLUDE.default}",
    ) as url:
        yield url


@pytest.fixture(scope="module")
def both(theirs: str) -> tuple[dict[str, Family], dict[str, Family]]:
    their = parse(fetch(theirs))
    names = {dict(labels)["collector"] for labels in their["node_scrape_collector_success"].values}
    node = Node(proc=Procfs(), sys=Sysfs(), filesystems=Filesystems())
    collectors = [each for each in COLLECTORS if each.name in names]
    slow = [each for each in collectors if each.interval is not None]
    background = Background(node=node, collectors=slow, look=look)
    scraper = Scraper(node=node, collectors=collectors, background=background)
    background.run_due()
    scraper.samples()
    their_text = fetch(theirs)
    ours = Encoder().encode(scraper.samples()).decode()
    return parse(their_text), parse(ours)


def test_most_of_theirs_have_a_collector_of_ours(theirs: str) -> None:
    pattern = r'node_scrape_collector_success{collector="(\w+)"}'
    names = set(re.findall(pattern, fetch(theirs)))
    assert len(names) > 35
    # Ours tell thermal zones' devices, supplies and clocks under the same names of collectors.
    assert names - {each.name for each in COLLECTORS} == set()


def compared(both: tuple[dict[str, Family], dict[str, Family]]) -> Iterator[str]:
    for name in sorted(both[0]):
        # What is told of collectors is told of those that are on, and they have others than we.
        if name.startswith(("node_scrape_", "node_exporter_build")):
            continue
        if name.startswith("node_") and name not in ABSENT:
            yield name


def test_we_have_each_of_their_names(both: tuple[dict[str, Family], dict[str, Family]]) -> None:
    assert not [name for name in compared(both) if name not in both[1]]


def test_types_are_the_same(both: tuple[dict[str, Family], dict[str, Family]]) -> None:
    their, our = both
    different = {n: (their[n].kind, our[n].kind) for n in compared(both) if n in our}
    assert not {name: pair for name, pair in different.items() if pair[0] != pair[1]}


def test_series_are_the_same(both: tuple[dict[str, Family], dict[str, Family]]) -> None:
    their, our = both
    different = {
        name: their[name].values.keys() ^ our[name].values.keys()
        for name in compared(both)
        if name in our and name not in STATES
    }
    assert not {name: sorted(map(sorted, keys)) for name, keys in different.items() if keys}


def test_values_agree(both: tuple[dict[str, Family], dict[str, Family]]) -> None:
    their, our = both
    apart = []
    for name in compared(both):
        if name not in our:
            continue
        for labels, value in their[name].values.items():
            mine = our[name].values.get(labels, float("nan"))
            if not (_agree(name, value, mine) or (name in STATES and math.isnan(mine))):
                apart.append((name, sorted(labels), value, mine))
    assert not apart


def _agree(name: str, their: float, our: float) -> bool:
    unit = re.search(r"(seconds|bytes)(_total)?$", name)
    slack = ROOM[unit[1]] if unit and name.endswith(("_total", "_bytes")) else 0.0
    if name.startswith(MOVING):
        slack = 3000.0
    slack = max(slack, SLACK.get(name, 0.0), abs(their) * TOLERANCE)
    return abs(their - our) <= slack
