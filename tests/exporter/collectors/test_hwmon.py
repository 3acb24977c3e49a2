"""Chips and sensors are named as node_exporter names them, whatever a driver writes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardwaretree import HWMON, NEWER, plant
from narthex_exporter.collectors import hwmon
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.sources.devices import Devices
from narthex_exporter.sources.place import Sources

Values = dict[str, float]
Measure = Callable[..., Values]
CORE = 'node_hwmon_temp_celsius{chip="platform_coretemp_0",sensor="temp1"}'
PLACE = "sys/devices/platform/coretemp.0/hwmon/hwmon1"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return plant(tmp_path, HWMON, NEWER)


def test_the_frequency_of_a_gpu_bears_its_label(measure: Measure, machine: Path) -> None:
    found = measure(hwmon.collect, machine)
    chip = "0000:00:01_0_0000:01:00_0"
    assert found[f'node_hwmon_freq_freq_mhz{{chip="{chip}",sensor="sclk"}}'] == 500
    assert found[f'node_hwmon_freq_freq_mhz{{chip="{chip}",sensor="mclk__mem"}}'] == 96


def test_chips_of_one_device_are_told_apart(measure: Measure, machine: Path) -> None:
    for number, name in ((8, "asus"), (9, "asus_wmi"), (10, "asus_wmi")):
        place = f"devices/platform/asus/hwmon/hwmon{number}"
        text = f"sys/{place}\n    device -> ../../../asus\n"
        plant(
            machine,
            f"{text}    name {name}\n    fan1_input {number}\n",
            f"sys/class/hwmon\n    hwmon{number} -> ../../{place}",
        )
    found = measure(hwmon.collect, machine)
    fans = {series: value for series, value in found.items() if "fan_rpm" in series}
    assert fans['node_hwmon_fan_rpm{chip="platform_asus_asus",sensor="fan1"}'] == 8
    assert fans['node_hwmon_fan_rpm{chip="platform_asus_hwmon9",sensor="fan1"}'] == 9
    assert fans['node_hwmon_fan_rpm{chip="platform_asus_hwmon10",sensor="fan1"}'] == 10


def test_a_chip_without_device_and_name_bears_its_number(measure: Measure, tmp_path: Path) -> None:
    plant(tmp_path, "sys/class/hwmon/hwmon3\n    temp1_input 1000")
    assert measure(hwmon.collect, tmp_path) == {
        'node_hwmon_temp_celsius{chip="hwmon3",sensor="temp1"}': 1
    }


def test_old_drivers_have_their_files_beside_the_device(measure: Measure, tmp_path: Path) -> None:
    plant(
        tmp_path,
        "sys/devices/platform/old.1\n    in1_input 5000\n    in1_label +5V",
        "sys/class/hwmon/hwmon0\n    device -> ../../../devices/platform/old.1",
    )
    assert measure(hwmon.collect, tmp_path) == {
        'node_hwmon_in_volts{chip="platform_old_1",sensor="in1"}': 5,
        'node_hwmon_sensor_label{chip="platform_old_1",sensor="in1",label="+5V"}': 1,
    }


def test_a_bare_file_leaves_the_input_its_own_name(measure: Measure, tmp_path: Path) -> None:
    plant(tmp_path, "sys/class/hwmon/hwmon0\n    name x\n    in1 9000\n    in1_input 5000")
    found = measure(hwmon.collect, tmp_path)
    assert found['node_hwmon_in_volts{chip="x",sensor="in1"}'] == 9
    assert found['node_hwmon_in_input_volts{chip="x",sensor="in1"}'] == 5


@pytest.mark.parametrize("data", [b"", b"\n", b"n/a\n", b"\xff\xfe", b"1e3\n", b"1" * 5000])
def test_a_malformed_value_is_left_out(measure: Measure, machine: Path, data: bytes) -> None:
    (machine / PLACE / "temp1_input").write_bytes(data)
    found = measure(hwmon.collect, machine)
    assert CORE not in found
    assert CORE.replace("temp1", "temp2") in found


def test_hostile_names_pass_through(make_node: Callable[..., Node], machine: Path) -> None:
    (machine / PLACE / "temp1_label").write_bytes(b'"},\\\nx\xff{\n')
    (machine / PLACE / "name").write_bytes(b"\xff\xfe\n")
    (machine / PLACE / "temp1_m\xc3\xa4x").write_bytes(b"1000\n")
    samples = look(hwmon.collect, make_node(machine)).samples
    labels = [each.values[2] for each in samples if each.metric is hwmon.SENSOR_LABEL]  # type: ignore[union-attr]  # no blocks here
    assert '"},\\\nx�{' in labels
    assert "node_hwmon_temp_m__x_celsius" in {each.metric.name for each in samples}


def test_values_are_read_each_time_and_chips_are_looked_for_after_a_while(
    make_node: Callable[..., Node], machine: Path
) -> None:
    now = [0.0]
    sources = Sources(known={Devices: Devices(clock=lambda: now[0])})
    node = make_node(machine, sources=sources)

    def temperatures() -> dict[str, float]:
        found: list[Any] = list(hwmon.collect.collect(node.fresh()))
        return {s.values[0]: s.value for s in found if s.metric.name == "node_hwmon_temp_celsius"}

    assert temperatures()["nvme_nvme0"] == 37.85
    file = machine / "sys/devices/pci0000:00/0000:00:1d.0/0000:3c:00.0/nvme/nvme0/hwmon3"
    for sensor in ("temp1_input", "temp2_input"):
        (file / sensor).write_text("51000\n")
    plant(machine, "sys/class/hwmon/hwmon20\n    name plugged\n    temp1_input 20000")
    assert temperatures()["nvme_nvme0"] == 51
    assert "plugged" not in temperatures()
    now[0] += 10
    assert temperatures()["plugged"] == 20


def test_a_chip_that_is_pulled_out_is_left_out_at_once(
    make_node: Callable[..., Node], machine: Path
) -> None:
    node = make_node(machine)
    before = len(look(hwmon.collect, node).samples)
    node.sys.files.close()
    shutil.rmtree(machine / PLACE)
    samples = look(hwmon.collect, node.fresh()).samples
    assert len(samples) < before
    assert not [each for each in samples if "coretemp" in str(each) and "celsius" in str(each)]


def test_chips_and_sensors_can_be_left_out(measure: Measure, machine: Path) -> None:
    settings = {
        hwmon.CHIPS.include: hwmon.CHIPS.include.parse("coretemp|nvme"),
        hwmon.CHIPS.exclude: hwmon.CHIPS.exclude.parse("^nvme_"),
        hwmon.SENSORS.exclude: hwmon.SENSORS.exclude.parse("coretemp_0;temp2$"),
    }
    found = measure(hwmon.collect, machine, settings=settings)
    assert {series for series in found if "temp_celsius" in series} == {CORE}
    assert not [series for series in found if "nvme" in series or "nct6775" in series]


def test_a_machine_without_the_class_has_nothing_to_say(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    with pytest.raises(NoData):
        look(hwmon.collect, make_node(tmp_path))
