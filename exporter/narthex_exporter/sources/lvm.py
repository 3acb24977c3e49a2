"""Ask LVM for its volumes, by the reports of lvs(8), vgs(8) and pvs(8)."""

import json
from dataclasses import dataclass
from typing import Any, Final

from narthex_exporter.errors import UnavailableError
from narthex_exporter.sources.programs import MissingError, run

_REPORT: Final = ("--reportformat", "json", "--units", "b", "--nosuffix", "--noheadings")
_PV: Final = "pv_name,vg_name,pv_size,pv_free,pv_missing"
_VG: Final = "vg_name,vg_size,vg_free,vg_missing_pv_count"
_LV: Final = (
    "vg_name,lv_name,segtype,lv_size,data_percent,metadata_percent,snap_percent,"
    "cache_used_blocks,cache_total_blocks,lv_health_status"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One logical volume; what does not apply to its kind is None. Ratios are from 0 to 1."""

    group: str
    name: str
    size: int
    thin_data: float | None
    thin_metadata: float | None
    snapshot: float | None
    cache: float | None
    healthy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One volume group."""

    name: str
    size: int
    free: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Physical:
    """One physical volume; ``group`` is empty where it is in none."""

    name: str
    group: str
    size: int
    free: int
    missing: bool


def physical_volumes() -> list[Physical]:
    """Ask for the physical volumes. Raises MissingError, UnavailableError."""
    return parse_physical(_ask("pvs", _PV))


def groups() -> list[Group]:
    """Ask for the volume groups. Raises MissingError, UnavailableError."""
    return parse_groups(_ask("vgs", _VG))


def volumes() -> list[Volume]:
    """Ask for the logical volumes. Raises MissingError, UnavailableError."""
    return parse_volumes(_ask("lvs", _LV))


def parse_physical(output: bytes) -> list[Physical]:
    """Parse what pvs prints. Raises ValueError where it is no such report."""
    return [
        Physical(
            name=row.get("pv_name", ""),
            group=row.get("vg_name", ""),
            size=_bytes(row, "pv_size"),
            free=_bytes(row, "pv_free"),
            missing=bool(row.get("pv_missing")),
        )
        for row in _rows(output, "pv")
    ]


def parse_groups(output: bytes) -> list[Group]:
    """Parse what vgs prints. Raises ValueError where it is no such report."""
    return [
        Group(
            name=row.get("vg_name", ""),
            size=_bytes(row, "vg_size"),
            free=_bytes(row, "vg_free"),
            missing=_bytes(row, "vg_missing_pv_count"),
        )
        for row in _rows(output, "vg")
    ]


def parse_volumes(output: bytes) -> list[Volume]:
    """Parse what lvs prints. Raises ValueError where it is no such report."""
    found: dict[tuple[str, str], Volume] = {}
    for row in _rows(output, "lv"):
        kind = row.get("segtype", "")
        thin = kind in {"thin-pool", "thin"}
        volume = Volume(
            group=row.get("vg_name", ""),
            name=row.get("lv_name", ""),
            size=_bytes(row, "lv_size"),
            thin_data=_ratio(row, "data_percent") if thin else None,
            thin_metadata=_ratio(row, "metadata_percent") if thin else None,
            snapshot=_ratio(row, "snap_percent") if not thin else None,
            cache=_cache(row),
            healthy=not row.get("lv_health_status"),
        )
        # One row a segment.
        found.setdefault((volume.group, volume.name), volume)
    return list(found.values())


def _ask(program: str, columns: str) -> bytes:
    done = run((program, *_REPORT, "-o", columns), timeout_seconds=20.0)
    if done.code:
        why = (done.error.strip().splitlines() or ["no reason given"])[0]
        raise UnavailableError(f"{program} failed: {why.strip()}")
    return done.output


def _rows(output: bytes, kind: str) -> list[dict[str, str]]:
    try:
        reports: list[Any] = json.loads(output.decode("utf-8", "replace"))["report"]
        return [
            {key: value for key, value in row.items() if isinstance(value, str)}
            for report in reports
            for row in report.get(kind, ())
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("LVM printed another report than was asked for") from error


def _bytes(row: dict[str, str], name: str) -> int:
    text = row.get(name, "")
    return int(text) if text.isdecimal() else 0


def _ratio(row: dict[str, str], name: str) -> float | None:
    try:
        return round(float(row.get(name, "")) / 100, 6)
    except ValueError:
        return None


def _cache(row: dict[str, str]) -> float | None:
    total = _bytes(row, "cache_total_blocks")
    return _bytes(row, "cache_used_blocks") / total if total else None


__all__ = [
    "Group",
    "MissingError",
    "Physical",
    "Volume",
    "groups",
    "physical_volumes",
    "volumes",
]
