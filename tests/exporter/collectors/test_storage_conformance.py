"""Our storage metrics beside those of Debian's node_exporter, on the same fixtures."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from narthex_exporter.collectors import bcache, btrfs, mdadm, textfile, xfs, zfs
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import Scraper
from narthex_exporter.collectors.spec import Node
from peers import fetch, node_exporter

COLLECTORS = (bcache, btrfs, mdadm, textfile, xfs, zfs)
FIXTURES = Path(__file__).parent / "fixtures"
FOLDER = "var/lib/prometheus/node-exporter"
# Where theirs is wrong, or of another time than ours.
UNLIKE = {
    "node_bcache_btree_read_average_duration_seconds": "the kernel tells us, they read ns",
}
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str, folder: str) -> tuple[dict[str, str], Series]:
    kinds: dict[str, str] = {}
    series: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {
                name: float(value) if name == "le" else value.replace(folder, "")
                for name, value in sample.labels.items()
                if value
            }
            kinds[sample.name] = family.type
            series[sample.name, frozenset((k, str(v)) for k, v in labels.items())] = sample.value
    return kinds, series


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = Path(shutil.copytree(FIXTURES, tmp_path_factory.mktemp("storage") / "tree"))
    (found / "sys/class/block").mkdir(exist_ok=True)
    return found


@pytest.fixture(scope="module")
def theirs(tree: Path) -> str:
    names = [each.collect.name for each in COLLECTORS]
    with node_exporter(
        f"--path.procfs={tree}/proc",
        f"--path.sysfs={tree}/sys",
        f"--collector.textfile.directory={tree}/root/{FOLDER}",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in names),
    ) as url:
        return fetch(url)


@pytest.mark.parametrize("prefix", ["bcache", "btrfs", "md", "textfile", "xfs", "zfs", "scripts"])
def test_names_types_labels_and_values_are_theirs(
    tree: Path, theirs: str, make_node: Callable[..., Node], prefix: str
) -> None:
    scraper = Scraper(node=make_node(tree), collectors=[each.collect for each in COLLECTORS])
    text = Encoder().encode(scraper.samples()).decode()
    our_kinds, ours = parse(text, f"{tree}/root")
    their_kinds, their = parse(theirs, f"{tree}/root")
    start = "backup_" if prefix == "scripts" else f"node_{prefix}_"
    compared = {
        key: value
        for key, value in their.items()
        if key[0].startswith(start) and key[0] not in UNLIKE
    }
    assert compared
    apart: dict[Any, Any] = {
        key: (value, ours.get(key)) for key, value in compared.items() if ours.get(key) != value
    }
    assert not apart
    names = {name for name, _ in compared}
    assert {n: our_kinds[n] for n in names} == {n: their_kinds[n] for n in names}
