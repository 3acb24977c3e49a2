"""Report which updates of packages wait to be installed."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from narthex_exporter.collectors.spec import Metric, NoData, Node, Sample, collector, gauge
from narthex_exporter.sources.apt import Apt, Upgrade
from narthex_exporter.sources.dnf import Dnf
from narthex_exporter.sources.dpkg import Dpkg

_ORIGIN: Final = ("origin", "arch")
APT_PENDING = gauge("apt_upgrades_pending", "Apt packages pending updates by origin", _ORIGIN)
APT_HELD = gauge("apt_upgrades_held", "Apt packages pending updates but held back.", _ORIGIN)
APT_AUTOREMOVE = gauge("apt_autoremove_pending", "Apt packages pending autoremoval.")
APT_CACHE = gauge("apt_package_cache_timestamp_seconds", "Apt update last run time.")
PENDING = gauge(
    "narthex_updates_pending",
    "How many installed packages have a newer version, by whether it is a security update.",
    ("manager", "security"),
)
REFRESHED = gauge(
    "narthex_updates_last_refresh_timestamp_seconds",
    "When the lists of available packages were last fetched, in unixtime.",
    ("manager",),
)


@collector(
    name="updates",
    metrics=(APT_PENDING, APT_HELD, APT_AUTOREMOVE, APT_CACHE, PENDING, REFRESHED),
    every_seconds=300,
    limit_seconds=130,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report which updates of packages wait to be installed.

    Looked after often, but asked of the package manager only when its files have changed.
    """
    found = [*_apt(node), *_dnf(node)]
    if not found:
        raise NoData("there is neither apt nor dnf")
    yield from found


def _apt(node: Node) -> Iterator[Sample]:
    apt = node.source(Apt)
    if not apt.present():
        return
    state, held = apt.get(), node.source(Dpkg).get().held
    yield from _by_origin(APT_PENDING, state.upgrades)
    yield from _by_origin(APT_HELD, (each for each in state.upgrades if each.package in held))
    yield APT_AUTOREMOVE.at(state.removable)
    security = sum(each.security for each in state.upgrades)
    yield from _pending("apt", security, len(state.upgrades))
    refreshed = apt.refreshed()
    if refreshed is not None:
        yield APT_CACHE.at(refreshed)
        yield REFRESHED.at(refreshed, "apt")


def _dnf(node: Node) -> Iterator[Sample]:
    dnf = node.source(Dnf)
    state = dnf.get() if dnf.present() else None
    if state is None:
        return
    yield from _pending("dnf", len(state.security), len(state.updates))
    refreshed = dnf.refreshed()
    if refreshed is not None:
        yield REFRESHED.at(refreshed, "dnf")


def _by_origin(metric: Metric, upgrades: Iterable[Upgrade]) -> Iterator[Sample]:
    counts = Counter((each.origin, each.arch) for each in upgrades)
    # As the script does, so that "none" is a nought and not a gap.
    for labels, count in sorted(counts.items()) or [(("", ""), 0)]:
        yield metric.at(count, *labels)


def _pending(manager: str, security: int, every: int) -> Iterator[Sample]:
    yield PENDING.at(security, manager, "true")
    yield PENDING.at(every - security, manager, "false")
