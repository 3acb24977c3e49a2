"""Report batteries and mains adapters."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Meaning, Reading, present, remembered, samples
from narthex_exporter.collectors.spec import Node, Option, Sample, collector, gauge

_FOLDER: Final = "class/power_supply"
_MICRO: Final = 1_000_000
_TENTH: Final = 10


def _meaning(name: str, per: int = 1) -> Meaning:
    text = f"{name} value of /sys/class/power_supply/<power_supply>."
    return Meaning(gauge(f"node_power_supply_{name}", text, ("power_supply",)), per=per)


# The kernel's Documentation/ABI/testing/sysfs-class-power: its attributes, and their units.
MEANINGS: Final = {
    **{
        name: _meaning(name)
        for name in (
            *("authentic", "calibrate", "capacity", "capacity_alert_max", "capacity_alert_min"),
            *("online", "present"),
        )
    },
    "cycle_count": _meaning("cyclecount"),
    "time_to_empty_now": _meaning("time_to_empty_seconds"),
    "time_to_full_now": _meaning("time_to_full_seconds"),
    **{
        name: _meaning(name, _MICRO)
        for name in (
            *("charge_control_limit", "charge_control_limit_max", "charge_counter"),
            *("charge_empty", "charge_empty_design", "charge_full", "charge_full_design"),
            *("charge_term_current", "constant_charge_current", "constant_charge_current_max"),
            *("constant_charge_voltage", "constant_charge_voltage_max", "current_boot"),
            *("current_max", "energy_empty", "energy_empty_design", "energy_full"),
            *("energy_full_design", "input_current_limit", "precharge_current", "voltage_boot"),
            *("voltage_max", "voltage_max_design", "voltage_min", "voltage_min_design"),
            "voltage_ocv",
        )
    },
    "charge_now": _meaning("charge_ampere", _MICRO),
    "current_now": _meaning("current_ampere", _MICRO),
    "energy_now": _meaning("energy_watthour", _MICRO),
    "power_now": _meaning("power_watt", _MICRO),
    "voltage_now": _meaning("voltage_volt", _MICRO),
    **{
        name: _meaning(f"{name}_celsius", _TENTH)
        for name in (
            *("temp", "temp_alert_max", "temp_alert_min", "temp_ambient", "temp_ambient_max"),
            *("temp_ambient_min", "temp_max", "temp_min"),
        )
    },
}
WORDS: Final = (
    *("capacity_level", "charge_type", "health", "manufacturer", "model_name", "scope"),
    *("serial_number", "status", "technology", "type", "usb_type"),
)
INFO: Final = gauge(
    "node_power_supply_info",
    "info of /sys/class/power_supply/<power_supply>.",
    ("power_supply", *WORDS),
)
IGNORED = Option(
    "ignored-supplies", "^$", re.compile, "Power supplies to leave out.", prefix="powersupply"
)


@collector(
    name="powersupplyclass",
    metrics=(*(meaning.metric for meaning in MEANINGS.values()), INFO),
    options=(IGNORED,),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report batteries and mains adapters."""
    supplies, readings = remembered(node, "power supplies", lambda: _find(node))
    yield from samples(node.sys, readings)
    for supply, words in supplies:
        values = [node.sys.text(f"{_FOLDER}/{supply}/{word}") or "" for word in words]
        if any(values):
            found = dict(zip(words, values, strict=True))
            yield INFO.at(1, supply, *(found.get(word, "") for word in WORDS))


def _find(node: Node) -> tuple[list[tuple[str, list[str]]], list[Reading]] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    ignored = node.setting(IGNORED)
    supplies = []
    readings = []
    for name in names:
        if not ignored.search(name):
            folder = f"{_FOLDER}/{name}"
            supplies.append((name, [word for word in node.sys.names(folder) if word in WORDS]))
            readings += present(node.sys, folder, MEANINGS, (name,))
    return supplies, readings
