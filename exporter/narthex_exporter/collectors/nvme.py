"""Report NVMe controllers and their namespaces."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Reading, remembered, samples
from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

_FOLDER: Final = "class/nvme"
# With native multipath a controller has a hidden path to a namespace: nvme0c1n1.
_NAMESPACE: Final = re.compile(r"nvme\d+(?:c\d+)?n(\d+)")
# Whatever the size of a block, the block layer's attributes are in these units.
_SECTOR: Final = 512
_WORDS: Final = ("firmware_rev", "model", "serial", "cntlid")
_LABELS: Final = ("device", "nsid")
INFO: Final = gauge(
    "node_nvme_info",
    "Non-numeric data from /sys/class/nvme/<device>, value is always 1.",
    ("device", "firmware_revision", "model", "serial", "state", "cntlid"),
)
NAMESPACE: Final = gauge(
    "node_nvme_namespace_info",
    "Information about NVMe namespaces. Value is always 1.",
    (*_LABELS, "ana_state"),
)
CAPACITY: Final = gauge(
    "node_nvme_namespace_capacity_bytes", "Capacity of the NVMe namespace in bytes.", _LABELS
)
SIZE: Final = gauge(
    "node_nvme_namespace_size_bytes", "Size of the NVMe namespace in bytes.", _LABELS
)
USED: Final = gauge(
    "node_nvme_namespace_used_bytes", "Used space of the NVMe namespace in bytes.", _LABELS
)
BLOCK: Final = gauge(
    "node_nvme_namespace_logical_block_size_bytes",
    "Logical block size of the NVMe namespace in bytes.",
    _LABELS,
)


@collector(name="nvme", metrics=(INFO, NAMESPACE, CAPACITY, SIZE, USED, BLOCK))
def collect(node: Node) -> Iterator[Sample]:
    """Report NVMe controllers and their namespaces."""
    controllers, namespaces, readings = remembered(node, "NVMe", lambda: _find(node))
    for name, (firmware, model, serial, number) in controllers:
        state = node.sys.text(f"{_FOLDER}/{name}/state")
        if state is not None:
            yield INFO.at(1, name, firmware, model, serial, state, number)
    for folder, labels in namespaces:
        yield NAMESPACE.at(1, *labels, node.sys.text(f"{folder}/ana_state") or "unknown")
    yield from samples(node.sys, readings)


_Controllers = list[tuple[str, list[str]]]
_Namespaces = list[tuple[str, tuple[str, str]]]


def _find(node: Node) -> tuple[_Controllers, _Namespaces, list[Reading]] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    controllers: _Controllers = []
    namespaces: _Namespaces = []
    readings: list[Reading] = []
    for name in names:
        folder = f"{_FOLDER}/{name}"
        controllers.append((name, [node.sys.text(f"{folder}/{word}") or "" for word in _WORDS]))
        for below in node.sys.names(folder):
            match = _NAMESPACE.fullmatch(below)
            if match is not None:
                namespaces.append((f"{folder}/{below}", (name, match[1])))
                readings += _readings(node, f"{folder}/{below}", (name, match[1]))
    return controllers, namespaces, readings


def _readings(node: Node, folder: str, labels: tuple[str, str]) -> Iterator[Reading]:
    yield Reading(f"{folder}/size", CAPACITY, labels, _SECTOR)
    yield Reading(f"{folder}/size", SIZE, labels, _SECTOR)
    yield Reading(f"{folder}/queue/logical_block_size", BLOCK, labels)
    block = node.sys.number(f"{folder}/queue/logical_block_size")
    if block is not None:
        # What is used is counted in the namespace's own blocks.
        yield Reading(f"{folder}/nuse", USED, labels, block)
