"""Report PCI devices: what they are, how fast their links run, their power state."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import remembered
from narthex_exporter.collectors.spec import Metric, Node, Sample, collector, gauge

_FOLDER: Final = "bus/pci/devices"
_PLACE: Final = re.compile(r"([0-9a-f]{4,}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_NOWHERE: Final = ("*",) * 4
_LABELS: Final = ("segment", "bus", "device", "function")
_GIGA: Final = 1e9
# Attributes in hexadecimal, and how many digits show them.
_IDS: Final = {
    "class": ("class_id", 6),
    "vendor": ("vendor_id", 4),
    "device": ("device_id", 4),
    "subsystem_vendor": ("subsystem_vendor_id", 4),
    "subsystem_device": ("subsystem_device_id", 4),
    "revision": ("revision", 2),
}
# See pci_power_names in the kernel's drivers/pci/pci.c.
_STATES: Final = ("D0", "D1", "D2", "D3hot", "D3cold", "unknown", "error")


def _gauge(name: str, text: str) -> Metric:
    return gauge(f"node_pcidevice_{name}", text, _LABELS)


INFO: Final = gauge(
    "node_pcidevice_info",
    "Non-numeric data from /sys/bus/pci/devices/<location>, value is always 1.",
    (
        *_LABELS,
        *(f"parent_{label}" for label in _LABELS),
        *(label for label, _ in _IDS.values()),
    ),
)
# Those that tell -1 where the device does not say.
SPEEDS: Final = {
    "max_link_speed": _gauge(
        "max_link_transfers_per_second", "Value of maximum link's transfers per second (T/s)."
    ),
    "current_link_speed": _gauge(
        "current_link_transfers_per_second", "Value of current link's transfers per second (T/s)."
    ),
}
WIDTHS: Final = {
    "max_link_width": _gauge("max_link_width", "Value of maximum link's width (number of lanes)."),
    "current_link_width": _gauge(
        "current_link_width", "Value of current link's width (number of lanes)."
    ),
}
# Those that tell 0 there.
COUNTS: Final = {
    "d3cold_allowed": _gauge(
        "d3cold_allowed", "Whether the PCIe device supports D3cold power state (0/1)."
    ),
    "sriov_drivers_autoprobe": _gauge(
        "sriov_drivers_autoprobe",
        "Whether SR-IOV drivers autoprobe is enabled for the device (0/1).",
    ),
    "sriov_numvfs": _gauge(
        "sriov_numvfs", "Number of Virtual Functions (VFs) currently enabled for SR-IOV."
    ),
    "sriov_totalvfs": _gauge(
        "sriov_totalvfs", "Total number of Virtual Functions (VFs) supported by the device."
    ),
    "sriov_vf_total_msix": _gauge(
        "sriov_vf_total_msix", "Total number of MSI-X vectors for Virtual Functions."
    ),
}
NUMA: Final = _gauge("numa_node", "NUMA node number for the PCI device.")
STATE: Final = gauge(
    "node_pcidevice_power_state",
    "PCIe device power state, one of: D0, D1, D2, D3hot, D3cold, unknown or error.",
    (*_LABELS, "state"),
)


@collector(
    name="pcidevice",
    metrics=(INFO, *SPEEDS.values(), *WIDTHS.values(), *COUNTS.values(), NUMA, STATE),
    enabled=False,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report PCI devices: what they are, how fast their links run, their power state."""
    for info, folder, place, has in remembered(node, "PCI devices", lambda: _find(node)):
        yield info
        # A device that does not have an attribute need not be asked for it.
        for name, metric in SPEEDS.items():
            yield metric.at(_speed(node, f"{folder}/{name}") if name in has else -1, *place)
        for table, absent in ((WIDTHS, -1), (COUNTS, 0)):
            for name, metric in table.items():
                number = node.sys.number(f"{folder}/{name}") if name in has else None
                yield metric.at(absent if number is None else number, *place)
        home = node.sys.number(f"{folder}/numa_node")
        if home is not None and home != -1:
            yield NUMA.at(home, *place)
        state = node.sys.text(f"{folder}/power_state")
        if state:
            for each in _STATES:
                yield STATE.at(int(each == state), *place, each)


_Device = tuple[Sample, str, tuple[str, ...], frozenset[str]]


def _find(node: Node) -> list[_Device] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    devices = []
    for name in names:
        place = _place(name)
        if place is None:
            continue
        folder = f"{_FOLDER}/{name}"
        target = node.sys.target(folder) or ""
        parent = _place(target.rpartition("/")[0].rpartition("/")[2]) or _NOWHERE
        ids = [
            f"0x{node.sys.number(f'{folder}/{attribute}') or 0:0{digits}x}"
            for attribute, (_, digits) in _IDS.items()
        ]
        has = frozenset(node.sys.files_in(folder))
        devices.append((INFO.at(1, *place, *parent, *ids), folder, place, has))
    return devices


def _place(name: str) -> tuple[str, ...] | None:
    """Split "0000:3b:00.1"; None for what is no device's place."""
    match = _PLACE.fullmatch(name)
    return None if match is None else match.groups()


def _speed(node: Node, path: str) -> float:
    """Read such as "8.0 GT/s PCIe", in transfers a second; -1 where it is unknown."""
    words = (node.sys.text(path) or "").split()
    try:
        return float(words[0]) * _GIGA if words[1:2] == ["GT/s"] else -1
    except ValueError:
        return -1
