"""Report what drives say of their own health, as smartctl_exporter does."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.spec import (
    Metric,
    NoData,
    Node,
    Sample,
    collector,
    counter,
    gauge,
    limit_option,
    name_filter,
)
from narthex_exporter.sources import smart

_LABELS = ("device",)


def _gauge(name: str, help: str, *labels: str) -> Metric:  # noqa: A002
    return gauge(f"smartctl_{name}", help, (*_LABELS, *labels))


def _counter(name: str, help: str) -> Metric:  # noqa: A002
    return counter(f"smartctl_device_{name}", help, _LABELS)


VERSION = gauge(
    "smartctl_version",
    "smartctl version",
    ("json_format_version", "smartctl_version", "svn_revision", "build_info"),
)
DEVICES = gauge("smartctl_devices", "Number of devices configured or dynamically discovered")
# The label of smartctl_device, where it is found, and what it is when the drive does not say.
_ABOUT: Final = (
    ("interface", "device.type", ""),
    ("protocol", "device.protocol", ""),
    ("model_family", "model_family", "unknown"),
    ("model_name", "model_name", ""),
    ("serial_number", "serial_number", ""),
    ("ata_additional_product_id", "ata_additional_product_id", "unknown"),
    ("firmware_version", "firmware_version", ""),
    ("ata_version", "ata_version.string", ""),
    ("sata_version", "sata_version.string", ""),
    ("form_factor", "form_factor.name", ""),
    ("scsi_vendor", "scsi_vendor", ""),
    ("scsi_product", "scsi_product", ""),
    ("scsi_revision", "scsi_revision", ""),
    ("scsi_version", "scsi_version", ""),
)
DEVICE = _gauge("device", "Device info", *(label for label, _, _ in _ABOUT))
STATUS = _gauge("device_smart_status", "General smart status")
EXIT_STATUS = _gauge("device_smartctl_exit_status", "Exit status of smartctl on device")
ATTRIBUTE = _gauge(
    "device_attribute",
    "Device attributes",
    "attribute_name",
    "attribute_flags_short",
    "attribute_flags_long",
    "attribute_value_type",
    "attribute_id",
)
POWER_ON = _counter("power_on_seconds", "Device power on seconds")
POWER_CYCLES = _counter("power_cycle_count", "Device power cycle count")
TEMPERATURE = _gauge("device_temperature", "Device temperature celsius", "temperature_type")
BLOCK_SIZE = _gauge("device_block_size", "Device block size", "blocks_type")
SPEED = _gauge("device_interface_speed", "Device interface speed, bits per second", "speed_type")
STATISTICS = _gauge(
    "device_statistics",
    "Device statistics",
    "statistic_table",
    "statistic_name",
    "statistic_flags_short",
    "statistic_flags_long",
)
ERROR_LOG = _gauge("device_error_log_count", "Device SMART error log count", "error_log_type")
SELF_TESTS = _gauge(
    "device_self_test_log_count", "Device SMART self test log count", "self_test_log_type"
)
SELF_TEST_ERRORS = _gauge(
    "device_self_test_log_error_count",
    "Device SMART self test log error count",
    "self_test_log_type",
)
ERC = _gauge("device_erc_seconds", "Device SMART Error Recovery Control Seconds", "op_type")
BYTES_READ = _counter("bytes_read", "Bytes read from the device.")
BYTES_WRITTEN = _counter("bytes_written", "Bytes written to the device.")
# What is one number of any drive.
PLAIN: Final = (
    ("user_capacity.blocks", _gauge("device_capacity_blocks", "Device capacity in blocks")),
    ("user_capacity.bytes", _gauge("device_capacity_bytes", "Device capacity in bytes")),
    (
        "nvme_total_capacity",
        _gauge("device_nvme_capacity_bytes", "NVMe device total capacity bytes"),
    ),
    ("rotation_rate", _gauge("device_rotation_rate", "Device rotation rate")),
    (
        "ata_sct_status.device_state",
        _gauge(
            "device_state",
            "Device state (0=active, 1=standby, 2=sleep, 3=dst, 4=offline, 5=sct)",
        ),
    ),
    (
        "scsi_grown_defect_list",
        _gauge("scsi_grown_defect_list", "Device SCSI grown defect list counter"),
    ),
)
# Members of the health log of NVMe.
NVME: Final = (
    ("percentage_used", _counter("percentage_used", "Device write percentage used")),
    (
        "available_spare",
        _counter(
            "available_spare",
            "Normalized percentage (0 to 100%) of the remaining spare capacity available",
        ),
    ),
    (
        "available_spare_threshold",
        _counter(
            "available_spare_threshold",
            "Percentage of available spare below which the drive gives warning",
        ),
    ),
    ("critical_warning", _counter("critical_warning", "Critical warnings of the controller")),
    ("media_errors", _counter("media_errors", "Unrecovered data integrity errors")),
    (
        "num_err_log_entries",
        _counter("num_err_log_entries", "Error log entries over the life of the controller"),
    ),
)
# Members of the error counter log of SCSI, for reads and for writes.
SCSI: Final = tuple(
    (f"{way}.{member}", _gauge(f"{way}_{name}", text.format(way.capitalize())))
    for way in ("read", "write")
    for member, name, text in (
        (
            "errors_corrected_by_rereads_rewrites",
            "errors_corrected_by_rereads_rewrites",
            "{} Errors Corrected by ReReads/ReWrites",
        ),
        (
            "errors_corrected_by_eccfast",
            "errors_corrected_by_eccfast",
            "{} Errors Corrected by ECC Fast",
        ),
        (
            "errors_corrected_by_eccdelayed",
            "errors_corrected_by_eccdelayed",
            "{} Errors Corrected by ECC Delayed",
        ),
        ("total_uncorrected_errors", "total_uncorrected_errors", "{} Total Uncorrected Errors"),
    )
)
_ATTRIBUTE_FLAGS: Final = (
    "prefailure", "updated_online", "performance", "error_rate", "event_count", "auto_keep",
)  # fmt: skip
_STATISTIC_FLAGS: Final = ("valid", "normalized", "supports_dsn", "monitored_condition_met")
_VALUES: Final = (
    ("value", "value"),
    ("worst", "worst"),
    ("thresh", "thresh"),
    ("raw", "raw.value"),
)
# See the NVM Express specification: thousands of units of 512 bytes.
_NVME_UNIT: Final = 512_000
_GIGA: Final = 1_000_000_000
_PREFIX: Final = re.compile(r"^/dev/(?:disk/by-id/|disk/by-path/)?")
NAMES = name_filter("device", "Drives, by the label `device`,")
MAX_DRIVES = limit_option("max-devices", 256, "Drives to ask at most.")


@collector(
    name="smartmon",
    metrics=(
        *(VERSION, DEVICES, DEVICE, STATUS, EXIT_STATUS, ATTRIBUTE, POWER_ON, POWER_CYCLES),
        *(TEMPERATURE, BLOCK_SIZE, SPEED, STATISTICS, ERROR_LOG, SELF_TESTS, SELF_TEST_ERRORS),
        *(ERC, BYTES_READ, BYTES_WRITTEN),
        *(metric for table in (PLAIN, NVME, SCSI) for _, metric in table),
    ),
    options=(*NAMES.options, MAX_DRIVES),
    every_seconds=300,
    limit_seconds=280.0,
    privileged=True,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report what drives say of their own health; a drive that sleeps is left asleep."""
    try:
        scanned, drives = smart.scan()
    except smart.MissingError as error:
        raise NoData("smartctl is not installed") from error
    wanted = [drive for drive in drives if node.wanted(NAMES, label_of(drive.name, drive.kind))]
    answers = []
    for drive in node.capped(MAX_DRIVES, wanted):
        try:
            answers.append(smart.ask(drive))
        except (smart.ProgramError, ValueError):
            continue  # one that hangs or babbles costs itself
    if not any(answer.has_data or answer.sleeps for answer in answers):
        raise NoData("no drive tells its health")
    yield DEVICES.at(len(wanted))
    yield VERSION.at(
        1,
        _dotted(scanned, "json_format_version"),
        _dotted(scanned, "smartctl.version"),
        scanned.text("smartctl.svn_revision"),
        scanned.text("smartctl.build_info"),
    )
    for answer in answers:
        if answer.has_data:
            yield from samples(answer)


