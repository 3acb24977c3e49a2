"""Report what the sensors of the hardware say: temperatures, fans, voltages, currents, power."""

from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Reading, remembered, samples
from narthex_exporter.collectors.spec import (
    Family,
    Kind,
    Metric,
    Node,
    Sample,
    collector,
    gauge,
    gauges,
    name_filter,
)
from narthex_exporter.sources import hwmon
from narthex_exporter.sources.hwmon import Chip, Sensor

_LABELS = ("chip", "sensor")
CHIP_NAMES: Final = gauge(
    "node_hwmon_chip_names",
    "Annotation metric for human-readable chip names.",
    ("chip", "chip_name"),
)
SENSOR_LABEL: Final = gauge(
    "node_hwmon_sensor_label", "Label for given chip and sensor.", (*_LABELS, "label")
)
BEEP: Final = gauge("node_hwmon_beep_enabled", "Hardware beep enabled.", _LABELS)
REGULATOR: Final = gauge(
    "node_hwmon_voltage_regulator_version", "Hardware voltage regulator.", _LABELS
)
UPDATE: Final = gauge(
    "node_hwmon_update_interval_seconds", "Hardware monitor update interval.", _LABELS
)
# Those that alerts and dashboards ask for, by name.
EVERYDAY: Final = tuple(
    gauge(f"node_hwmon_{name}", f"Hardware monitor for {text}.", _LABELS)
    for name, text in (
        ("fan_min_rpm", "fan revolutions per minute (min)"),
        ("fan_rpm", "fan revolutions per minute (input)"),
        ("temp_celsius", "temperature (input)"),
        ("temp_crit_alarm_celsius", "temperature (crit_alarm)"),
        ("temp_crit_celsius", "temperature (crit)"),
        ("temp_crit_hyst_celsius", "temperature (crit_hyst)"),
        ("temp_max_celsius", "temperature (max)"),
    )
)
VOLTS: Final = gauges("node_hwmon_{stem}_volts", "Hardware monitor for voltage ({item}).", _LABELS)
CELSIUS: Final = gauges(
    "node_hwmon_{stem}_celsius", "Hardware monitor for temperature ({item}).", _LABELS
)
AMPS: Final = gauges("node_hwmon_{stem}_amps", "Hardware monitor for current ({item}).", _LABELS)
JOULES: Final = Family(
    "node_hwmon_{stem}_joule_total",
    Kind.COUNTER,
    "Hardware monitor for joules used so far ({item}).",
    _LABELS,
)
INTERVAL: Final = gauges(
    "node_hwmon_{stem}_seconds", "Hardware monitor power usage update interval ({item}).", _LABELS
)
WATT: Final = gauges(
    "node_hwmon_{stem}_watt", "Hardware monitor for power usage in watts ({item}).", _LABELS
)
RPM: Final = gauges(
    "node_hwmon_{stem}_rpm", "Hardware monitor for fan revolutions per minute ({item}).", _LABELS
)
MHZ: Final = gauges(
    "node_hwmon_{stem}_freq_mhz", "Hardware monitor for GPU frequency in MHz.", _LABELS
)
BEEPS: Final = gauges(
    "node_hwmon_{stem}_enabled", "Hardware monitor sensor has beeping enabled.", _LABELS
)
PLAIN: Final = gauges("node_hwmon_{stem}", "Hardware monitor value {stem}, without unit.", _LABELS)
CHIPS = name_filter("chip", "Chips")
SENSORS = name_filter("sensor", "Sensors, each as <chip>;<sensor>,")
_KNOWN: Final = {metric.name: metric for metric in EVERYDAY}
_MILLI: Final = 1000
_MICRO: Final = 1_000_000
_ROTATING: Final = frozenset({"input", "max", "min", "target"})
_AVERAGES: Final = frozenset({"average_interval", "average_interval_max", "average_interval_min"})
_WHOLE: Final = {
    "beep_enable": (BEEP, 1),
    "update_interval": (UPDATE, _MILLI),
    "vrm": (REGULATOR, 1),
}
_SCALED: Final = {
    "cpu": (VOLTS, _MILLI),
    "curr": (AMPS, _MILLI),
    "energy": (JOULES, _MICRO),
    # The kernel has thousandths of a percent; this is what node_exporter makes of them.
    "humidity": (PLAIN, _MICRO),
    "in": (VOLTS, _MILLI),
    "power": (WATT, _MICRO),
    "temp": (CELSIUS, _MILLI),
}


@collector(
    name="hwmon",
    metrics=(
        *(CHIP_NAMES, SENSOR_LABEL, BEEP, REGULATOR, UPDATE, *EVERYDAY),
        *(VOLTS, CELSIUS, AMPS, JOULES, INTERVAL, WATT, RPM, MHZ, BEEPS, PLAIN),
    ),
    options=(*CHIPS.options, *SENSORS.options),
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what the sensors of the hardware say: temperatures, fans, voltages, power."""
    facts, readings = remembered(node, "hwmon", lambda: _find(node))
    yield from facts
    yield from samples(node.sys, readings)


def _find(node: Node) -> tuple[list[Sample], list[Reading]] | None:
    found = hwmon.chips(node.sys)
    if found is None:
        return None
    facts: list[Sample] = []
    readings: list[Reading] = []
    for chip in found:
        if node.wanted(CHIPS, chip.name):
            if chip.driver:
                facts.append(CHIP_NAMES.at(1, chip.name, chip.driver))
            for sensor in chip.sensors:
                if node.wanted(SENSORS, f"{chip.name};{sensor.name}"):
                    if sensor.label is not None:
                        facts.append(SENSOR_LABEL.at(1, chip.name, sensor.name, sensor.label))
                    readings += _readings(chip, sensor)
    return facts, readings


def _readings(chip: Chip, sensor: Sensor) -> Iterator[Reading]:
    labels = (chip.name, sensor.name)
    if sensor.kind in _WHOLE:
        metric, per = _WHOLE[sensor.kind]
        if "" in sensor.paths:
            yield Reading(sensor.paths[""], metric, labels, per=per)
        return
    for item, path in sensor.paths.items():
        if sensor.kind == "freq" and item == "input":
            if sensor.label is not None:
                name = (chip.name, hwmon.clean(sensor.label))
                yield Reading(path, _metric(MHZ, _stem(sensor, item), item), name, per=_MICRO)
            continue
        family, per = _meaning(sensor.kind, item)
        yield Reading(path, _metric(family, _stem(sensor, item), item), labels, per=per)


def _stem(sensor: Sensor, item: str) -> str:
    """Name what is measured; the input is the value itself, unless a bare file is that."""
    if not item or (item == "input" and "" not in sensor.paths):
        return sensor.kind
    return f"{sensor.kind}_{hwmon.clean(item)}"


def _meaning(kind: str, item: str) -> tuple[Family, int]:
    if item in {"alarm", "fault"} or (kind == "temp" and item == "type"):
        return PLAIN, 1
    if item == "beep":
        return BEEPS, 1
    if kind == "fan" and item in _ROTATING:
        return RPM, 1
    if kind == "power" and item == "accuracy":
        return PLAIN, _MICRO
    if kind == "power" and item in _AVERAGES:
        return INTERVAL, _MILLI
    return _SCALED.get(kind, (PLAIN, 1))


def _metric(family: Family, stem: str, item: str) -> Metric:
    metric = family.named(stem=stem, item=item or "input")
    return _KNOWN.get(metric.name, metric)
