"""Find the files that count memory errors; see the kernel's Documentation/ABI on edac."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from narthex_exporter.sources.place import Paths
from narthex_exporter.sources.sysfs import Sysfs

_BASE: Final = "devices/system/edac/mc"
_KINDS: Final = (("ce", True), ("ue", False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A file that counts: of a controller, of its row, or of a channel of a row with a DIMM."""

    file: str
    labels: tuple[str, ...]
    is_correctable: bool


@dataclass(slots=True)
class Edac:
    """The counting files, looked for anew when controllers come or go."""

    _controllers: list[str] = field(default_factory=list, init=False)
    _found: list[Count] = field(default_factory=list, init=False)

    @classmethod
    def of(cls, paths: Paths) -> Self:
        """Make one; does no work yet."""
        del paths
        return cls()

    def counts(self, sys: Sysfs) -> list[Count]:
        """Give every file that counts errors."""
        controllers = [name for name in sys.names(_BASE) if _number(name, "mc")]
        if controllers != self._controllers:
            self._found = [each for name in controllers for each in _controller(sys, name)]
            self._controllers = controllers
        return self._found


def _controller(sys: Sysfs, name: str) -> Iterator[Count]:
    folder = f"{_BASE}/{name}"
    controller = _number(name, "mc")
    for kind, correctable in _KINDS:
        yield Count(
            file=f"{folder}/{kind}_count", labels=(controller,), is_correctable=correctable
        )
        yield Count(
            file=f"{folder}/{kind}_noinfo_count",
            labels=(controller, "unknown"),
            is_correctable=correctable,
        )
    for row in sys.names(folder):
        if csrow := _number(row, "csrow"):
            yield from _row(sys, f"{folder}/{row}", controller, csrow)


def _row(sys: Sysfs, folder: str, controller: str, csrow: str) -> Iterator[Count]:
    for kind, correctable in _KINDS:
        yield Count(
            file=f"{folder}/{kind}_count", labels=(controller, csrow), is_correctable=correctable
        )
    for file in sys.names(folder):
        channel = _number(file.removesuffix("_ce_count"), "ch")
        if channel and file.endswith("_ce_count"):
            label = sys.text(f"{folder}/ch{channel}_dimm_label")
            for kind, correctable in _KINDS:
                yield Count(
                    file=f"{folder}/ch{channel}_{kind}_count",
                    labels=(controller, csrow, channel, _clean(label)),
                    is_correctable=correctable,
                )


def _clean(label: str | None) -> str:
    """Write the kernel's own label of a DIMM as node_exporter does: mc0_csrow1_channel0."""
    if label is None:
        return "unknown"
    parts = label.replace("#", "")
    return parts.replace("csrow", "_csrow").replace("channel", "_channel")


def _number(name: str, prefix: str) -> str:
    number = name.removeprefix(prefix)
    return number if name.startswith(prefix) and number.isdecimal() else ""