def label_of(name: str, kind: str) -> str:
    """Give the label of a drive: ``sda``, or ``bus_0_megaraid_3`` behind a controller."""
    device = _PREFIX.sub("", name).replace("/", "_")
    return f"{device}_{kind.replace(',', '_')}" if "," in kind else device


def samples(answer: smart.Answer) -> Iterator[Sample]:
    """Give what one drive said."""
    device = label_of(answer.text("device.name"), answer.text("device.type"))
    yield _device(answer, device)
    for path, metric in PLAIN:
        value = answer.number(path)
        # Drives without platters have no rate of rotation, and say 0.
        if value is not None and (value or path != "rotation_rate"):
            yield metric.at(value, device)
    yield EXIT_STATUS.at(answer.number("smartctl.exit_status") or 0, device)
    passed = answer.number("smart_status.passed")
    if passed is not None:
        yield STATUS.at(passed, device)
    yield from _general(answer, device)
    yield from _ata(answer, device)
    yield from _logs(answer, device)
    yield from _nvme_and_scsi(answer, device)


def _device(answer: smart.Answer, device: str) -> Sample:
    about = {label: answer.text(path) or default for label, path, default in _ABOUT}
    about["model_name"] = about["model_name"] or answer.text("scsi_model_name") or "unknown"
    return DEVICE.sample(1, device=device, **about)


