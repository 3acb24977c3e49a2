"""Report how many packages are installed, and how many only half."""

from collections.abc import Iterator

from narthex_exporter.collectors.spec import NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.dpkg import Dpkg
from narthex_exporter.sources.programs import MissingError
from narthex_exporter.sources.rpm import Rpm

INSTALLED = gauge("narthex_packages_installed", "How many packages are installed.", ("manager",))
BROKEN = gauge(
    "narthex_packages_broken",
    "How many packages are half installed, not configured, or to be installed again.",
    ("manager",),
)


@collector(name="packages", metrics=(INSTALLED, BROKEN), every_seconds=300, limit_seconds=70)
def collect(node: Node) -> Iterator[Sample]:
    """Report how many packages are installed, and how many only half."""
    found = [*_dpkg(node), *_rpm(node)]
    if not found:
        raise NoData("there is neither dpkg's status file nor rpm with a database")
    yield from found


def _dpkg(node: Node) -> Iterator[Sample]:
    try:
        packages = node.source(Dpkg).get()
    except FileNotFoundError:
        return
    yield INSTALLED.at(packages.installed, "dpkg")
    yield BROKEN.at(packages.broken, "dpkg")


def _rpm(node: Node) -> Iterator[Sample]:
    try:
        installed = node.source(Rpm).installed()
    except MissingError:
        return
    if installed is not None:
        yield INSTALLED.at(installed, "rpm")
