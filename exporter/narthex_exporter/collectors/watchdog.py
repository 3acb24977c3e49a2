"""Report watchdogs: what will reset this machine when it hangs."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Meaning, Reading, present, remembered, samples
from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

_FOLDER: Final = "class/watchdog"


def _meaning(attribute: str, name: str = "") -> Meaning:
    text = f"Value of /sys/class/watchdog/<watchdog>/{attribute}."
    return Meaning(gauge(f"node_watchdog_{name or attribute}", text, ("name",)))


# The kernel's Documentation/ABI/testing/sysfs-class-watchdog.
MEANINGS: Final = {
    "access_cs0": _meaning("access_cs0"),
    "bootstatus": _meaning("bootstatus"),
    "fw_version": _meaning("fw_version"),
    "nowayout": _meaning("nowayout"),
    "pretimeout": _meaning("pretimeout", "pretimeout_seconds"),
    "timeleft": _meaning("timeleft", "timeleft_seconds"),
    "timeout": _meaning("timeout", "timeout_seconds"),
}
WORDS: Final = ("options", "identity", "state", "status", "pretimeout_governor")
INFO: Final = gauge(
    "node_watchdog_info", "Info of /sys/class/watchdog/<watchdog>.", ("name", *WORDS)
)


@collector(name="watchdog", metrics=(*(meaning.metric for meaning in MEANINGS.values()), INFO))
def collect(node: Node) -> Iterator[Sample]:
    """Report watchdogs: what will reset this machine when it hangs."""
    names, readings = remembered(node, "watchdogs", lambda: _find(node))
    yield from samples(node.sys, readings)
    for name in names:
        words = [node.sys.text(f"{_FOLDER}/{name}/{word}") for word in WORDS]
        if any(word is not None for word in words):
            yield INFO.at(1, name, *(word or "" for word in words))


def _find(node: Node) -> tuple[list[str], list[Reading]] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    readings: list[Reading] = []
    for name in names:
        readings += present(node.sys, f"{_FOLDER}/{name}", MEANINGS, (name,))
    return names, readings
