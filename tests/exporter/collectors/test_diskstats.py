"""Disks are told with what udev knows of them."""

from collections.abc import Callable
from pathlib import Path

from narthex_exporter.collectors import diskstats
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import Node

Measure = Callable[..., dict[str, float]]
DISK = (
    'node_disk_info{device="sda",major="8",minor="0",path="pci-0000:00:17.0-ata-1",'
    'wwn="0x5000c500a1b2c3d4",model="EXAMPLE_HD4000",serial="Q7X2",revision="FW07",'
    'rotational="1"}'
)
MAPPER = (
    'node_disk_device_mapper_info{device="dm-0",name="vg0-data",uuid="LVM-Aa0Bb1Cc2Dd3",'
    'vg_name="vg0",lv_name="data",lv_layer=""}'
)
FILESYSTEM = (
    'node_disk_filesystem_info{device="dm-0",type="ext4",usage="filesystem",'
    'uuid="6c8f7b1e-3d52-4a09-9c1f-5e7d2b8a4410",version="1.0"}'
)


def test_what_udev_knows_is_told(measure: Measure) -> None:
    found = measure(diskstats.collect)
    assert found[DISK] == found[MAPPER] == found[FILESYSTEM] == 1
    assert found['node_disk_ata_write_cache{device="sda"}'] == 1
    assert found['node_disk_ata_write_cache_enabled{device="sda"}'] == 0
    assert found['node_disk_ata_rotation_rate_rpm{device="sda"}'] == 7200


def test_a_disk_is_told_without_udev(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/diskstats").write_text("254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n")
    assert measure(diskstats.collect, tmp_path)[
        'node_disk_info{device="vda",major="254",minor="0",path="",wwn="",model="",serial="",'
        'revision="",rotational="0"}'
    ]


def test_the_serial_on_the_label_comes_first(tree: Path, measure: Measure) -> None:
    for data, serial in (
        (b"E:ID_SERIAL=c\n", "c"),
        (b"E:ID_SERIAL_SHORT=b\nE:ID_SERIAL=c\n", "b"),
        (b"E:SCSI_IDENT_SERIAL=a\nE:ID_SERIAL_SHORT=b\n", "a"),
    ):
        (tree / "udev/b8:0").write_bytes(data)
        assert any(f'serial="{serial}"' in series for series in measure(diskstats.collect, tree))


def test_a_replaced_entry_is_read_anew(tree: Path, make_node: Callable[..., Node]) -> None:
    node = make_node(tree)
    for model in ("one", "two"):
        (tree / "udev/new").write_text(f"E:ID_MODEL={model}\n")
        (tree / "udev/new").replace(tree / "udev/b8:0")
        values = [tuple(s[1]) for s in look(diskstats.collect, node).samples]
        assert [v[5] for v in values if v[0] == "sda" and len(v) > 2] == [model]


def test_hostile_entries_spoil_nothing(tree: Path, measure: Measure) -> None:
    (tree / "udev/b8:0").write_bytes(
        b'E:ID_MODEL=a"b\\\xff\nE:\nE:=\nnonsense\nE:ID_ATA=1\nE:ID_ATA_ROTATION_RATE_RPM=fast\n'
    )
    found = measure(diskstats.collect, tree)
    assert any('model="a\\"b\\\\\ufffd"' in series for series in found)
    assert 'node_disk_ata_rotation_rate_rpm{device="sda"}' not in found


def test_devices_are_chosen_by_name(measure: Measure) -> None:
    settings = {diskstats.DEVICES.include: diskstats.DEVICES.include.parse("^dm-")}
    found = measure(diskstats.collect, settings=settings)
    assert 'node_disk_io_now{device="dm-0"}' in found
    assert not [series for series in found if 'device="sda"' in series]
