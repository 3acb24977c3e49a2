"""LVM's reports become sizes and ratios; without LVM there is no data."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from narthex_exporter.collectors import lvm
from narthex_exporter.collectors.scrape import look
from narthex_exporter.collectors.spec import NoData, Node
from narthex_exporter.sources import lvm as source


def report(kind: str, *rows: dict[str, str]) -> bytes:
    return json.dumps({"report": [{kind: list(rows)}]}).encode()


def values(output: bytes) -> dict[str, Any]:
    found = {}
    for volume in source.parse_volumes(output):
        for sample in lvm.volume_samples(volume):
            name = sample.metric.name.removeprefix("narthex_lvm_")
            found[f"{name} {'/'.join(sample.values)}"] = sample.value
    return found


def row(name: str, kind: str, **more: str) -> dict[str, str]:
    return {"vg_name": "vg0", "lv_name": name, "segtype": kind, "lv_size": "1073741824", **more}


@pytest.mark.parametrize(
    ("volume", "wanted"),
    [
        (row("root", "linear", data_percent=""), {}),
        (
            row("pool", "thin-pool", data_percent="81.25", metadata_percent="12.50"),
            {"thin_data_used_ratio": 0.8125, "thin_metadata_used_ratio": 0.125},
        ),
        (row("vm", "thin", data_percent="3.00"), {"thin_data_used_ratio": 0.03}),
        (
            row("snap", "linear", data_percent="44.00", snap_percent="44.00"),
            {"snapshot_used_ratio": 0.44},
        ),
        (
            row("fast", "cache", cache_used_blocks="30", cache_total_blocks="120"),
            {"cache_used_ratio": 0.25},
        ),
        (row("bad", "raid1", lv_health_status="partial"), {"lv_healthy": 0}),
    ],
    ids=lambda value: value.get("lv_name") if isinstance(value, dict) else None,
)
def test_a_volume_tells_what_applies_to_it(
    volume: dict[str, str], wanted: dict[str, float]
) -> None:
    labels = f"vg0/{volume['lv_name']}"
    every = {"lv_size_bytes": 1 << 30, "lv_healthy": 1, **wanted}
    assert values(report("lv", volume)) == {f"{name} {labels}": v for name, v in every.items()}


def test_a_volume_of_several_segments_counts_once() -> None:
    assert len(source.parse_volumes(report("lv", row("a", "linear"), row("a", "striped")))) == 1


def test_missing_devices_are_told() -> None:
    physical = report(
        "pv",
        {"pv_name": "/dev/sda2", "vg_name": "vg0", "pv_size": "100", "pv_free": "40"},
        {"pv_name": "[unknown]", "vg_name": "vg0", "pv_size": "100", "pv_missing": "missing"},
    )
    assert [each.missing for each in source.parse_physical(physical)] == [False, True]
    groups = report("vg", {"vg_name": "vg0", "vg_size": "200", "vg_missing_pv_count": "1"})
    assert source.parse_groups(groups) == [source.Group(name="vg0", size=200, free=0, missing=1)]


@pytest.mark.parametrize("output", [b"", b"[]", b'{"report": 3}', b'{"report": [1]}', b"\xff"])
def test_another_report_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        source.parse_volumes(output)


def test_this_machine_has_no_volumes(make_node: Callable[..., Node]) -> None:
    with pytest.raises(NoData):
        look(lvm.collect, make_node())
