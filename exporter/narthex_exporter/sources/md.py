"""Read the state of software RAID, from /proc/mdstat and /sys/block."""

import re
from dataclasses import dataclass
from typing import Final

from narthex_exporter.sources.procfs import Procfs
from narthex_exporter.sources.sysfs import Sysfs

_DISKS: Final = re.compile(r"\[(\d+)/(\d+)\] \[[U_]+\]")
_DONE: Final = re.compile(r"\((\d+)/\d+\)")
_FINISH: Final = re.compile(r"finish=(\d+(?:\.\d+)?)min")
# What md does, as the kernel's mdstat says it; of two words in a line the first one here counts.
_ACTIONS: Final = (
    ("recovery", "recovering"),
    ("reshape", "reshaping"),
    ("check", "checking"),
    ("resync", "resyncing"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """One array. ``state`` is active, inactive or what md does with it; blocks are of 1 KiB."""

    name: str
    state: str
    disks_active: int
    disks_required: int
    disks_failed: int
    disks_spare: int
    blocks: int
    blocks_synced: int
    finish_seconds: float | None = None


def parse_mdstat(text: str) -> list[Array]:
    """Parse /proc/mdstat, see md(4). Raises ValueError for an array that is not understood."""
    found: list[list[str]] = []
    for line in text.splitlines():
        if line[:1] in {" ", "\t"}:
            if found:
                found[-1].append(line)
        elif line.strip() and not line.startswith(("Personalities", "unused", "read_ahead")):
            found.append([line])
    return [_array(lines) for lines in found]


def _array(lines: list[str]) -> Array:
    head = lines[0].split()
    size = lines[1].split()[:1] if len(lines) > 1 else []
    if len(head) < 3 or head[1] != ":" or not size or not size[0].isdecimal():  # noqa: PLR2004
        raise ValueError("an array in mdstat has another shape than md(4) says")
    name, state, blocks = head[0], head[2], int(size[0])
    required = active = 0
    if "raid0" in head or "linear" in head:
        required = active = sum("[" in word for word in head[3:])
    elif state != "inactive" and (disks := _DISKS.search(lines[1])):
        required, active = int(disks[1]), int(disks[2])
    elif state != "inactive":
        raise ValueError(f"mdstat does not tell how many disks {name} has")
    synced, finish = blocks, None
    for line in lines[2:]:
        doing = next((state for word, state in _ACTIONS if word in line), None)
        if doing is None or "bitmap" in line:
            continue
        state, done, end = doing, _DONE.search(line), _FINISH.search(line)
        # PENDING and DELAYED have no numbers.
        synced = int(done[1]) if done else 0
        finish = float(end[1]) * 60.0 if end else None
        break
    return Array(
        name=name,
        state=state,
        disks_active=active,
        disks_required=required,
        disks_failed=lines[0].count("(F)"),
        disks_spare=lines[0].count("(S)"),
        blocks=blocks,
        blocks_synced=synced,
        finish_seconds=finish,
    )


def arrays(proc: Procfs) -> list[Array]:
    """Give the arrays. Raises FileNotFoundError where md is not loaded, and ValueError."""
    return parse_mdstat(proc.text("mdstat"))


def disks_degraded(sys: Sysfs, name: str) -> tuple[int | None, int | None]:
    """Give how many disks an array should have and how many it lacks; None is not told.

    While an array grows, ``raid_disks`` reads ``4 (3)``.
    """
    text = (sys.text(f"block/{name}/md/raid_disks") or "").partition(" ")[0]
    return int(text) if text.isdecimal() else None, sys.number(f"block/{name}/md/degraded")
