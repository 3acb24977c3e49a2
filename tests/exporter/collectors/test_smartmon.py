"""Drives of each kind tell their health under smartctl_exporter's names."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from narthex_exporter.collectors import smartmon
from narthex_exporter.collectors.exposition import Encoder
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.sources import smart

ATA = {
    "smartctl": {"version": [7, 3], "exit_status": 64},
    "device": {"name": "/dev/sda", "type": "sat", "protocol": "ATA"},
    "model_family": "Example Disks", "model_name": "EXAMPLE HD4000", "serial_number": "Q7X2",
    "firmware_version": "FW07", "user_capacity": {"blocks": 7814037168, "bytes": 4000787030016},
    "logical_block_size": 512, "physical_block_size": 4096, "rotation_rate": 7200,
    "form_factor": {"name": "3.5 inches"}, "ata_version": {"string": "ACS-3"},
    "interface_speed": {"max": {"units_per_second": 60, "bits_per_unit": 100000000}},
    "smart_status": {"passed": True}, "power_on_time": {"hours": 2, "minutes": 5},
    "power_cycle_count": 31, "temperature": {"current": 34},
    "ata_smart_attributes": {"table": [
        {"id": 5, "name": "Reallocated_Sector_Ct", "value": 100, "worst": 99, "thresh": 10,
         "flags": {"string": "PO--CK ", "prefailure": True, "updated_online": True,
                   "performance": False}, "raw": {"value": 8}}]},
    "ata_smart_error_log": {"summary": {"count": 3}},
    "ata_smart_self_test_log": {"standard": {"count": 4, "error_count_total": 1}},
    "ata_sct_erc": {"read": {"enabled": True, "deciseconds": 70}},
}  # fmt: skip
NVME = {
    "smartctl": {"exit_status": 0},
    "device": {"name": "/dev/nvme0", "type": "nvme", "protocol": "NVMe"},
    "model_name": "Example NV", "nvme_total_capacity": 1000204886016,
    "nvme_smart_health_information_log": {
        "critical_warning": 0, "percentage_used": 7, "available_spare": 100,
        "available_spare_threshold": 10, "data_units_read": 11, "data_units_written": 0,
        "media_errors": 2, "num_err_log_entries": 5},
}  # fmt: skip
SCSI = {
    "smartctl": {"exit_status": 0},
    "device": {"name": "/dev/bus/0", "type": "megaraid,3", "protocol": "SCSI"},
    "scsi_model_name": "EXAMPLE SAS9", "scsi_vendor": "EXAMPLE", "scsi_grown_defect_list": 4,
    "scsi_start_stop_cycle_counter": {"accumulated_start_stop_cycles": 77},
    "scsi_error_counter_log": {"read": {
        "errors_corrected_by_eccfast": 9, "gigabytes_processed": "1.5",
        "total_uncorrected_errors": 1}},
}  # fmt: skip


def told(answer: dict[str, Any]) -> dict[str, float]:
    samples = list(smartmon.samples(smart.parse(json.dumps(answer).encode())))
    lines = Encoder().encode(samples).decode().splitlines()
    pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    assert len({series for series, _, _ in pairs}) == len(samples)
    return {series.removeprefix("smartctl_"): float(value) for series, _, value in pairs}


def test_an_ata_drive_is_told() -> None:
    found = told(ATA)
    attribute = (
        'device_attribute{device="sda",attribute_name="Reallocated_Sector_Ct",'
        'attribute_flags_short="PO--CK",attribute_flags_long="prefailure,updated_online",'
        'attribute_value_type="raw",attribute_id="5"}'
    )
    assert found[attribute] == 8
    assert found['device_smart_status{device="sda"}'] == 1
    assert found['device_power_on_seconds{device="sda"}'] == 7500
    assert found['device_temperature{device="sda",temperature_type="current"}'] == 34
    assert found['device_interface_speed{device="sda",speed_type="max"}'] == 6e9
    assert found['device_erc_seconds{device="sda",op_type="read"}'] == 7
    assert found['device_smartctl_exit_status{device="sda"}'] == 64
    assert any('model_name="EXAMPLE HD4000",serial_number="Q7X2"' in series for series in found)


def test_an_nvme_drive_is_told() -> None:
    found = told(NVME)
    assert found['device_bytes_read{device="nvme0"}'] == 11 * 512_000
    assert 'device_bytes_written{device="nvme0"}' not in found
    assert found['device_percentage_used{device="nvme0"}'] == 7
    assert found['device_media_errors{device="nvme0"}'] == 2


def test_a_scsi_drive_is_told() -> None:
    found = told(SCSI)
    assert found['device_bytes_read{device="bus_0_megaraid_3"}'] == 1.5e9
    assert found['read_errors_corrected_by_eccfast{device="bus_0_megaraid_3"}'] == 9
    assert found['scsi_grown_defect_list{device="bus_0_megaraid_3"}'] == 4
    assert found['device_power_cycle_count{device="bus_0_megaraid_3"}'] == 77
    assert any('model_name="EXAMPLE SAS9"' in series for series in found)


def test_a_drive_that_says_nonsense_spoils_nothing() -> None:
    broken = {key: [1] if isinstance(value, dict) else {} for key, value in ATA.items()}
    assert told({**broken, "device": {"name": 'x"\n'}})


@pytest.mark.parametrize("output", [b"", b"[]", b"{", b"\xff"])
def test_what_is_no_object_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        smart.parse(output)


def test_a_drive_that_sleeps_has_no_data() -> None:
    messages = [{"string": "Device is in STANDBY mode, exit(2)", "severity": "information"}]
    answer = smart.Answer({"smartctl": {"exit_status": 2, "messages": messages}})
    assert answer.sleeps
    assert not answer.has_data


def test_the_real_smartctl_finds_no_drive_here(make_node: Callable[..., Node]) -> None:
    scanned, drives = smart.scan()
    assert scanned.text("smartctl.exit_status") == "0"
    if drives:
        pytest.skip("this machine has drives; one without any would run it")
    with pytest.raises(NoData):
        look(smartmon.collect, make_node())


def test_the_real_smartctl_refuses_a_file_that_is_no_drive() -> None:
    answer = smart.ask(smart.Drive(name="/dev/null", kind="sat"))
    assert not answer.has_data