def _general(answer: smart.Answer, device: str) -> Iterator[Sample]:
    hours = answer.number("power_on_time.hours")
    if hours is not None:
        minutes = answer.number("power_on_time.minutes") or 0
        yield POWER_ON.at(hours * 3600 + minutes * 60, device)
    cycles = answer.number("power_cycle_count")
    if cycles is None:
        cycles = answer.number("scsi_start_stop_cycle_counter.accumulated_start_stop_cycles")
    if cycles is not None:
        yield POWER_CYCLES.at(cycles, device)
    temperatures = answer.get("temperature")
    for kind in temperatures if isinstance(temperatures, dict) else ():
        degrees = answer.number(f"temperature.{kind}")
        if degrees is not None:
            yield TEMPERATURE.at(degrees, device, kind)
    for kind in ("logical", "physical"):
        size = answer.number(f"{kind}_block_size")
        if size is not None:
            yield BLOCK_SIZE.at(size, device, kind)
    for kind, speed in answer.members("interface_speed").items():
        units, bits = speed.number("units_per_second"), speed.number("bits_per_unit")
        if units is not None and bits is not None:
            yield SPEED.at(units * bits, device, kind)


def _ata(answer: smart.Answer, device: str) -> Iterator[Sample]:
    for row in answer.rows("ata_smart_attributes.table"):
        labels = (row.text("name"), row.text("flags.string"), _flags(row, _ATTRIBUTE_FLAGS))
        for kind, path in _VALUES:
            value = row.number(path)
            if value is not None:
                yield ATTRIBUTE.at(value, device, *labels, kind, row.text("id"))
    for page in answer.rows("ata_device_statistics.pages"):
        table = page.text("name")
        if table == "Vendor Specific Statistics":
            continue  # their names are not unique
        for row in page.rows("table"):
            labels = (row.text("name"), row.text("flags.string"), _flags(row, _STATISTIC_FLAGS))
            yield STATISTICS.at(row.number("value") or 0, device, table, *labels)
    for row in answer.rows("sata_phy_event_counters.table"):
        counted = ("SATA PHY Event Counters", row.text("name"), "V---", "valid")
        yield STATISTICS.at(row.number("value") or 0, device, *counted)


def _logs(answer: smart.Answer, device: str) -> Iterator[Sample]:
    for kind, log in answer.members("ata_smart_error_log").items():
        yield ERROR_LOG.at(log.number("count") or 0, device, kind)
    for kind, log in answer.members("ata_smart_self_test_log").items():
        yield SELF_TESTS.at(log.number("count") or 0, device, kind)
        yield SELF_TEST_ERRORS.at(log.number("error_count_total") or 0, device, kind)
    for kind, log in answer.members("ata_sct_erc").items():
        yield ERC.at((log.number("deciseconds") or 0) / 10, device, kind)


def _nvme_and_scsi(answer: smart.Answer, device: str) -> Iterator[Sample]:
    log = "nvme_smart_health_information_log"
    for name, metric in NVME:
        value = answer.number(f"{log}.{name}")
        if value is not None:
            yield metric.at(value, device)
    for path, metric in SCSI:
        value = answer.number(f"scsi_error_counter_log.{path}")
        if value is not None:
            yield metric.at(value, device)
    for way, units, metric in (
        ("read", "read", BYTES_READ),
        ("write", "written", BYTES_WRITTEN),
    ):
        # 0 is what a drive says that does not count.
        if value := answer.number(f"{log}.data_units_{units}"):
            yield metric.at(value * _NVME_UNIT, device)
        value = answer.number(f"scsi_error_counter_log.{way}.gigabytes_processed")
        if value is not None:
            yield metric.at(value * _GIGA, device)


def _flags(row: smart.Answer, names: tuple[str, ...]) -> str:
    return ",".join(name for name in names if row.get(f"flags.{name}") is True)


def _dotted(answer: smart.Answer, path: str) -> str:
    numbers = answer.get(path)
    return ".".join(map(str, numbers)) if isinstance(numbers, list) else ""
