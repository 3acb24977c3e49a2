"""Report the energy that processors and memory have used."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Reading, remembered, samples
from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    NoData,
    Node,
    Sample,
    collector,
    counter,
    switch_option,
)

_FOLDER: Final = "class/powercap"
_MICRO: Final = 1_000_000
JOULES: Final = Family(
    "node_rapl_{zone}_joules_total",
    Kind.COUNTER,
    "Current RAPL {zone} value in joules.",
    ("index", "path"),
)
ANY_JOULES: Final = counter(
    "node_rapl_joules_total", "Current RAPL value in joules.", ("index", "path", "rapl_zone")
)
ZONE_LABEL = switch_option(
    "enable-zone-label", "Report all zones as node_rapl_joules_total, with a label rapl_zone."
)


@collector(name="rapl", metrics=(JOULES, ANY_JOULES), options=(ZONE_LABEL,), privileged=True)
def collect(node: Node) -> Iterator[Sample]:
    """Report the energy that processors and memory have used."""
    readings = remembered(node, "powercap zones", lambda: _find(node))
    found = list(samples(node.sys, readings))
    if readings and not found:
        # Since CVE-2020-8694 only root may.
        raise NoData("the energy of powercap zones cannot be read")
    yield from found


def _find(node: Node) -> list[Reading] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    readings = []
    known: dict[str, int] = {}
    for name in names:
        folder = f"{_FOLDER}/{name}"
        zone = node.sys.text(f"{folder}/name")
        if zone is None:
            continue  # the control type itself, which has zones but is none
        zone, index = _named(zone, known)
        known[zone] = index + 1
        # The machine's own path, wherever /sys is mounted for us.
        labels: tuple[str, ...] = (str(index), f"/sys/{folder}")
        metric = JOULES.named(zone=zone)
        if node.setting(ZONE_LABEL):
            metric, labels = ANY_JOULES, (*labels, zone)
        readings.append(Reading(f"{folder}/energy_uj", metric, labels, per=_MICRO))
    return readings


def _named(zone: str, known: dict[str, int]) -> tuple[str, int]:
    """Split "package-0" into name and number; others of one name are counted."""
    name, dash, number = zone.partition("-")
    if dash and number.isascii() and number.isdigit():
        return name, int(number)
    return zone, known.get(zone, 0)
