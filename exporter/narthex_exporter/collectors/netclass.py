"""Report what network devices are: up, speed, MTU, addresses."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from narthex_exporter.collectors.spec import (
    Metric,
    NoData,
    Node,
    Sample,
    collector,
    counter,
    gauge,
    limit_option,
    pattern_option,
    switch_option,
)
from narthex_exporter.sources.linkwatch import LinkWatch
from narthex_exporter.sources.place import Paths

_LABELS = ("device",)


def _value(name: str) -> Metric:
    declare = counter if name.endswith("_total") else gauge
    return declare(f"node_network_{name}", f"Network device property: {name}.", _LABELS)


# The attribute below /sys/class/net/<device>, and what it becomes.
ATTRIBUTES: Final = {
    "addr_assign_type": _value("address_assign_type"),
    "carrier": _value("carrier"),
    "carrier_changes": _value("carrier_changes_total"),
    "carrier_up_count": _value("carrier_up_changes_total"),
    "carrier_down_count": _value("carrier_down_changes_total"),
    "dev_id": _value("device_id"),
    "dormant": _value("dormant"),
    "flags": _value("flags"),
    "ifindex": _value("iface_id"),
    "iflink": _value("iface_link"),
    "link_mode": _value("iface_link_mode"),
    "mtu": _value("mtu_bytes"),
    "name_assign_type": _value("name_assign_type"),
    "netdev_group": _value("net_dev_group"),
    "tx_queue_len": _value("transmit_queue_length"),
    "type": _value("protocol_type"),
}
UP = gauge("node_network_up", "Value is 1 if operstate is 'up', 0 otherwise.", _LABELS)
SPEED = gauge("node_network_speed_bytes", "Network device property: speed_bytes.", _LABELS)
_WORDS = ("address", "broadcast", "duplex", "ifalias", "operstate")
INFO = gauge(
    "node_network_info",
    "Non-numeric data of network devices, value is always 1.",
    ("device", *_WORDS, "adminstate"),
)
IGNORED = pattern_option("ignored-devices", "^$", "Network devices to leave out.")
MAX = limit_option("max", 100, "How many devices to report at most.")
VALID_SPEED = switch_option(
    "ignore-invalid-speed", "Leave out the speed of devices that do not know it, and say -1."
)
_MEGABIT: Final = 1_000_000 / 8
_IFF_UP: Final = 1


# What the kernel says nothing of when it changes: see LinkWatch.
_SILENT: Final = ("ifalias", "netdev_group")


@dataclass(slots=True)
class _Devices:
    """What was read of each device, which holds until the kernel tells of a change."""

    watch: LinkWatch
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    silent: dict[str, tuple[str | None, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one that has read nothing."""
        return cls(LinkWatch.of(paths))

    def close(self) -> None:
        """Listen no more."""
        self.watch.close()


@collector(
    name="netclass",
    metrics=(*ATTRIBUTES.values(), UP, SPEED, INFO),
    options=(IGNORED, MAX, VALID_SPEED),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what network devices are: up, speed, MTU, addresses."""
    kept = node.source(_Devices)
    if kept.watch.changed():
        kept.samples = {device: [] for device in _named(node)}
        kept.silent = {}
    # Each time, so that it is told each time that some are left out.
    for device in node.capped(MAX, kept.samples):
        silent = tuple([node.sys.net_attribute(device, name) for name in _SILENT])
        if kept.silent.get(device) != silent:
            kept.silent[device] = silent
            kept.samples[device] = list(_device(node, device))
        yield from kept.samples[device]


def _named(node: Node) -> list[str]:
    ignored = node.setting(IGNORED)
    try:
        devices = node.sys.net_devices()
    except FileNotFoundError as error:
        raise NoData("this kernel shows no /sys/class/net") from error
    return [device for device in devices if not ignored.search(device)]


def _device(node: Node, device: str) -> Iterator[Sample]:
    for name, metric in ATTRIBUTES.items():
        number = _number(node.sys.net_attribute(device, name))
        if number is not None:
            yield metric.at(number, device)
    speed = _number(node.sys.net_attribute(device, "speed"))
    if speed is not None and (speed >= 0 or not node.setting(VALID_SPEED)):
        yield SPEED.at(speed * _MEGABIT, device)
    words = [node.sys.net_attribute(device, name) or "" for name in _WORDS]
    flags = _number(node.sys.net_attribute(device, "flags"))
    yield UP.at(1 if words[-1] == "up" else 0, device)
    yield INFO.at(1, device, *words, _admin_state(flags))


def _admin_state(flags: int | None) -> str:
    if flags is None:
        return "unknown"
    return "up" if flags & _IFF_UP else "down"


def _number(text: str | None) -> int | None:
    try:
        return int(text or "", 0)
    except ValueError:
        return None
