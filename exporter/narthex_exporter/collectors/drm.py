"""Report AMD graphics cards: how busy they are, and their memory."""

import re
from collections.abc import Iterator
from typing import Final

from narthex_exporter.collectors.readings import Meaning, Reading, present, remembered, samples
from narthex_exporter.collectors.spec import Node, Sample, collector, gauge

_FOLDER: Final = "class/drm"
_CARD: Final = re.compile(r"card\d+")


def _meaning(name: str, help: str) -> Meaning:  # noqa: A002
    return Meaning(gauge(f"node_drm_{name}", help, ("card",)))


# The kernel's Documentation/gpu/amdgpu/driver-misc.rst.
MEANINGS: Final = {
    "gpu_busy_percent": _meaning("gpu_busy_percent", "How busy the GPU is as a percentage."),
    "mem_info_gtt_total": _meaning(
        "memory_gtt_size_bytes",
        "The size of the graphics translation table (GTT) block in bytes.",
    ),
    "mem_info_gtt_used": _meaning(
        "memory_gtt_used_bytes",
        "The used amount of the graphics translation table (GTT) block in bytes.",
    ),
    "mem_info_vis_vram_total": _meaning(
        "memory_vis_vram_size_bytes", "The size of visible VRAM in bytes."
    ),
    "mem_info_vis_vram_used": _meaning(
        "memory_vis_vram_used_bytes", "The used amount of visible VRAM in bytes."
    ),
    "mem_info_vram_total": _meaning("memory_vram_size_bytes", "The size of VRAM in bytes."),
    "mem_info_vram_used": _meaning("memory_vram_used_bytes", "The used amount of VRAM in bytes."),
}
INFO: Final = gauge(
    "node_drm_card_info",
    "Card information.",
    ("card", "memory_vendor", "power_performance_level", "unique_id", "vendor"),
)


@collector(
    name="drm",
    metrics=(*(meaning.metric for meaning in MEANINGS.values()), INFO),
    enabled=False,
)
def collect(node: Node) -> Iterator[Sample]:
    """Report AMD graphics cards: how busy they are, and their memory."""
    cards, readings = remembered(node, "graphics cards", lambda: _find(node))
    yield from samples(node.sys, readings)
    for card, maker, number in cards:
        level = node.sys.text(f"{_FOLDER}/{card}/device/power_dpm_force_performance_level")
        yield INFO.at(1, card, maker, level or "", number, "amd")


def _find(node: Node) -> tuple[list[tuple[str, str, str]], list[Reading]] | None:
    names = node.sys.devices(_FOLDER)
    if names is None:
        return None
    cards = []
    readings: list[Reading] = []
    for name in names:
        device = f"{_FOLDER}/{name}/device"
        if not _CARD.fullmatch(name):
            continue  # a connector of a card, such as card0-DP-1
        if "DRIVER=amdgpu" not in (node.sys.text(f"{device}/uevent") or "").split():
            continue
        maker = node.sys.text(f"{device}/mem_info_vram_vendor") or ""
        cards.append((name, maker, node.sys.text(f"{device}/unique_id") or ""))
        readings += present(node.sys, device, MEANINGS, (name,))
    return cards, readings
