"""The fixture tree as a node, and how a scrape of it reads."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.core import Metric

from narthex_exporter.collectors import COLLECTORS
from narthex_exporter.collectors.background import Background
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.registry import Registered
from narthex_exporter.collectors.scrape import Scraper, look
from narthex_exporter.collectors.spec import Collector, Node
from narthex_exporter.sources.filesystems import Filesystems, Space
from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

FIXTURES = Path(__file__).parent / "fixtures"


def answer(path: bytes) -> Space:
    if path.endswith(b"/gone"):
        raise OSError(116, "Stale file handle")
    return Space(size=1000, free=500, available=400, files=100, files_free=50)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the fixtures that a test may spoil."""
    return Path(shutil.copytree(FIXTURES, tmp_path / "tree"))


@pytest.fixture
def make_node() -> Callable[..., Node]:
    def make(tree: Path = FIXTURES, **settings: Any) -> Node:
        return Node(
            proc=Procfs(tree / "proc"),
            sys=Sysfs(tree / "sys"),
            filesystems=Filesystems(procfs=tree / "proc", ask=answer),
            paths=Paths(
                proc=tree / "proc", sys=tree / "sys", root=tree / "root", udev=tree / "udev"
            ),
            **settings,
        )

    return make


Values = dict[str, float]


@pytest.fixture
def measure(make_node: Callable[..., Node]) -> Callable[..., Values]:
    """Run one collector on a tree; values by series: ``name{label="value"}``."""

    def run(collector: Collector, tree: Path = FIXTURES, **node: Any) -> Values:
        samples = look(collector, make_node(tree, **node)).samples
        lines = Encoder().encode(samples).decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {series: float(value) for series, _, value in pairs}

    return run


# They ask programs, or the kernel past /proc: what they say is this machine's.
LIVE = frozenset(
    {
        "actor",
        "firewall",
        "lvm",
        "policy",
        "ports",
        "restarts",
        "smartmon",
        "timesync",
        "updates",
        "vms",
    }
)


class Page:
    """A scrape, as an encoder takes it; looks of collectors with a schedule are made first."""

    def __init__(self, scraper: Scraper) -> None:
        self.scraper = scraper
        if scraper.background is not None:
            scraper.background.run_due()

    def collect(self) -> Iterator[Metric]:
        yield from Registered(self.scraper).collect()


@pytest.fixture
def make_page(make_node: Callable[..., Node]) -> Callable[..., Page]:
    def make(tree: Path = FIXTURES) -> Page:
        node, collectors = make_node(tree), [each for each in COLLECTORS if each.name not in LIVE]
        slow = [each for each in collectors if each.interval is not None]
        background = Background(node=node, collectors=slow, look=look)
        return Page(Scraper(node=node, collectors=collectors, background=background))

    return make
