"""Lines of fstab that are not in force are told, those that need not be are not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from narthex_exporter.collectors import fstab
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import NoData, Node

Measure = Callable[..., dict[str, float]]


def point(mountpoint: str, device: str, kind: str = "ext4") -> str:
    return f'narthex_fstab_mounted{{mountpoint="{mountpoint}",device="{device}",fstype="{kind}"}}'


def test_what_should_be_mounted_is_told(measure: Measure) -> None:
    assert measure(fstab.collect) == {
        point("/", "UUID=0c1d2e3f"): 1,
        point("/srv/two words", "/dev/sdb1", "xfs"): 1,
        point("/backup", "/dev/sdz1"): 0,
        'narthex_fstab_swap_active{device="/dev/sda5"}': 1,
    }


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("/dev/a /gone noauto 0 0", {point("/gone", "/dev/a", "noauto"): 1}),
        ("/dev/a /x ext4 noauto 0 0", {}),
        ("/dev/a /x ext4 noauto,x-systemd.automount", {point("/x", "/dev/a"): 0}),
        ("/dev/a /gone ext4 noauto,x-systemd.automount", {point("/gone", "/dev/a"): 1}),
        ("/dev/a /x ext4 nofail", {}),
        ("/dev/a /gone ext4 nofail", {point("/gone", "/dev/a"): 1}),
        ("/dev/here /x ext4 nofail", {point("/x", "/dev/here"): 0}),
        ("LABEL=here /x ext4 nofail", {point("/x", "LABEL=here"): 0}),
        ("server:/a /x nfs nofail", {point("/x", "server:/a", "nfs"): 0}),
        ("server:/a /gone/ nfs", {point("/gone", "server:/a", "nfs"): 1}),
        ("LABEL=here none swap sw", {'narthex_fstab_swap_active{device="LABEL=here"}': 1}),
        ("/swapfile none swap sw", {'narthex_fstab_swap_active{device="/swapfile"}': 0}),
        ("/dev/a none ext4 defaults", {}),
        ("/dev/a", {}),
        ("", {}),
    ],
)
def test_options_decide(tree: Path, measure: Measure, line: str, wanted: dict[str, int]) -> None:
    links = tree / "root/dev/disk/by-label"
    links.mkdir(parents=True)
    (links / "here").symlink_to("../../sda5")
    (tree / "root/dev/here").touch()
    (tree / "root/etc/fstab").write_text(line + "\n")
    assert measure(fstab.collect, tree) == wanted


def test_hostile_lines_spoil_nothing(tree: Path, measure: Measure) -> None:
    (tree / "root/etc/fstab").write_bytes(b'\xff\x00\na"b /p\\\xff\\134"q e"x\n' + b"x " * 10_000)
    assert len(measure(fstab.collect, tree)) == 1


def test_without_a_table_there_is_no_data(tree: Path, make_node: Callable[..., Node]) -> None:
    (tree / "root/etc/fstab").unlink()
    with pytest.raises(NoData):
        look(fstab.collect, make_node(tree))
