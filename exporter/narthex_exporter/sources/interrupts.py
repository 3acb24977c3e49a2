"""Read /proc/interrupts. See proc(5)."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """One line: a number has a controller (``info``) and devices, a name has its ``info``."""

    kind: str
    info: str
    devices: str
    counts: tuple[tuple[str, int], ...]


def parse_interrupts(text: str) -> Iterator[Interrupt]:
    """Parse each line that counts by CPU; ERR and MIS, which do not, are left out."""
    head, *lines = text.splitlines() or [""]
    cpus = [word.removeprefix("CPU") for word in head.split()]
    for line in lines:
        kind, colon, rest = line.partition(":")
        words = rest.split()
        counts = words[: len(cpus)]
        details = words[len(cpus) :]
        if not colon or not details or not all(word.isdecimal() for word in counts):
            continue
        kind = kind.strip()
        first = 1 if kind.isdecimal() else len(details)
        yield Interrupt(
            kind=kind,
            info=" ".join(details[:first]),
            devices=" ".join(details[first:]),
            counts=tuple(zip(cpus, map(int, counts), strict=True)),
        )
