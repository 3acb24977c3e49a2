"""What node_exporter 1.5 cannot be compared with, and what broken or hostile hardware says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hardwaretree import plant
from narthex_exporter.collectors import (
    COLLECTORS,
    arp,
    bonding,
    conntrack,
    cpu_vulnerabilities,
    drm,
    fibrechannel,
    infiniband,
    netclass,
    netdev,
    nvme,
    pcidevice,
    powersupplyclass,
    rapl,
    softirqs,
    thermal_zone,
    udp_queues,
    watchdog,
    xfrm,
)
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Collector, NoData, Node

Measure = Callable[..., dict[str, float]]


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    return plant(tmp_path)


@pytest.mark.parametrize(
    ("collector", "series", "value"),
    [
        (
            cpu_vulnerabilities.collect,
            (
                'node_cpu_vulnerabilities_info{codename="mds",state="vulnerable",'
                'mitigation="Clear CPU buffers attempted, no microcode; SMT Host state unknown"}'
            ),
            1,
        ),
        (
            cpu_vulnerabilities.collect,
            (
                'node_cpu_vulnerabilities_info{codename="tsa",state="unknown",'
                'mitigation="Something else altogether"}'
            ),
            1,
        ),
        (infiniband.collect, 'node_infiniband_lifespan_seconds{device="mlx5_0",port="1"}', 0.01),
        (
            infiniband.collect,
            'node_infiniband_roce_slow_restart_total{device="mlx5_0",port="1"}',
            46,
        ),
        (
            pcidevice.collect,
            (
                'node_pcidevice_info{segment="0000",bus="3c",device="00",function="0",'
                'parent_segment="0000",parent_bus="00",parent_device="1d",parent_function="0",'
                'class_id="0x010802",vendor_id="0x144d",device_id="0xa80a",'
                'subsystem_vendor_id="0x144d",subsystem_device_id="0xa801",revision="0x00"}'
            ),
            1,
        ),
        (
            pcidevice.collect,
            (
                "node_pcidevice_current_link_transfers_per_second"
                '{segment="0000",bus="00",device="1d",function="0"}'
            ),
            -1,
        ),
        (softirqs.collect, 'node_softirqs_functions_total{cpu="2",type="NET_RX"}', 8123441),
        (
            watchdog.collect,
            (
                'node_watchdog_info{name="watchdog0",options="0x8180",identity="iTCO_wdt",'
                'state="active",status="0x8000",pretimeout_governor="panic"}'
            ),
            1,
        ),
        (watchdog.collect, 'node_watchdog_timeleft_seconds{name="watchdog0"}', 27),
        (xfrm.collect, "node_xfrm_in_state_proto_error_packets_total", 40),
    ],
)
def test_newer_metrics_are_as_newer_node_exporters_have_them(
    measure: Measure, machine: Path, collector: Collector, series: str, value: float
) -> None:
    assert measure(collector, machine)[series] == value


def test_only_amd_cards_are_graphics_cards_with_figures(measure: Measure, machine: Path) -> None:
    assert not [series for series in measure(drm.collect, machine) if "card1" in series]


def test_an_nvme_namespace_is_so_large_whatever_its_blocks_are(
    measure: Measure, machine: Path
) -> None:
    # The block layer counts 512 bytes; what is used is in blocks of the namespace.
    plant(
        machine,
        "sys/class/nvme/nvme1\n    model 4K\n    state live",
        "sys/class/nvme/nvme1/nvme1c1n2\n    size 8000\n    nuse 500\n    ana_state optimized",
        "sys/class/nvme/nvme1/nvme1c1n2/queue\n    logical_block_size 4096",
    )
    found = measure(nvme.collect, machine)
    assert found['node_nvme_namespace_size_bytes{device="nvme1",nsid="2"}'] == 4096000
    assert found['node_nvme_namespace_used_bytes{device="nvme1",nsid="2"}'] == 2048000
    info = 'node_nvme_namespace_info{device="nvme1",nsid="2",ana_state="optimized"}'
    assert found[info] == 1


def test_powercap_zones_can_be_a_label(measure: Measure, machine: Path) -> None:
    found = measure(rapl.collect, machine, settings={rapl.ZONE_LABEL: True})
    path = "/sys/class/powercap/intel-rapl:1:0"
    assert found[f'node_rapl_joules_total{{index="1",path="{path}",rapl_zone="dram"}}'] == 0


def test_energy_that_may_not_be_read_is_no_failure(
    make_node: Callable[..., Node], tmp_path: Path
) -> None:
    plant(tmp_path, "sys/class/powercap/intel-rapl:0\n    name package-0")
    with pytest.raises(NoData):
        look(rapl.collect, make_node(tmp_path))


def test_a_speed_that_is_not_known_can_be_left_out(measure: Measure, machine: Path) -> None:
    series = 'node_network_speed_bytes{device="eth1"}'
    assert measure(netclass.collect, machine)[series] == -125000
    found = measure(netclass.collect, machine, settings={netclass.VALID_SPEED: True})
    assert series not in found
    assert found['node_network_speed_bytes{device="eth0"}'] == 3125e6


def test_devices_without_flags_are_in_no_known_state(measure: Measure, tmp_path: Path) -> None:
    plant(tmp_path, "sys/class/net/odd0\n    mtu 1")
    found = measure(netclass.collect, tmp_path)
    assert [series for series in found if 'adminstate="unknown"' in series]


def test_network_devices_can_be_chosen(measure: Measure) -> None:
    settings = {netdev.DEVICES.include: netdev.DEVICES.include.parse("^wg")}
    found = measure(netdev.collect, settings=settings)
    assert found
    assert not [series for series in found if "eth0" in series]


@pytest.mark.parametrize(
    "kind", ["cooling_device0", "cooling_device1", "thermal_zone0", "thermal_zone10"]
)
def test_a_thermal_device_that_cannot_be_read_is_left_out(
    measure: Measure, machine: Path, kind: str
) -> None:
    before = len(measure(thermal_zone.collect, machine))
    for file in (machine / "sys/class/thermal" / kind).iterdir():
        file.write_bytes(b"\xff\n")
    assert len(measure(thermal_zone.collect, machine)) == before - (2 if "cool" in kind else 1)


@pytest.mark.parametrize(
    ("collector", "file", "data", "left"),
    [
        (arp.collect, "proc/net/arp", b"", 0),
        (arp.collect, "proc/net/arp", b"IP address\n\n\xff \xfe\n", 1),
        (udp_queues.collect, "proc/net/udp6", b"", 4),
        (udp_queues.collect, "proc/net/udp6", b"sl\n 1: a b\n", 4),
        (softirqs.collect, "proc/softirqs", b"  CPU0\n  HI: 1 2\nodd\n", 1),
        (xfrm.collect, "proc/net/xfrm_stat", b"\nXfrmInError\nXfrmInError 1\n\xff 2\n", 1),
        (conntrack.collect, "proc/net/stat/nf_conntrack", b"entries found\n", 2),
        (conntrack.collect, "proc/net/stat/nf_conntrack", b"found new\n0a\n0b 1\n", 3),
        (bonding.collect, "sys/class/net/bonding_masters", b"", 0),
        (bonding.collect, "sys/class/net/bonding_masters", b"gone0 bond0\n", 2),
    ],
)
def test_malformed_lines_are_skipped(
    measure: Measure, machine: Path, collector: Collector, file: str, data: bytes, left: int
) -> None:
    (machine / file).write_bytes(data)
    assert len(measure(collector, machine)) == left


def test_hostile_words_pass_through(measure: Measure, machine: Path) -> None:
    battery = machine / "sys/class/power_supply/BAT0"
    (battery / "model_name").write_bytes(b'"\\\n\xff{}\n')
    (battery / "capacity").write_bytes(b"many\n")
    found = measure(powersupplyclass.collect, machine)
    assert [series for series in found if r'model_name="\"\\\n�{}"' in series]
    assert 'node_power_supply_capacity{power_supply="BAT0"}' not in found
    (machine / "sys/class/infiniband/mlx5_0/ports/1/rate").write_bytes(b"fast\n")
    (machine / "sys/class/infiniband/mlx5_0/ports/1/state").write_bytes(b"\xff\n")
    assert not [s for s in measure(infiniband.collect, machine) if "_rate_" in s]


def test_a_port_in_no_known_state_has_counted_nothing(measure: Measure, machine: Path) -> None:
    (machine / "sys/class/fc_host/host0/port_state").write_text("Unknown\n")
    found = measure(fibrechannel.collect, machine)
    assert found['node_fibrechannel_rx_words_total{fc_host="host0"}'] == 0


@pytest.mark.parametrize(
    "name",
    [
        *("bonding", "conntrack", "cpu_vulnerabilities", "drm", "fibrechannel", "infiniband"),
        *("nvme", "pcidevice", "powersupplyclass", "rapl", "tapestats", "thermal_zone"),
        *("udp_queues", "watchdog", "xfrm"),
    ],
)
def test_a_machine_without_such_a_thing_has_nothing_to_say(
    make_node: Callable[..., Node], tmp_path: Path, name: str
) -> None:
    collector = next(each for each in COLLECTORS if each.name == name)
    with pytest.raises(NoData):
        look(collector, make_node(tmp_path))
