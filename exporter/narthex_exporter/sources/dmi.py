"""Read what the firmware says of the machine: /sys/class/dmi/id."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from narthex_exporter.sources.place import Paths

# The label, in node_exporter's words, and the file; serials and the UUID are for root only.
FILES: Final = {
    "bios_date": "bios_date",
    "bios_release": "bios_release",
    "bios_vendor": "bios_vendor",
    "bios_version": "bios_version",
    "board_asset_tag": "board_asset_tag",
    "board_name": "board_name",
    "board_serial": "board_serial",
    "board_vendor": "board_vendor",
    "board_version": "board_version",
    "chassis_asset_tag": "chassis_asset_tag",
    "chassis_serial": "chassis_serial",
    "chassis_vendor": "chassis_vendor",
    "chassis_version": "chassis_version",
    "product_family": "product_family",
    "product_name": "product_name",
    "product_serial": "product_serial",
    "product_sku": "product_sku",
    "product_uuid": "product_uuid",
    "product_version": "product_version",
    "system_vendor": "sys_vendor",
}


@dataclass(slots=True)
class Dmi:
    """The firmware's words; they stay until the next boot, so they are read once."""

    folder: Path
    _words: tuple[str, ...] | None = field(default=None, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        return cls(paths.sys / "class/dmi/id")

    def get(self) -> tuple[str, ...]:
        """Give the words in the order of FILES; empty is what is not told, or not to us."""
        if self._words is None:
            self._words = tuple(self._read(name) for name in FILES.values())
        return self._words

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
